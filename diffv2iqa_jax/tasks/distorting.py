"""A task on images that each step distorts itself."""

import jax

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.evaluation import haarpsi
from diffv2iqa_jax.types import Batch, Task, Weights


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
