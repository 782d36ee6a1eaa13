"""Quality as something to train other nets by: a loss that can be differentiated by the images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.scoring.predictor import Judge
from diffv2iqa_jax.types import Views, Weights


def loss(
    judged: Judge,
    weights: Weights,
    pp: str,
    few: Callable[[list], list],
    images_BHWC: jax.Array,
) -> jax.Array:
    """1 - mean quality of floating images (B, H, W, 3), RGB in [0, 1].

    The other views are taken as given: gradients go through the image alone. Their noise is the
    same for all images.

    Args:
      pp: which crops of the images are looked at.
      few: chooses among them.

    Raises:
      ValueError: the images are of another type or shape.
    """
    x = jnp.asarray(images_BHWC)
    if x.ndim != 4 or x.shape[-1] != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"images {x.dtype} {x.shape}: must be floating (B, H, W, 3) in [0, 1]")
    x, pp = _scaled(2 * x.astype(jnp.float32) - 1, pp)
    places_HWC = np.stack(np.indices(x.shape[1:3]), axis=-1)
    parts = [crop.image_HWC for crop in few(ops_numpy.parse(pp)(places_HWC, 0))]
    cut = lambda x: jnp.concatenate([x[..., part[..., 0], part[..., 1], :] for part in parts])

    def views(x_BHWC: jax.Array) -> jax.Array:
        batch = {"image": x_BHWC, "content": jnp.zeros(len(x_BHWC), jnp.uint32)}
        return jax.lax.stop_gradient(judged.views(weights, batch).image_BVHWC)

    seen = cut(views(x)) if judged.whole else views(cut(x))
    seen = jnp.concatenate([cut(x)[:, None], seen[:, 1:]], axis=1)
    return 1 - jnp.mean(judged.score(weights, Views(seen))["score"])


def _scaled(x_BHWC: jax.Array, pp: str) -> tuple[jax.Array, str]:
    """What the pipeline's first ops scale, and the rest of it, which only cuts."""
    first, rest = spec.head(pp)
    while first:
        side = ops_numpy.parse(first)(np.zeros((1, 1, 3), np.uint8), 0)[0].image_HWC.shape[0]
        shape = (x_BHWC.shape[0], side, side, 3)
        x_BHWC = jax.image.resize(x_BHWC, shape, "cubic").clip(-1, 1)
        first, rest = spec.head(rest)
    return x_BHWC, rest
