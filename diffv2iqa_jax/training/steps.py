"""Makes the functions of one step, which take nothing but (state, batch), from a task."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from diffv2iqa_jax import rng
from diffv2iqa_jax.models import remat
from diffv2iqa_jax.models.layers import BATCH_AXES
from diffv2iqa_jax.training import sharding
from diffv2iqa_jax.training.state import Flat, TrainState, merge
from diffv2iqa_jax.types import Batch, Metrics, Params, Task, Weights


def make_gradients(
    task: Task, *, seed: int, accumulate: int = 1, recompute: str = "none"
) -> Callable:
    """(shares, state, batch of one device) -> (gradients, stats, metrics), averaged over devices.

    Runs inside a map over BATCH_AXES, by `sharding`'s `gradients`. Each device averages its
    micro-batches first, so that the devices exchange one float32 gradient per step, however many
    micro-batches there are. With one micro-batch a gradient is exchanged as soon as it is known,
    so that a device whose parameters are split never holds the whole of them.

    Args:
      accumulate: micro-batches to split a device's batch into, one after the other.
      recompute: one of `remat.KINDS`, what to compute again instead of keeping it.
    """

    def gradients(
        shares: sharding.Shares, state: TrainState, batch: Batch
    ) -> tuple[Flat, Params, Metrics]:
        key = rng.stream(seed, "train", state.step)

        def loss(trainable: Flat, stats: Params, micro_batch: Batch):
            params = merge(trainable, shares.whole(state.fixed))
            with remat.recomputing(recompute):
                return task.loss(Weights(params, stats), micro_batch, key)

        def loss_of_shares(trainable: Flat, stats: Params, micro_batch: Batch):
            return loss(shares.whole(trainable), stats, micro_batch)

        if accumulate == 1:
            differentiate = jax.grad(shares.regather(loss_of_shares), has_aux=True)
            grads, (metrics, stats) = differentiate(state.trainable, state.stats, batch)
            return grads, stats, jax.lax.pmean(metrics, BATCH_AXES)

        trainable, exchange = jax.vjp(shares.whole, state.trainable)

        def micro_step(carried: tuple[Flat, Params], micro_batch: Batch):
            total, stats = carried
            differentiate = jax.grad(shares.regather(loss), has_aux=True)
            grads, (metrics, stats) = differentiate(trainable, stats, micro_batch)
            return (jax.tree.map(jnp.add, total, grads), stats), metrics

        micro_batches = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
        start = (jax.tree.map(jnp.zeros_like, trainable), state.stats)
        (total, stats), stacked = jax.lax.scan(micro_step, start, micro_batches)
        (grads,) = exchange(jax.tree.map(lambda x: x / accumulate, total))
        metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
        return grads, stats, jax.lax.pmean(metrics, BATCH_AXES)

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
