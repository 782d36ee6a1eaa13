"""A task on images that each step distorts itself."""

import jax

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.evaluation import haarpsi
from diffv2iqa_jax.types import Batch, Metrics, Params, Task, Weights


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
    """Wraps a task so that each training step distorts its images.

    The step distorts the batch's `image` or, where it has none, its `reference`. The label is
    HaarPSI to the original, times the original's own quality where the batch has that. Images
    and labels are a function of the step's key and of each example's `draw`. Batches to predict
    on carry their images, which stay as they are.

    Args:
      task: what learns on the distorted images.
      types, clean, chains, levels, group: of `distortions.kadid.mixture`; no types mean all.
      subsample: of `evaluation.haarpsi.haarpsi`.

    Raises:
      ValueError: settings that the mixture does not take.
    """
    mixture = {"types": tuple(types) or kadid.TYPES, "levels": tuple(levels)}
    mixture |= {"clean": clean, "chains": chains, "group": group}
    kadid.check_mixture(**mixture)

    def init(key: jax.Array, batch: Batch) -> Weights:
        return task.init(key, {**batch, "image": _original(batch)})

    def loss(
        weights: Weights, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Params]]:
        key_B = rng.per_image(rng.stream_of(key, "distort"), batch["draw"])
        original = _original(batch)
        image = kadid.mixture(key_B, pixels.to_float(original), **mixture)
        image = jax.lax.stop_gradient(pixels.to_uint8(image))
        mos = haarpsi.haarpsi(original, image, subsample=subsample) * batch.get("mos", 1.0)
        return task.loss(weights, {**batch, "image": image, "mos": mos}, key)

    return Task(init, loss, task.predict)


def _original(batch: Batch) -> jax.Array:
    return batch["image"] if "image" in batch else batch["reference"]
