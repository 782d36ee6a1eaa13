"""Makes the functions of one step, which take nothing but (state, batch), from a task."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from diffv2iqa_jax import rng
from diffv2iqa_jax.training.sharding import AXIS
from diffv2iqa_jax.training.state import Flat, TrainState, merge
from diffv2iqa_jax.types import Batch, Metrics, Params, Task, Weights


def make_gradients(task: Task, *, seed: int, accumulate: int = 1) -> Callable:
    """(state, batch of one device) -> (gradients, stats, metrics), averaged over all devices.

    Runs inside a map over AXIS. Each device averages its micro-batches first, so that the
    devices exchange one float32 gradient per step, however many micro-batches there are.

    Args:
      accumulate: micro-batches to split a device's batch into, one after the other.
    """

    def gradients(state: TrainState, batch: Batch) -> tuple[Flat, Params, Metrics]:
        key = rng.stream(seed, "train", state.step)

        def loss(trainable: Flat, stats: Params, micro_batch: Batch):
            return task.loss(Weights(merge(trainable, state.fixed), stats), micro_batch, key)

        def micro_step(stats: Params, micro_batch: Batch):
            differentiate = jax.grad(loss, has_aux=True)
            grads, (metrics, stats) = differentiate(state.trainable, stats, micro_batch)
            return stats, (grads, metrics)

        if accumulate == 1:
            stats, grads_and_metrics = micro_step(state.stats, batch)
        else:
            micro_batches = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
            stats, stacked = jax.lax.scan(micro_step, state.stats, micro_batches)
            grads_and_metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
        grads, metrics = jax.lax.pmean(grads_and_metrics, AXIS)
        return grads, stats, metrics

    return gradients


def make_train_step(
    gradients: Callable, tx: optax.GradientTransformation, *, average: float, rate: Callable
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One optimiser step: (state, batch) -> (state, metrics). The same for both stages.

    Args:
      gradients: from `make_gradients`, mapped over the devices.
      tx: the update rule.
      average: decay of the moving average. Early on the decay is (1 + step) / (10 + step), so
        that the average forgets the first steps.
      rate: step -> learning rate, for the metrics.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, stats, metrics = gradients(state, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        decay = jnp.minimum(average, (1.0 + state.step) / (10.0 + state.step))
        next_state = state.replace(
            step=state.step + 1,
            trainable=trainable,
            average=optax.incremental_update(trainable, state.average, 1.0 - decay),
            stats=stats,
            opt_state=opt_state,
        )
        metrics = {**metrics, "grad_norm": optax.tree.norm(grads), "lr": rate(state.step)}
        return next_state, metrics

    return train_step


def make_predict_step(task: Task, names: tuple[str, ...] | None = None) -> Callable:
    """(weights, batch) -> per-image outputs; computes only those of `names`, None: all."""

    def predict_step(weights: Weights, batch: Batch) -> dict[str, jax.Array]:
        outputs = task.predict(weights, batch)
        # The compiler leaves out what only the other outputs need.
        return {k: v for k, v in outputs.items() if names is None or k in names}

    return predict_step
