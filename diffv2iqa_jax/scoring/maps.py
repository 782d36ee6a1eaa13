"""A strip of a scored picture: itself, its restoration, the noisy states, the map of quality."""

import os
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

HEIGHT = 512  # pixels; higher strips are scaled down
GAP = 4
WHITE = 255
# Purple, blue, teal, green, yellow: rises in lightness, so it reads in grey and without red.
COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])


def strip(score) -> np.ndarray:
    """The panels of a `scorer.Score` with details side by side, (h, w, 3) uint8."""
    panels = list(_panels(score))
    high = panels[0].shape[0]
    gap = np.full((high, GAP, 3), WHITE, np.uint8)
    row = np.concatenate([x for panel in panels for x in (panel, gap)][:-1], axis=1)
    if high <= HEIGHT:
        return row
    size = (max(1, row.shape[1] * HEIGHT // high), HEIGHT)
    return np.asarray(Image.fromarray(row).resize(size, Image.Resampling.BOX))


def write(folder: str, number: int, path: str | None, strip_HWC: np.ndarray) -> str:
    """Writes a strip as PNG, named by the picture's number and name; returns where."""
    stem = os.path.splitext(os.path.basename(path or ""))[0]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:80]
    name = os.path.join(folder, f"{number:07d}_{stem}.png")
    Image.fromarray(strip_HWC).save(name + ".tmp", "PNG")
    os.replace(name + ".tmp", name)
    return name


def _panels(score) -> Iterator[np.ndarray]:
    for view in range(score.views.shape[1]):
        yield _bytes(_assembled(score.views[:, view], score.corners))
    if score.branches:
        yield _coloured(_assembled(_quality(score), score.corners)[..., 0])


def _quality(score) -> np.ndarray:
    """Patch scores of the branches, added up as their scores are: (crops, h, w, 1)."""
    difference = score.branches.get("difference", 0.0)
    others = sum(score.branches.values()) - difference
    # score = S1 + w2 S2, but nothing here says what w2 was set to or learned.
    weights = {"difference": (score.score - others) / difference} if difference else {}
    size = score.views.shape[2:4]
    enlarged = {name: _enlarged(score.maps[f"score_{name}"], size) for name in score.branches}
    return sum(weights.get(name, 1.0) * part for name, part in enlarged.items())


def _assembled(parts_KHWC: np.ndarray, corners_K2: np.ndarray) -> np.ndarray:
    """Parts put where they are from, averaged where they overlap; NaN where none is."""
    h, w, channels = parts_KHWC.shape[1:]
    high, wide = corners_K2.max(0) + (h, w)
    total, count = np.zeros((high, wide, channels)), np.zeros((high, wide, 1))
    for part, (top, left) in zip(parts_KHWC, corners_K2, strict=True):
        total[top : top + h, left : left + w] += part
        count[top : top + h, left : left + w] += 1
    return np.where(count, total / np.maximum(count, 1), np.nan)


def _enlarged(patches_KHW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each patch's score all over it: (crops, h, w, 1)."""
    scaled = lambda x: Image.fromarray(x.astype(np.float32)).resize(
        size[::-1], Image.Resampling.BOX
    )
    return np.stack([np.asarray(scaled(x)) for x in patches_KHW])[..., None]


def _coloured(quality_HW: np.ndarray) -> np.ndarray:
    """Quality 0..1 in COLOURS; white where it is not known."""
    place = np.clip(quality_HW, 0, 1) * (len(COLOURS) - 1)
    channels = [np.interp(place, np.arange(len(COLOURS)), COLOURS[:, c]) for c in range(3)]
    return _bytes(np.stack(channels, -1))


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), WHITE, np.rint(x)).astype(np.uint8)
