"""Arrays of pixels from callers: checked, and made uint8."""

from typing import Any

import numpy as np


def from_array(x: Any) -> np.ndarray:
    """uint8 (0..255), uint16 (0..65535) or floating (0..1) RGB (H, W, 3) -> uint8.

    Raises:
      TypeError: another type.
      ValueError: another shape, or values outside the range; says which.
    """
    if type(x).__module__.partition(".")[0] == "torch":
        raise TypeError("image is a torch tensor: pass x.permute(1, 2, 0).cpu().numpy()")
    x = x if isinstance(x, np.ndarray) else np.asarray(x)
    _check_type(x)
    if x.ndim != 3 or x.shape[-1] != 3 or not x.size:
        fix = "pass (height, width, 3)"
        if x.ndim == 2:
            fix = "grey pictures: np.stack([x] * 3, axis=-1)"
        elif x.ndim == 3 and x.shape[0] == 3:
            fix = "channels must be last: x.transpose(1, 2, 0)"
        elif x.ndim == 3 and x.shape[-1] == 4:
            fix = "pass PIL.Image.fromarray(x), whose transparency we know to treat"
        raise ValueError(f"image of shape {x.shape}: must be (H, W, 3); {fix}")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype == np.uint16:
        return to_8_bits(x)
    return np.rint(np.asarray(x, np.float32) * 255).astype(np.uint8)


def _check_type(x: np.ndarray) -> None:
    floating = x.dtype.kind == "f" or x.dtype.name == "bfloat16"
    if x.dtype not in (np.uint8, np.uint16) and not floating:
        raise TypeError(
            f"image of type {x.dtype}: must be uint8 (0..255), uint16 (0..65535) or floating"
            " (0..1); convert it with x.astype(np.uint8) if that is its range"
        )
    if not floating or not x.size:
        return
    low, high = float(np.min(x)), float(np.max(x))
    if not (0 <= low and high <= 1):  # also where one of them is NaN
        raise ValueError(
            f"floating image with values from {low:.4g} to {high:.4g}: must be finite and lie in"
            " 0..1; divide 0..255 by 255, or pass uint8"
        )


def to_8_bits(x: np.ndarray) -> np.ndarray:
    """0..65535 -> 0..255, to the nearest."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)
