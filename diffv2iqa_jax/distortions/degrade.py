"""Distortions of pictures on the host: 16 types, each at levels 1 (mild) to 5 (severe).

They make the built-in data's distorted images. Lossy codecs are the real ones (Pillow encodes
and decodes). Strengths are meant for small pictures, 32 to 256 pixels, looked at enlarged.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

LEVELS = (1, 2, 3, 4, 5)
LUMA = np.array([0.299, 0.587, 0.114])

# Each function maps (float64 HWC in [0, 255], level 1..5, generator) -> the same form,
# unclipped; `degrade` rounds and clips.
Distortion = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def degrade(image_HWC: np.ndarray, type: str, level: int, seed: int) -> np.ndarray:
    """Distorts a picture.

    Args:
      image_HWC: uint8 RGB, at least 16 pixels each way.
      type: one of TYPES.
      level: 1 (mild) to 5 (severe); each function of TYPES documents its strengths.
      seed: at least 0; decides noise, directions and places.

    Returns:
      uint8, of the same shape; the same for the same arguments.

    Raises:
      ValueError: unknown type or level, or not a uint8 RGB picture.
    """
    if type not in TYPES:
        raise ValueError(f"distortion {type!r}: known are {sorted(TYPES)}")
    if level not in LEVELS:
        raise ValueError(f"level {level!r} of {type!r}: known are {LEVELS}")
    x = np.asarray(image_HWC)
    if x.dtype != np.uint8 or x.ndim != 3 or x.shape[-1] != 3:
        raise ValueError(f"a picture must be uint8 (H, W, 3); got {x.dtype} {x.shape}")
    rng = np.random.Generator(np.random.PCG64(seed))
    return _uint8(TYPES[type](x.astype(np.float64), level, rng))


def _uint8(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 255)).astype(np.uint8)


def _recoded(x: np.ndarray, format: str, **settings: Any) -> np.ndarray:
    """Encodes and decodes a picture with Pillow."""
    stream = io.BytesIO()
    Image.fromarray(_uint8(x)).save(stream, format, **settings)
    return np.asarray(Image.open(stream).convert("RGB"), np.float64)


def jpeg(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG with 4:2:0 chroma at quality 85, 50, 25, 12, 5."""
    return _recoded(x, "JPEG", quality=(85, 50, 25, 12, 5)[level - 1], subsampling="4:2:0")


def jpeg2000(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG 2000, irreversible wavelet, coded to a PSNR of 36, 32, 28, 25, 22 dB."""
    decibels = (36, 32, 28, 25, 22)[level - 1]
    return _recoded(x, "JPEG2000", quality_mode="dB", quality_layers=[decibels], irreversible=True)


def gaussian_blur(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian of standard deviation 0.6, 1, 1.5, 2.2, 3.5 pixels."""
    sigma = (0.6, 1.0, 1.5, 2.2, 3.5)[level - 1]
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="reflect")


