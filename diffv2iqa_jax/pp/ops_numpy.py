"""The operations of pipelines in NumPy, for scoring and evaluation.

    parse("grid(224)")(image_HWC, content)

They give the pixels of `ops_tf`, which training uses, to the last. Random operations draw from a
picture's content alone, by TensorFlow's own generator.

Two rules for scaling 8 bits: `resize` rounds once, after both axes, which an exported program and a
loss can do, too. `shrink`, SR3's condition, is Pillow's own, which clips and rounds after each
axis: 4 levels apart on photos, but 20 beside edges of black and white.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from diffv2iqa_jax.pp.philox import Seed, fold_in, seed_of, uniform
from diffv2iqa_jax.pp.spec import build, check_size

BLOCK = 2**24  # values scaled at a time: as floats, a large picture takes four times its memory


class Crop(NamedTuple):
    """A part of a picture.

    Attributes:
      image_HWC: uint8.
      views_VHWC: the same part of its other views, where there are any.
      reference_HWC: uint8, the same part of its original, where there is one.
      corner: its top and left in the (scaled) picture.
    """

    image_HWC: np.ndarray
    views_VHWC: np.ndarray | None = None
    reference_HWC: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


Op = Callable[[Crop, Seed, int], list[Crop]]
BICUBIC = Image.Resampling.BICUBIC


def parse(pipeline: str, *, with_reference: bool = False) -> Callable[..., list[Crop]]:
    """A pipeline string -> (image_HWC, content, views_VHWC, reference_HWC) -> its crops.

    Args:
      pipeline: see `pp.spec`; "" is the whole picture.
      with_reference: take the ops that need a picture's original, too; scoring has none.

    Raises:
      ValueError: an op is unknown or its settings do not fit; says which.
    """
    ops = build(pipeline, OPS if with_reference else OPS_ON_THE_IMAGE)
    if sum(pipeline.count(f"{name}(") for name in SEVERAL) > 1:
        raise ValueError(f"{pipeline!r}: only one of {', '.join(SEVERAL)} can stand in it")

    def run(
        image_HWC: np.ndarray,
        content: int,
        views_VHWC: np.ndarray | None = None,
        reference_HWC: np.ndarray | None = None,
    ) -> list[Crop]:
        crops = [Crop(image_HWC, views_VHWC, reference_HWC)]
        seed = seed_of(content)
        for place, op in enumerate(ops):
            draw = fold_in(seed, place)
            crops = [part for crop in crops for part in op(crop, draw, content)]
        return crops

    return run


def makes_several(pipeline: str) -> bool:
    """Whether a pipeline makes several crops of a picture."""
    return any(f"{name}(" in pipeline for name in SEVERAL)


def crop(size: int) -> Op:
    """A random square of `size` pixels."""
    check_size("crop", size)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        return [_cut(crop, corner, size) for corner in _random_corners(crop, size, 1, seed)]

    return op


def center(size: int) -> Op:
    """The square of `size` pixels in the middle."""
    check_size("center", size)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        h, w = crop.image_HWC.shape[:2]
        return [_cut(crop, ((h - size) // 2, (w - size) // 2), size)]

    return op


def grid(size: int) -> Op:
    """Evenly spaced squares that cover every pixel: ceil(h / size) rows, ceil(w / size) columns."""
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
    """`n` squares anywhere, chosen by the picture's content: the same at every visit."""
    check_size("random_crops", size)
    check_size("random_crops", n)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        crop = _at_least(crop, size)
        corners = _random_corners(crop, size, n, seed_of(content))
        return [_cut(crop, corner, size) for corner in corners]

    return op


def flip(p: float) -> Op:
    """Left becomes right, with probability `p`."""
    return _random_flip(-2, "flip", p)


def vertical_flip(p: float) -> Op:
    """Top becomes bottom, with probability `p`."""
    return _random_flip(-3, "vertical_flip", p)


def resize(size: int) -> Op:
    """The whole picture scaled to (size, size), bicubic with antialiasing; not for views."""
    check_size("resize", size)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        if crop.views_VHWC is not None:
            raise ValueError(f"resize({size}): stored views cannot be resized; let it come first")
        return [_on_pictures(crop, partial(_scaled, size=(size, size)))]

    return op


