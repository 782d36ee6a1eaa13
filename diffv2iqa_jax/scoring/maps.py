"""Draws a scored picture as a strip: itself, its restoration, noisy states, a map of quality."""

import os
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.scoring.result import Score

HEIGHT = 512  # pixels; higher strips are scaled down
GAP = 4  # pixels between panels
WHITE = 255
# Purple, blue, teal, green, yellow: rises in lightness, so it reads in grey and without red.
COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])


def strip(score: Score) -> np.ndarray:
    """The panels of a Score with details side by side, (h, w, 3) uint8."""
    panels = list(_panels(score))
    height = panels[0].shape[0]
    gap = np.full((height, GAP, 3), WHITE, np.uint8)
    spaced = [x for panel in panels for x in (panel, gap)][:-1]
    strip_HWC = np.concatenate(spaced, axis=1)
    if height <= HEIGHT:
        return strip_HWC
    size = (max(1, strip_HWC.shape[1] * HEIGHT // height), HEIGHT)
    return np.asarray(Image.fromarray(strip_HWC).resize(size, Image.Resampling.BOX))


def write(folder: str, number: int, path: str | None, strip_HWC: np.ndarray) -> str:
    """Writes a strip as PNG, named by the picture's number and name; returns where.

    Raises:
      UsageError: the folder cannot be written to, as on a full disk.
    """
    stem = os.path.splitext(os.path.basename(path or ""))[0]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:80]
    name = os.path.join(folder, f"{number:07d}_{stem}.png")
    try:
        with storage.replacing(name) as unfinished:
            Image.fromarray(strip_HWC).save(unfinished, "PNG")
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"{name}: cannot be written ({why}); --resume goes on") from None
    return name


def _panels(score: Score) -> Iterator[np.ndarray]:
    for view in range(score.views.shape[1]):
        yield _to_bytes(_assembled(score.views[:, view], score.corners))
    if score.branches:
        yield _coloured(_assembled(_quality(score), score.corners)[..., 0])


def _quality(score: Score) -> np.ndarray:
    """The branches' patch scores, added up as the score adds the branches: (crops, h, w, 1)."""
    size = score.views.shape[2:4]
    return sum(
        weight * _enlarged(score.maps[f"score_{name}"], size)
        for name, weight in score.branch_weights.items()
    )


def _assembled(crops_KHWC: np.ndarray, corners_K2: np.ndarray) -> np.ndarray:
    """Crops put where they are from, averaged where they overlap; NaN where there is none."""
    h, w, channels = crops_KHWC.shape[1:]
    height, width = corners_K2.max(0) + (h, w)
    total, count = np.zeros((height, width, channels)), np.zeros((height, width, 1))
    for crop, (top, left) in zip(crops_KHWC, corners_K2, strict=True):
        total[top : top + h, left : left + w] += crop
        count[top : top + h, left : left + w] += 1
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _enlarged(patches_KHW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each patch's score all over the patch: (crops, h, w, 1)."""
    images = [Image.fromarray(patches.astype(np.float32)) for patches in patches_KHW]
    enlarged = [image.resize(size[::-1], Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in enlarged])[..., None]


def _coloured(quality_HW: np.ndarray) -> np.ndarray:
    """Quality in [0, 1] as COLOURS, (H, W, 3) uint8; white where it is NaN."""
    place = np.clip(quality_HW, 0, 1) * (len(COLOURS) - 1)
    channels = [np.interp(place, np.arange(len(COLOURS)), COLOURS[:, c]) for c in range(3)]
    return _to_bytes(np.stack(channels, -1))


def _to_bytes(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), WHITE, np.rint(x)).astype(np.uint8)
