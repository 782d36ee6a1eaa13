"""Work on a large picture tile by tile: tiles of one shape that overlap at their sides."""

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
    """Calls `work` on each tile of a picture and puts its results together.

    Args:
      image_HWC: the picture.
      work: turns a tile (h, w, C) into (V, h, w, C), for any number V of results.
      side: height and width of a tile, in pixels; smaller where the picture is.
      margin: pixels along the side between two tiles that are not trusted: neighbours overlap by
        at least twice as many.

    Returns:
      (V, H, W, C), of the type that `work` returns.
    """
    height, width = image_HWC.shape[:2]
    whole_VHWC = None
    for top, rows in _spans(height, side, margin):
        for left, columns in _spans(width, side, margin):
            tile_VHWC = work(image_HWC[top : top + side, left : left + side])
            if whole_VHWC is None:
                shape = (len(tile_VHWC), height, width, tile_VHWC.shape[-1])
                whole_VHWC = np.empty(shape, tile_VHWC.dtype)
            trusted_VHWC = tile_VHWC[:, _moved(rows, top), _moved(columns, left)]
            whole_VHWC[:, rows, columns] = trusted_VHWC
    return whole_VHWC


def _moved(span: slice, start: int) -> slice:
    """A span of the whole, counted from a tile's start."""
    return slice(span.start - start, span.stop - start)


def _spans(length: int, side: int, margin: int) -> list[tuple[int, slice]]:
    """Where each tile starts along one axis, and the span of the whole that it fills."""
    if length <= side:
        return [(0, slice(0, length))]
    count = -(-(length - 2 * margin) // (side - 2 * margin))
    starts = [i * (length - side) // (count - 1) for i in range(count)]
    cuts = [(a + side + b) // 2 for a, b in zip(starts, starts[1:], strict=False)]
    bounds = [0, *cuts, length]
    return [(start, slice(*bounds[i : i + 2])) for i, start in enumerate(starts)]