def shrink(factor: int) -> Op:
    """The image becomes its reference, `factor` times smaller and as large again.

    Both ways by Pillow's bicubic filter: the condition of SR3's super-resolution.
    """
    check_size("shrink", factor)

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        if crop.reference_HWC is None or crop.views_VHWC is not None:
            raise ValueError(f"shrink({factor}): needs the reference, and no stored views")
        return [crop._replace(image_HWC=shrunk(crop.reference_HWC, factor))]

    return op


def shrunk(image_HWC: np.ndarray, factor: int) -> np.ndarray:
    """A uint8 picture, `factor` times smaller and as large again, by Pillow's bicubic filter."""
    picture = Image.fromarray(image_HWC)
    small = picture.resize([max(side // factor, 1) for side in picture.size], BICUBIC)
    return np.asarray(small.resize(picture.size, BICUBIC))


OPS = {
    "crop": crop,
    "center": center,
    "flip": flip,
    "vertical_flip": vertical_flip,
    "grid": grid,
    "random_crops": random_crops,
    "resize": resize,
    "shrink": shrink,
}
OPS_ON_THE_IMAGE = {name: op for name, op in OPS.items() if name != "shrink"}
SEVERAL = ("grid", "random_crops")


def _random_flip(axis: int, name: str, p: float) -> Op:
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name} takes a probability in [0, 1]; got {p!r}")

    def op(crop: Crop, seed: Seed, content: int) -> list[Crop]:
        if not uniform(seed, 1)[0] < np.float32(p):
            return [crop]
        return [_on_pictures(crop, lambda x: np.flip(x, axis))]

    return op


def _on_pictures(crop: Crop, change: Callable[[np.ndarray], np.ndarray]) -> Crop:
    """The image, its views and its reference get the same geometry."""
    image, views, reference = (x if x is None else change(x) for x in crop[:3])
    return Crop(image, views, reference, crop.corner)


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


def _scaled(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 scaled to `size` (rows, columns), rounded to uint8 again."""
    x = image_HWC
    for axis, length in enumerate(size):
        x = _resampled(x, length, axis)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _resampled(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """One axis scaled to `size` by Keys' cubic (a = -1/2), widened where it shrinks; float32.

    In the order, and with the roundings, of TensorFlow's ScaleAndTranslate.
    """
    from scipy import sparse  # a tenth of a second, for which only resizing has to wait

    taps, weights = _taps(x.shape[axis], size)
    first = np.ascontiguousarray(np.moveaxis(x, axis, 0))
    ends = np.arange(size + 1) * len(taps)  # a row of the matrix for each new element
    entries = (weights.T.ravel(), taps.T.ravel(), ends)
    matrix = sparse.csr_array(entries, shape=(size, len(first)))
    flat = first.reshape(len(first), -1)
    out = np.empty((size, flat.shape[1]), np.float32)
    step = max(BLOCK // len(first), 1)
    for start in range(0, flat.shape[1], step):
        out[:, start : start + step] = matrix @ flat[:, start : start + step].astype(np.float32)
    return np.moveaxis(out.reshape(size, *first.shape[1:]), 0, axis)


def _taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which elements of an axis each new element is a sum of, and their weights: (taps, size)."""
    one, half = np.float32(1), np.float32(0.5)
    inverse = one / (np.float32(size) / np.float32(length))
    widen = max(inverse, one)
    sample = (np.arange(size, dtype=np.float32) + half) * inverse
    radius = np.float32(2) * widen
    first = np.clip(np.ceil(sample - radius - half).astype(int), 0, length - 1)
    last = np.clip(np.floor(sample + radius - half).astype(int), 0, length - 1)
    taps = first + np.arange((last - first).max() + 1)[:, None]
    weights = _keys(np.abs(taps.astype(np.float32) + half - sample) * (one / widen))
    weights = np.where(taps <= last, weights, np.float32(0))
    return np.minimum(taps, length - 1), weights * (one / sum(weights))


def _keys(x: np.ndarray) -> np.ndarray:
    near = ((np.float32(1.5) * x - np.float32(2.5)) * x) * x + np.float32(1)
    far = ((np.float32(-0.5) * x + np.float32(2.5)) * x - np.float32(4)) * x + np.float32(2)
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
