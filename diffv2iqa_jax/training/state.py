"""What a run remembers between two steps; nothing else, and no functions."""

import re

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
        some = sorted({name.rsplit("/", 2)[0] for name in flat})[:8]
        raise ValueError(
            f"frozen {frozen!r}: matches {len(held)} of {len(flat)} parameters; "
            f"paths look like {some}"
        )
    return {k: v for k, v in flat.items() if k not in held}, {k: flat[k] for k in held}


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
