"""What a run remembers between two steps: arrays only, no functions."""

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
    """Splits the parameters into (trainable, fixed); fixed ones have a path matching `frozen`.

    Fixed parameters get no gradient, no optimiser state and no average, so they cost no traffic.

    Args:
      frozen: a regular expression; "" fixes nothing.

    Raises:
      ValueError: the expression matches nothing, or everything.
    """
    flat = flatten_dict(params, sep="/")
    fixed = {path for path in flat if frozen and re.search(frozen, path)}
    if frozen and (not fixed or len(fixed) == len(flat)):
        matches = f"matches {len(fixed)} of {len(flat)} parameters"
        raise ValueError(f"frozen {frozen!r}: {matches}; {_example_paths(flat)}")
    return {k: v for k, v in flat.items() if k not in fixed}, {k: flat[k] for k in fixed}


def check_rates(rates: tuple[tuple[str, float], ...], names: Iterable[str]) -> None:
    """Raises ValueError for a factor that is not positive, and for a pattern without a match.

    Args:
      rates: (regular expression, factor) pairs, see `optim.make`.
      names: paths of the trainable parameters.
    """
    names = tuple(names)
    for pattern, factor in rates:
        if not factor > 0:
            raise ValueError(f"rates {pattern!r}: {factor} must be above 0; or freeze them")
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(f"rates {pattern!r}: matches nothing trained; {_example_paths(names)}")


def _example_paths(paths: Iterable[str]) -> str:
    """Shows what paths look like to whoever wrote an expression that missed them."""
    return f"paths look like {sorted({path.rsplit('/', 2)[0] for path in paths})[:8]}"


def merge(trainable: Flat, fixed: Flat) -> Params:
    """The inverse of `partition`."""
    return unflatten_dict({**trainable, **fixed}, sep="/")


@flax.struct.dataclass
class TrainState:
    """The state of a training run.

    Attributes:
      step: number of steps done, int32.
      trainable, fixed: the parameters, by path.
      average: exponential moving average of `trainable`, which predicts and is shipped.
      stats: running statistics, see `Weights`.
      opt_state: the optimiser's state of `trainable`.
    """

    step: jax.Array
    trainable: Flat
    fixed: Flat
    average: Flat
    stats: Params
    opt_state: optax.OptState

    @classmethod
    def create(
        cls, weights: Weights, tx: optax.GradientTransformation, frozen: str
    ) -> "TrainState":
        """The state before the first step; `frozen` as in `partition`."""
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
        """The weights to predict with: the averaged parameters and the statistics."""
        return Weights(merge(self.average, self.fixed), self.stats)
