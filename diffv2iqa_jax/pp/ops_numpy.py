"""What a scorer looks at: the test pipelines of data.pp in NumPy, the same pixels to the last.

    parse("grid(224)")(image_HWC, content)

Random ops draw from a picture's content alone, as they do there, by TensorFlow's own generator.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diffv2iqa_jax.pp.philox import Seed, fold_in, seed_of, uniform
from diffv2iqa_jax.pp.spec import build, check_size


class Crop(NamedTuple):
    """A part of a picture.

    Attributes:
      image_HWC: uint8.
      views_VHWC: the same part of its other views, where there are any.
      corner: its top and left in the (scaled) picture.
    """

    image_HWC: np.ndarray
    views_VHWC: np.ndarray | None
    corner: tuple[int, int] = (0, 0)


Op = Callable[[Crop, Seed, int], list[Crop]]


def parse(pipeline: str) -> Callable[..., list[Crop]]:
    """A pipeline string -> (image_HWC, content, views_VHWC or None) -> its crops.

    Args:
      pipeline: as `data.pp.parse` takes it; "" is the whole picture.

    Raises:
      ValueError: an op is unknown or its settings do not fit; says which.
    """
    ops = build(pipeline, OPS)
    if sum(pipeline.count(f"{name}(") for name in SEVERAL) > 1:
        raise ValueError(f"{pipeline!r}: only one of {', '.join(SEVERAL)} can stand in it")

    def run(image_HWC: np.ndarray, content: int, views_VHWC: np.ndarray | None = None):
        found = [Crop(image_HWC, views_VHWC)]
        seed = seed_of(content)
        for place, op in enumerate(ops):
            draw = fold_in(seed, place)
            found = [part for crop in found for part in op(crop, draw, content)]
        return found

    return run


def crop(size: int) -> Op:
    check_size("crop", size)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        return [_cut(crop, corner, size) for corner in _random_corners(crop, size, 1, seed)]

    return op


def center(size: int) -> Op:
    check_size("center", size)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        h, w = crop.image_HWC.shape[:2]
        return [_cut(crop, ((h - size) // 2, (w - size) // 2), size)]

    return op


def grid(size: int) -> Op:
    check_size("grid", size)

    def starts(length: int) -> list[int]:
        count = (length + size - 1) // size
        return [i * (length - size) // max(count - 1, 1) for i in range(count)]

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        h, w = crop.image_HWC.shape[:2]
        return [_cut(crop, (top, left), size) for top in starts(h) for left in starts(w)]

    return op


def random_crops(size: int, n: int) -> Op:
    check_size("random_crops", size)
    check_size("random_crops", n)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        corners = _random_corners(crop, size, n, seed_of(content))
        return [_cut(crop, corner, size) for corner in corners]

    return op


def _random_flip(axis: int, name: str, p: float) -> Op:
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name} takes a probability in [0, 1]; got {p!r}")

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        if not uniform(seed, 1)[0] < np.float32(p):
            return [crop]
        return [_on_pictures(crop, lambda x: np.flip(x, axis))]

    return op


def flip(p: float) -> Op:
    return _random_flip(-2, "flip", p)


def vertical_flip(p: float) -> Op:
    return _random_flip(-3, "vertical_flip", p)


def resize(size: int) -> Op:
    check_size("resize", size)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        if crop.views_VHWC is not None:
            raise ValueError(f"resize({size}): stored views cannot be resized; let it come first")
        x = crop.image_HWC.astype(np.float32)
        for axis in (0, 1):
            x = _resampled(x, size, axis)
        return [crop._replace(image_HWC=np.clip(np.rint(x), 0, 255).astype(np.uint8))]

    return op


OPS = {
    "crop": crop,
    "center": center,
    "flip": flip,
    "vertical_flip": vertical_flip,
    "grid": grid,
    "random_crops": random_crops,
    "resize": resize,
}


SEVERAL = ("grid", "random_crops")


def _on_pictures(crop: Crop, change: Callable[[np.ndarray], np.ndarray]) -> Crop:
    views = None if crop.views_VHWC is None else change(crop.views_VHWC)
    return crop._replace(image_HWC=change(crop.image_HWC), views_VHWC=views)


def _cut(crop: Crop, corner: tuple[int, int], size: int) -> Crop:
    """A square of it, without copying."""
    top, left = corner
    part = _on_pictures(crop, lambda x: x[..., top : top + size, left : left + size, :])
    return part._replace(corner=(crop.corner[0] + top, crop.corner[1] + left))


def _reflected(length: int, size: int) -> np.ndarray:
    """Row numbers 0, 1, .., length - 1, length - 2, .., 0, 1, ..: at least `size` of them."""
    period = max(2 * (length - 1), 1)
    place = np.arange(max(length, size)) % period
    return np.minimum(place, period - place) % length


def _at_least(crop: Crop, size: int) -> Crop:
    h, w = crop.image_HWC.shape[:2]
    if min(h, w) >= size:
        return crop
    rows, columns = _reflected(h, size), _reflected(w, size)
    return _on_pictures(crop, lambda x: x.take(rows, axis=-3).take(columns, axis=-2))


def _random_corners(crop: Crop, size: int, n: int, seed: Seed) -> list[tuple[int, int]]:
    room = np.array(crop.image_HWC.shape[:2], np.float32)[:, None] - np.float32(size - 1)
    corner = (uniform(seed, 2 * n).reshape(2, n) * room).astype(np.int32)
    return list(zip(*corner.tolist(), strict=True))


def _resampled(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """One axis scaled to `size` by Keys' cubic (a = -1/2), widened where it shrinks; float32.

    In the order, and with the roundings, of TensorFlow's ScaleAndTranslate.
    """
    one = np.float32(1)
    length = x.shape[axis]
    inverse = one / (np.float32(size) / np.float32(length))
    widen = max(inverse, one)
    sample = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * inverse
    radius, half = np.float32(2) * widen, np.float32(0.5)
    first = np.clip(np.ceil(sample - radius - half).astype(int), 0, length - 1)
    last = np.clip(np.floor(sample + radius - half).astype(int), 0, length - 1)
    taps = first + np.arange((last - first).max() + 1)[:, None]
    weights = _keys(np.abs(taps.astype(np.float32) + half - sample) * (one / widen))
    weights = np.where(taps <= last, weights, np.float32(0))
    weights = weights * (one / sum(weights))
    shape = [1] * x.ndim
    shape[axis] = size
    out = np.float32(0)
    for tap, weight in zip(taps, weights, strict=True):
        out = out + x.take(np.minimum(tap, length - 1), axis) * weight.reshape(shape)
    return out


def _keys(x: np.ndarray) -> np.ndarray:
    near = ((np.float32(1.5) * x - np.float32(2.5)) * x) * x + np.float32(1)
    far = ((np.float32(-0.5) * x + np.float32(2.5)) * x - np.float32(4)) * x + np.float32(2)
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
