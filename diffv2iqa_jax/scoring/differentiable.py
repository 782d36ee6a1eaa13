"""Quality as a loss: differentiable by the images, to train other nets with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.scoring import arguments
from diffv2iqa_jax.scoring.predictor import Predictor
from diffv2iqa_jax.types import Views, Weights


def loss(
    predictor: Predictor,
    weights: Weights,
    pp: str,
    chosen: Callable[[list], list],
    images_BHWC: jax.Array,
) -> jax.Array:
    """1 - mean quality of the images: a scalar to minimise.

    Gradients go through the images alone; the restored views count as constants. All images get
    the same noise.

    Args:
      predictor: how to score.
      weights: on the device.
      pp: the test pipeline; it crops all images at the same places.
      chosen: the crops to look at -> those that count.
      images_BHWC: floating, RGB in [0, 1].

    Raises:
      ValueError: the images have another type, shape or range; see `arguments.check_images`.
    """
    arguments.check_images(images_BHWC)
    x, pp = _resized(2 * jnp.asarray(images_BHWC, jnp.float32) - 1, pp)
    # The pipeline crops a picture of places: each pixel holds its own row and column.
    places_HWC = np.stack(np.indices(x.shape[1:3]), axis=-1)
    crops = [crop.image_HWC for crop in chosen(ops_numpy.parse(pp)(places_HWC, 0))]

    def cropped(x: jax.Array) -> jax.Array:
        """All crops of all images, along the first axis."""
        return jnp.concatenate([x[..., place[..., 0], place[..., 1], :] for place in crops])

    def views(x_BHWC: jax.Array) -> jax.Array:
        batch = {"image": x_BHWC, "content": jnp.zeros(len(x_BHWC), jnp.uint32)}
        return jax.lax.stop_gradient(predictor.views(weights, batch).image_BVHWC)

    views_BVHWC = cropped(views(x)) if predictor.whole else views(cropped(x))
    seen_BVHWC = jnp.concatenate([cropped(x)[:, None], views_BVHWC[:, 1:]], axis=1)
    return 1 - jnp.mean(predictor.score(weights, Views(seen_BVHWC))["score"])


def _resized(x_BHWC: jax.Array, pp: str) -> tuple[jax.Array, str]:
    """The images after the pipeline's leading resizes, and the rest of it, which only crops."""
    resize, rest = spec.head(pp)
    while resize:
        pixel = np.zeros((1, 1, 3), np.uint8)
        side = ops_numpy.parse(resize)(pixel, 0)[0].image_HWC.shape[0]
        x_BHWC = jax.image.resize(x_BHWC, (len(x_BHWC), side, side, 3), "cubic").clip(-1, 1)
        resize, rest = spec.head(rest)
    return x_BHWC, rest
