"""Work on a large picture part by part: tiles of one shape, each trusted away from its sides."""

from collections.abc import Callable

import numpy as np

PIXELS = 2**20  # a larger picture is tiled
SIDE = 512
MARGIN = 32  # pixels of a tile next to another that are thrown away


def over(
    image_HWC: np.ndarray,
    work: Callable[[np.ndarray], np.ndarray],
    *,
    side: int = SIDE,
    margin: int = MARGIN,
) -> np.ndarray:
    """What `work` makes, (V, h, w, C) of each tile (h, w, C), put together: (V, H, W, C)."""
    height, width = image_HWC.shape[:2]
    out = None
    for top, rows in _parts(height, side, margin):
        for left, columns in _parts(width, side, margin):
            tile = work(image_HWC[top : top + side, left : left + side])
            if out is None:
                out = np.empty((len(tile), height, width, tile.shape[-1]), tile.dtype)
            out[:, rows, columns] = tile[:, _moved(rows, -top), _moved(columns, -left)]
    return out


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def _parts(length: int, side: int, margin: int) -> list[tuple[int, slice]]:
    """Where each tile starts, and which part of the whole is taken from it."""
    if length <= side:
        return [(0, slice(0, length))]
    count = -(-(length - 2 * margin) // (side - 2 * margin))
    starts = [i * (length - side) // (count - 1) for i in range(count)]
    cuts = [(a + side + b) // 2 for a, b in zip(starts, starts[1:], strict=False)]
    bounds = [0, *cuts, length]
    return [(start, slice(*bounds[i : i + 2])) for i, start in enumerate(starts)]
