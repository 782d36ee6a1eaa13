"""The words of this project: dimension letters, and what travels between modules.

Dimension letters, used as the suffix of every array's name (image_BHWC):

  B  images in a batch        H W  rows, columns      C  channels
  V  views of one image       N    positions (H * W)  D  token width
  K  kept noisy states        S    sampling steps     T  training steps of the diffusion

Pixel values inside the package are float32 in [-1, 1]; they are uint8 on disk, in the data
pipeline and in a batch on its way to the device. Quality is float32 in [0, 1], higher is
better, whatever the data set's own scale is.

A batch is a flat dict:

  image      (B, H, W, 3) uint8     the distorted image
  reference  (B, H, W, 3) uint8     its pristine original, where the data set has one
  views      (B, V - 1, H, W, 3)    its other views, where they were computed and stored before
  mos        (B,) float32           quality in [0, 1]
  id         (B,) int32             row of the data set's table
  content    (B,) uint32            CRC-32 of the whole image's pixels: same pixels, same noise
  draw       (B,) uint32            training only: position in the endless stream of examples
  mask       (B,) float32           1 for an image, 0 for padding

A training batch of pristine photos has no image and no mos: the step makes both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax

Batch = dict[str, jax.Array]
Params = Any  # nested dict of float32 arrays
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class Weights:
    """All that predicting needs: parameters and running statistics."""

    params: Params
    stats: Params  # BatchNorm's running mean and variance; {} where a model has none


@flax.struct.dataclass
class Views:
    """What the quality branches see of an image.

    Attributes:
      image_BVHWC: the distorted image, the restored one (y_0), then the kept noisy states
        (y_t1, y_t2, ...) in the order of the restorer's `keep`.
    """

    image_BVHWC: jax.Array


class Restorer(NamedTuple):
    """A way to make views of an image: three pure functions.

    init(key, batch) -> weights
    loss(weights, batch, key) -> (per-image loss (B,), stats)
    views(weights, batch) -> Views, which depend on the weights and on each image alone
    """

    init: Callable[[jax.Array, Batch], Weights]
    loss: Callable[[Weights, Batch, jax.Array], tuple[jax.Array, Params]]
    views: Callable[[Weights, Batch], Views]


class Task(NamedTuple):
    """One training stage: three pure functions.

    init(key, batch) -> weights
    loss(weights, batch, key) -> (scalar, (metrics, stats))
    predict(weights, batch) -> dict of per-image arrays, each (B, ...)
    """

    init: Callable[[jax.Array, Batch], Weights]
    loss: Callable[[Weights, Batch, jax.Array], tuple[jax.Array, tuple[Metrics, Params]]]
    predict: Callable[[Weights, Batch], dict[str, jax.Array]]