def motion_blur(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Mean along a straight path of 3, 5, 8, 12, 18 pixels in a random direction."""
    length = (3, 5, 8, 12, 18)[level - 1]
    angle = rng.uniform(0, np.pi)
    half = length // 2 + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for t in np.linspace(-(length - 1) / 2, (length - 1) / 2, 4 * length):
        row, column = half + t * np.sin(angle), half + t * np.cos(angle)
        i, j = int(row), int(column)
        down, right = row - i, column - j  # four pixels share a point, by nearness
        kernel[i : i + 2, j : j + 2] += np.outer((1 - down, down), (1 - right, right))
    return ndimage.convolve(x, kernel[..., None] / kernel.sum(), mode="reflect")


def white_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, independent in R, G and B, of deviation 6, 12, 20, 32, 50."""
    return x + (6, 12, 20, 32, 50)[level - 1] * rng.standard_normal(x.shape)


def colour_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise that leaves the luminance alone, of deviation 10, 18, 30, 48, 75."""
    noise = rng.standard_normal(x.shape)
    noise -= (noise @ LUMA)[..., None]
    return x + (10, 18, 30, 48, 75)[level - 1] * noise


def impulse_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper on 0.5, 1.5, 4, 9, 18 % of the values."""
    share = (0.005, 0.015, 0.04, 0.09, 0.18)[level - 1]
    chance = rng.uniform(size=x.shape)
    return np.where(chance < share / 2, 0.0, np.where(chance < share, 255.0, x))


def multiplicative_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Speckle: each value times 1 + Gaussian noise of deviation 0.06, 0.12, 0.2, 0.35, 0.6."""
    return x * (1 + (0.06, 0.12, 0.2, 0.35, 0.6)[level - 1] * rng.standard_normal(x.shape))


def pixelate(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Shrunk by area 1.4, 2, 3, 4, 6 times and enlarged again by repetition."""
    factor = (1.4, 2, 3, 4, 6)[level - 1]
    picture = Image.fromarray(_uint8(x))
    small = tuple(max(1, round(side / factor)) for side in picture.size)
    small = picture.resize(small, Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.NEAREST), np.float64)


def quantise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Only 16, 10, 6, 4, 3 evenly spaced values in each channel."""
    steps = (16, 10, 6, 4, 3)[level - 1] - 1
    return np.rint(x / 255 * steps) * (255 / steps)


def low_contrast(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Distance from the mean colour times 0.75, 0.58, 0.43, 0.3, 0.18."""
    mean = x.mean(axis=(0, 1))
    return mean + (0.75, 0.58, 0.43, 0.3, 0.18)[level - 1] * (x - mean)


def brighten(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Overexposed: values times 1.15, 1.4, 1.75, 2.3, 3.2, and so cut off at white."""
    return x * (1.15, 1.4, 1.75, 2.3, 3.2)[level - 1]


def darken(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Underexposed: values to the power of 1.3, 1.7, 2.3, 3.2, 5."""
    return 255 * (x / 255) ** (1.3, 1.7, 2.3, 3.2, 5.0)[level - 1]


def desaturate(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Distance from grey of the same luminance times 0.7, 0.5, 0.3, 0.15, 0."""
    grey = (x @ LUMA)[..., None]
    return grey + (0.7, 0.5, 0.3, 0.15, 0.0)[level - 1] * (x - grey)


def lost_blocks(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Replaces 3, 7, 14, 26, 45 % of the 8x8 blocks by the block to their left.

    The last block of a row replaces the first.
    """
    share = (0.03, 0.07, 0.14, 0.26, 0.45)[level - 1]
    rows, columns = x.shape[0] // 8, x.shape[1] // 8
    lost = rng.permutation(rows * columns)[: max(1, round(share * rows * columns))]
    patched = x.copy()
    for row, column in zip(*np.divmod(lost, columns), strict=True):
        top, left, source = 8 * row, 8 * column, 8 * ((column - 1) % columns)
        patched[top : top + 8, left : left + 8] = x[top : top + 8, source : source + 8]
    return patched


def sharpen(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Unsharp mask (deviation 1.2 pixels) of amount 0.8, 1.8, 3.5, 6, 11: halos and clipping."""
    blurred = ndimage.gaussian_filter(x, (1.2, 1.2, 0), mode="reflect")
    return x + (0.8, 1.8, 3.5, 6.0, 11.0)[level - 1] * (x - blurred)


TYPES: dict[str, Distortion] = {
    "jpeg": jpeg,
    "jpeg2000": jpeg2000,
    "gaussian_blur": gaussian_blur,
    "motion_blur": motion_blur,
    "white_noise": white_noise,
    "colour_noise": colour_noise,
    "impulse_noise": impulse_noise,
    "multiplicative_noise": multiplicative_noise,
    "pixelate": pixelate,
    "quantise": quantise,
    "low_contrast": low_contrast,
    "brighten": brighten,
    "darken": darken,
    "desaturate": desaturate,
    "lost_blocks": lost_blocks,
    "sharpen": sharpen,
}
