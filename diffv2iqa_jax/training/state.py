"""What a run remembers between two steps; nothing else, and no functions."""

import re
from collections.abc import Iterable

import flax
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from diffv2iqa_jax.types import Params, Weights

Flat = dict[str, jax.Array]  # "path/to/leaf" -> array


def partition(params: Params, frozen: str) -> tuple[Flat, Flat]:
    """Parameters to train, and those whose path matches the regular expression `frozen`.

    Frozen ones get no gradient, no optimiser state and no average, so they cost no traffic.

    Raises:
      ValueError: the expression matches nothing, or everything.
    """
    flat = flatten_dict(params, sep="/")
    held = {name for name in flat if frozen and re.search(frozen, name)}
    if frozen and (not held or len(held) == len(flat)):
        found = f"matches {len(held)} of {len(flat)} parameters"
        raise ValueError(f"frozen {frozen!r}: {found}; {_looks(flat)}")
    return {k: v for k, v in flat.items() if k not in held}, {k: flat[k] for k in held}


def check_rates(rates: tuple[tuple[str, float], ...], names: Iterable[str]) -> None:
    """Raises ValueError for a factor that is not positive, and for a pattern without a match.

    Args:
      names: paths of the parameters that are trained.
    """
    names = tuple(names)
    for pattern, factor in rates:
        if not factor > 0:
            raise ValueError(f"rates {pattern!r}: {factor} must be above 0; or freeze them")
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(f"rates {pattern!r}: matches nothing trained; {_looks(names)}")


def _looks(names: Iterable[str]) -> str:
    """What paths of parameters look like, for whoever wrote an expression that missed them."""
    return f"paths look like {sorted({name.rsplit('/', 2)[0] for name in names})[:8]}"


def merge(trainable: Flat, fixed: Flat) -> Params:
    return unflatten_dict({**trainable, **fixed}, sep="/")


@flax.struct.dataclass
class TrainState:
    """Attributes:
    step: steps taken, int32.
    trainable, fixed: the parameters, by path.
    average: exponential moving average of `trainable`: what predicts and is shipped.
    """

    step: jax.Array
    trainable: Flat
    fixed: Flat
    average: Flat
    stats: Params
    opt_state: optax.OptState

    @classmethod
    def create(cls, weights: Weights, tx: optax.GradientTransformation, frozen: str):
        trainable, fixed = partition(weights.params, frozen)
        return cls(
            step=jnp.zeros((), jnp.int32),
            trainable=trainable,
            fixed=fixed,
            average=jax.tree.map(jnp.copy, trainable),
            stats=weights.stats,
            opt_state=tx.init(trainable),
        )

    def weights(self) -> Weights:
        """What to predict with: the averaged parameters."""
        return Weights(merge(self.average, self.fixed), self.stats)
