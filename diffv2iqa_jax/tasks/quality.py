"""Stage 2 as three pure functions: score an image by what its restoration changed."""

from typing import Any

import jax
import jax.numpy as jnp

from diffv2iqa_jax import rng
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.tasks import losses, restorers
from diffv2iqa_jax.types import Batch, Metrics, Params, Task, Views, Weights


def quality(*, restorer: dict, model: dict, loss: str, branch_loss: float = 0.0) -> Task:
    """Stage 2: learn to score; the restorer stays as stage 1 left it.

    The weights hold two trees, "restorer" and "quality"; one that has no array is left out.

    Args:
      restorer: of stage 1; it does not run for a batch that carries stored views.
      model: settings of `models.quality.QualityModel`.
      loss: of score - mos, one of `losses.LOSSES`.
      branch_loss: weight of the same loss of each branch by itself, whose contribution is taken
        as many times as there are branches. Where only the sum is judged, the branch that learns
        faster explains what both could.

    Raises:
      ValueError: an unknown loss, or settings that do not fit together.
    """
    if loss not in losses.LOSSES:
        raise ValueError(f"loss {loss!r}: known are {sorted(losses.LOSSES)}")
    views_of, net = restorers.cached(restorers.make(**restorer)), QualityModel(**model)
    net.check()
    count = restorers.count(**restorer)

    def init(key: jax.Array, batch: Batch) -> Weights:
        key_restorer, key_quality = jax.random.split(key)
        first = views_of.init(key_restorer, batch)
        images, *sides = batch["image"].shape
        # Only the shape of the views matters here, so no chain has to run.
        variables = net.init(key_quality, Views(jnp.zeros((images, count, *sides))))
        second = Weights(variables["params"], variables.get("batch_stats", {}))
        return _joined(first, second)

    def forward(weights: Weights, batch: Batch, **kwargs: Any) -> tuple[Views, Any]:
        views = jax.lax.stop_gradient(views_of.views(part_of(weights, "restorer"), batch))
        own = part_of(weights, "quality")
        return views, net.apply({"params": own.params, "batch_stats": own.stats}, views, **kwargs)

    def loss_of(
        weights: Weights, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Params]]:
        drop_key_B = rng.per_image(rng.stream_of(key, "dropout"), batch["draw"])
        training = {"train": True, "drop_key_B": drop_key_B, "mutable": ["batch_stats"]}
        _, (out, changed) = forward(weights, batch, **training)
        value = _error(loss, out["score"], batch)
        if branch_loss:
            by_branch = out["parts"].T
            alone = [_error(loss, len(by_branch) * score_B, batch) for score_B in by_branch]
            value += branch_loss * sum(alone) / len(alone)
        # Without normalisation there are no statistics, and the state must not gain any.
        stats = {"quality": changed["batch_stats"]} if changed.get("batch_stats") else {}
        metrics = {"loss": value, "score_mean": jnp.mean(out["score"])}
        return value, (metrics, weights.stats | stats)

    def predict(weights: Weights, batch: Batch) -> dict[str, jax.Array]:
        views, out = forward(weights, batch)
        return {**out, "views": views.image_BVHWC[:, 1:]}

    return Task(init, loss_of, predict)


def part_of(weights: Weights, name: str) -> Weights:
    """The restorer's or the quality model's part of the weights; a part left out is empty."""
    return Weights(weights.params.get(name, {}), weights.stats.get(name, {}))


def _joined(restorer: Weights, quality: Weights) -> Weights:
    """Both parts in one. Empty parts are left out: every path in a state must end at an array."""

    def present(first: Params, second: Params) -> Params:
        parts = {"restorer": first, "quality": second}
        return {name: part for name, part in parts.items() if jax.tree.leaves(part)}

    return Weights(present(restorer.params, quality.params), present(restorer.stats, quality.stats))


def _error(loss: str, score_B: jax.Array, batch: Batch) -> jax.Array:
    """The loss of these scores, averaged over the images that are not padding."""
    return losses.masked_mean(losses.LOSSES[loss](score_B - batch["mos"]), batch["mask"])
