"""The two stages as three pure functions each: restore images, then judge them."""

import jax
import jax.numpy as jnp

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.evaluation import haarpsi
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.tasks import losses, restorers
from diffv2iqa_jax.types import Batch, Task, Views, Weights


def restoration(*, restorer: dict) -> Task:
    """Stage 1: learn to turn a distorted image into its reference."""
    r = restorers.make(**restorer)

    def loss(weights: Weights, batch: Batch, key: jax.Array):
        loss_B, stats = r.loss(weights, batch, key)
        value = losses.masked_mean(loss_B, batch["mask"])
        return value, ({"loss": value}, stats)

    def predict(weights: Weights, batch: Batch):
        return {"views": r.views(weights, batch).image_BVHWC[:, 1:]}

    return Task(r.init, loss, predict)


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


def distorting(
    task: Task,
    *,
    types: tuple[str, ...],
    clean: float,
    chains: float,
    levels: tuple[int, int],
    group: int,
    subsample: bool,
) -> Task:
    """The task on images that each step distorts itself.

    What is distorted is the batch's `image` or, where it has none, its `reference`. The label is
    HaarPSI to the original, times the original's own quality where the batch has that. Images
    and labels are a function of the step's key and of each example's `draw`. Batches to predict
    on carry their images, which stay as they are.

    Args:
      task: what to learn on the images made.
      types, clean, chains, levels, group: of `data.distort.mixture`; no types mean all.
      subsample: of `rating.haarpsi`.
    """
    drawn = {"types": tuple(types) or kadid.TYPES, "levels": tuple(levels)}
    drawn |= {"clean": clean, "chains": chains, "group": group}
    kadid.check_mixture(**drawn)

    def loss(weights: Weights, batch: Batch, key: jax.Array):
        key_B = rng.per_image(rng.stream_of(key, "distort"), batch["draw"])
        original = _original(batch)
        image = kadid.mixture(key_B, pixels.to_float(original), **drawn)
        image = jax.lax.stop_gradient(pixels.to_uint8(image))
        mos = haarpsi.haarpsi(original, image, subsample=subsample) * batch.get("mos", 1.0)
        return task.loss(weights, {**batch, "image": image, "mos": mos}, key)

    init = lambda key, batch: task.init(key, {**batch, "image": _original(batch)})
    return Task(init, loss, task.predict)


def _original(batch: Batch) -> jax.Array:
    return batch["image"] if "image" in batch else batch["reference"]


TASKS = {"restoration": restoration, "quality": quality}
# The sections of a configuration that each of them takes.
SETTINGS = {"restoration": ("restorer",), "quality": ("restorer", "model", "loss", "branch_loss")}


def settings(config: dict) -> dict:
    """The task's own sections of a configuration; one stored before a section was lacks it."""
    return {key: config[key] for key in SETTINGS[config["task"]] if key in config}


# What can start from pretrained weights -> where it lies in a task's weights; "" is the whole.
PARTS = {
    "restoration": {"restorer": ""},
    "quality": {
        "model": "quality",
        "guidance": "quality/guidance",
        "difference": "quality/difference",
        "vit": "quality/guidance/vit",
        "resnet": "quality/difference/resnet",
        "vcrnet": "quality/vcrnet/net",
        "vcrnet_restoration": "quality/vcrnet/net/restoration",
    },
}
