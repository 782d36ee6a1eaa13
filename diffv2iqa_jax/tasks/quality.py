"""Stage 2 as three pure functions: score an image by what its restoration changed."""

import jax
import jax.numpy as jnp

from diffv2iqa_jax import rng
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.tasks import losses, restorers
from diffv2iqa_jax.types import Batch, Task, Views, Weights


def quality(*, restorer: dict, model: dict, loss: str, branch_loss: float = 0.0) -> Task:
    """Stage 2: learn to score; the restorer stays as stage 1 left it.

    Args:
      restorer: of stage 1; a batch that carries stored views does not run it.
      model: settings of `models.iqa.QualityModel`.
      loss: of score - mos, one of `losses.LOSSES`.
      branch_loss: weight of the same loss of each branch by itself, its part of n taken n times.
        Where only the sum is judged, the branch that learns faster explains what both could.
    """
    if loss not in losses.LOSSES:
        raise ValueError(f"loss {loss!r}: known are {sorted(losses.LOSSES)}")
    r, net = restorers.cached(restorers.make(**restorer)), QualityModel(**model)
    net.check()

    def init(key: jax.Array, batch: Batch) -> Weights:
        key_r, key_q = jax.random.split(key)
        first = r.init(key_r, batch)
        b, *sides = batch["image"].shape
        # Only the views' shape matters here: no chain has to run.
        made = net.init(key_q, Views(jnp.zeros((b, restorers.count(**restorer), *sides))))
        # A part without leaves is not there: paths of a state, stored or frozen, lead to leaves.
        here = lambda restorer, quality: {
            name: part
            for name, part in (("restorer", restorer), ("quality", quality))
            if jax.tree.leaves(part)
        }
        params = here(first.params, made["params"])
        return Weights(params, here(first.stats, made.get("batch_stats", {})))

    def apply(weights: Weights, batch: Batch, **kwargs):
        of = lambda name: Weights(weights.params.get(name, {}), weights.stats.get(name, {}))
        views = jax.lax.stop_gradient(r.views(of("restorer"), batch))
        q = of("quality")
        return views, net.apply({"params": q.params, "batch_stats": q.stats}, views, **kwargs)

    def loss_of(weights: Weights, batch: Batch, key: jax.Array):
        rngs = {"dropout": rng.dropout(key, batch)}
        _, (out, changed) = apply(weights, batch, train=True, rngs=rngs, mutable=["batch_stats"])
        of = lambda score: losses.masked_mean(
            losses.LOSSES[loss](score - batch["mos"]), batch["mask"]
        )
        value = of(out["score"])
        if branch_loss:
            parts = out["parts"].T
            value += branch_loss * sum(of(len(parts) * part) for part in parts) / len(parts)
        # Where nothing normalises there are no statistics, and none may appear.
        moved = changed.get("batch_stats")
        stats = weights.stats | ({"quality": moved} if moved else {})
        return value, ({"loss": value, "score_mean": jnp.mean(out["score"])}, stats)

    def predict(weights: Weights, batch: Batch):
        views, out = apply(weights, batch)
        return {**out, "views": views.image_BVHWC[:, 1:]}

    return Task(init, loss_of, predict)
