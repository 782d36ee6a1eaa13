"""Step factories: a task becomes functions of (state, batch) alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from diffv2iqa_jax import rng
from diffv2iqa_jax.training.sharding import AXIS
from diffv2iqa_jax.training.state import TrainState, merge
from diffv2iqa_jax.types import Batch, Metrics, Task, Weights


def make_gradients(task: Task, *, seed: int, accumulate: int = 1) -> Callable:
    """(state, batch of one device) -> (gradients, stats, metrics), averaged over all devices.

    Runs inside a map over AXIS. The micro-batches are averaged on the device first, so that
    the devices exchange one float32 gradient per step, however many micro-batches there are.
    """

    def gradients(state: TrainState, batch: Batch):
        key = rng.stream(seed, "train", state.step)

        def loss(trainable, stats, micro):
            return task.loss(Weights(merge(trainable, state.fixed), stats), micro, key)

        def one(stats, micro):
            grads, (metrics, stats) = jax.grad(loss, has_aux=True)(state.trainable, stats, micro)
            return stats, (grads, metrics)

        if accumulate == 1:
            stats, out = one(state.stats, batch)
        else:
            split = lambda x: x.reshape(accumulate, -1, *x.shape[1:])
            stats, out = jax.lax.scan(one, state.stats, jax.tree.map(split, batch))
            out = jax.tree.map(lambda x: jnp.mean(x, axis=0), out)
        grads, metrics = jax.lax.pmean(out, AXIS)
        return grads, stats, metrics

    return gradients


def make_train_step(
    gradients: Callable, tx: optax.GradientTransformation, *, average: float, rate: Callable
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One optimiser step. Pure, and the same for both stages.

    Args:
      gradients: from `make_gradients`, mapped over the devices.
      average: decay of the moving average; early on it is (1 + step) / (10 + step), so that
        the first steps are forgotten.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, stats, metrics = gradients(state, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        decay = jnp.minimum(average, (1.0 + state.step) / (10.0 + state.step))
        new = state.replace(
            step=state.step + 1,
            trainable=trainable,
            average=optax.incremental_update(trainable, state.average, 1.0 - decay),
            stats=stats,
            opt_state=opt_state,
        )
        return new, {**metrics, "grad_norm": optax.tree.norm(grads), "lr": rate(state.step)}

    return train_step


def make_predict_step(task: Task, names: tuple[str, ...] | None = None) -> Callable:
    """(weights, batch) -> per-image outputs; only those `names` are computed, None: all."""

    def predict_step(weights: Weights, batch: Batch) -> dict[str, jax.Array]:
        out = task.predict(weights, batch)
        return {k: v for k, v in out.items() if names is None or k in names}

    return predict_step
