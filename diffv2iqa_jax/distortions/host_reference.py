"""The 25 types with Pillow, SciPy and scikit-image: a reference for those on the device.

Each function maps (float64 HWC in [0, 1], level 1..5, generator) -> the same form, unclipped. It
has the strengths of `distortions/kadid.py` and is as fast as these libraries allow.
"""

import io
import math
import warnings
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, signal
from skimage import color

SPECKLE = (0.001, 0.005, 0.01, 0.02, 0.05)
WHITE = (0.001, 0.002, 0.003, 0.005, 0.01)


def distort(image_HWC: np.ndarray, type: str, level: int, seed: int) -> np.ndarray:
    """Distorts a uint8 RGB picture; draws other noise and places than the device does.

    Args:
      type: one of FUNCTIONS.
      level: 1 to 5.

    Raises:
      KeyError: unknown type.
    """
    rng = np.random.default_rng(seed)
    return _uint8(FUNCTIONS[type](image_HWC / 255.0, level, rng))


def _uint8(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def _recoded(x: np.ndarray, format: str, **settings: Any) -> np.ndarray:
    """Encodes and decodes a picture with Pillow."""
    stream = io.BytesIO()
    Image.fromarray(_uint8(x)).save(stream, format, **settings)
    return np.asarray(Image.open(stream).convert("RGB")) / 255.0


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="reflect")


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = kernel.shape[0] // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    return signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))


def _rgb(lab: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that some colours had to be clipped
        return color.lab2rgb(lab)


def lens_blur(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    radius = (1, 2, 4, 6, 8)[level - 1]
    offset = np.arange(-radius - 1, radius + 2)
    kernel = np.clip(radius + 0.5 - np.hypot(offset[:, None], offset), 0, 1)
    return _convolved(x, kernel / kernel.sum())


def motion_blur(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    reach, angle = (1, 2, 4, 6, 10)[level - 1], rng.uniform(0, math.pi)
    along, offset = np.linspace(-reach, reach, 8 * reach + 1), np.arange(-reach, reach + 1)
    # The share that each point of the path gives to each row and to each column.
    rows = np.maximum(0, 1 - np.abs(offset[:, None] - along * math.sin(angle)))
    columns = np.maximum(0, 1 - np.abs(offset[:, None] - along * math.cos(angle)))
    kernel = rows @ columns.T
    return _convolved(x, kernel / kernel.sum())


def colour_diffusion(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    lab = color.rgb2lab(x)
    lab[..., 1:] = _blurred(lab[..., 1:], (1, 3, 6, 8, 12)[level - 1])
    return _rgb(lab)


def colour_shift(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    distance, angle = (1, 3, 6, 8, 12)[level - 1], rng.uniform(0, 2 * math.pi)
    top, left = (12 + round(distance * f(angle)) for f in (math.sin, math.cos))
    shifted, green = x.copy(), np.pad(x[..., 1], 12, mode="symmetric")
    shifted[..., 1] = green[top : top + x.shape[0], left : left + x.shape[1]]
    return shifted


def colour_quantisation(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(_uint8(x)).quantize(2 ** (7 - level), dither=Image.Dither.NONE)
    return np.asarray(picture.convert("RGB")) / 255.0


def saturation_hsv(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    value = x.max(axis=-1, keepdims=True)
    return value - (0.4, 0.2, 0.1, 0.0, -0.4)[level - 1] * (value - x)


def saturation_lab(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    lab = color.rgb2lab(x)
    lab[..., 1:] *= (1.5, 2.0, 3.0, 6.0, 9.0)[level - 1]
    return _rgb(lab)


def _toned(x: np.ndarray, exponent: float) -> np.ndarray:
    lab = color.rgb2lab(x)
    lab[..., 0] = 100 * np.maximum(lab[..., 0] / 100, 1e-6) ** exponent
    return _rgb(lab)


def jpeg2000(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    settings = {"quality_mode": "rates", "quality_layers": [(16, 32, 45, 120, 170)[level - 1]]}
    return _recoded(x, "JPEG2000", irreversible=True, mct=1, **settings)


def jpeg(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    quality = (43, 36, 24, 7, 4)[level - 1]
    return _recoded(x, "JPEG", quality=quality, subsampling="4:2:0")


def white_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return x + math.sqrt(WHITE[level - 1]) * rng.standard_normal(x.shape)


def colour_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    variance = (0.0005, 0.001, 0.002, 0.004, 0.008)[level - 1]
    cb, cr = math.sqrt(variance) * rng.standard_normal((2, *x.shape[:2]))
    return x + np.stack([1.402 * cr, -0.344136 * cb - 0.714136 * cr, 1.772 * cb], axis=-1)


def impulse_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    share, chance = (0.001, 0.005, 0.01, 0.02, 0.03)[level - 1], rng.random(x.shape)
    return np.where(chance < share / 2, 0.0, np.where(chance > 1 - share / 2, 1.0, x))


def multiplicative_noise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return x * (1 + math.sqrt(SPECKLE[level - 1]) * rng.standard_normal(x.shape))


def denoise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    noisy = white_noise(x, level, rng)
    planes = [signal.wiener(noisy[..., c], 5, WHITE[level - 1]) for c in range(3)]
    return np.stack(planes, axis=-1)


def mean_shift(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    return x + rng.choice((-1, 1)) * (0.03, 0.06, 0.09, 0.12, 0.15)[level - 1]


def jitter(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    h, w, _ = x.shape
    deviation = math.sqrt(5) * (0.05, 0.1, 0.2, 0.5, 1.0)[level - 1]
    at = np.mgrid[:h, :w] + deviation * rng.standard_normal((2, h, w))
    moved = [ndimage.map_coordinates(x[..., c], at, order=1, mode="nearest") for c in range(3)]
    return np.stack(moved, axis=-1)


def patches(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    h, w, _ = x.shape
    side, patched = min(16, max(2, min(h, w) // 8)), x.copy()
    share = h * w / (512 * 384) * (16 / side) ** 2
    room = np.array([h - side, w - side])
    for _ in range(max(level, round(share * 20 * level))):
        top, left = rng.integers(0, room + 1)
        from_top, from_left = np.clip((top, left) + rng.integers(-16, 17, 2), 0, room)
        patch = x[from_top : from_top + side, from_left : from_left + side]
        patched[top : top + side, left : left + side] = patch
    return patched


def pixelate(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    factor = 0.95 - (0.01, 0.05, 0.1, 0.2, 0.5)[level - 1] ** 0.6
    picture = Image.fromarray(_uint8(x))
    small = picture.resize([round(n * factor) for n in picture.size], Image.Resampling.NEAREST)
    return np.asarray(small.resize(picture.size, Image.Resampling.NEAREST)) / 255.0


def quantise(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    steps = (20, 16, 13, 10, 7)[level - 1] - 1
    return np.rint(x * steps) / steps


def colour_blocks(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    h, w, _ = x.shape
    side, painted = max(1, round(32 * math.sqrt(h * w / (512 * 384)))), x.copy()
    for _ in range(2 * level):
        top, left = rng.integers(0, (h - side + 1, w - side + 1))
        painted[top : top + side, left : left + side] = rng.random(3)
    return painted


def contrast(x: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    gain = 1 - (0.15, 0.3, 0.4, 0.5, 0.6)[level - 1]
    return 0.5 + (x - 0.5) * rng.choice((gain, 1 / gain))


FUNCTIONS = {
    "gaussian_blur": lambda x, level, rng: _blurred(x, (0.4, 0.7, 1.0, 2.0, 5.0)[level - 1]),
    "lens_blur": lens_blur,
    "motion_blur": motion_blur,
    "colour_diffusion": colour_diffusion,
    "colour_shift": colour_shift,
    "colour_quantisation": colour_quantisation,
    "saturation_hsv": saturation_hsv,
    "saturation_lab": saturation_lab,
    "jpeg2000": jpeg2000,
    "jpeg": jpeg,
    "white_noise": white_noise,
    "colour_noise": colour_noise,
    "impulse_noise": impulse_noise,
    "multiplicative_noise": multiplicative_noise,
    "denoise": denoise,
    "brighten": lambda x, level, rng: _toned(x, 1 / (1 + (0.1, 0.2, 0.4, 0.7, 1.1)[level - 1])),
    "darken": lambda x, level, rng: _toned(x, 1 + 2 * (0.05, 0.1, 0.2, 0.4, 0.8)[level - 1]),
    "mean_shift": mean_shift,
    "jitter": jitter,
    "patches": patches,
    "pixelate": pixelate,
    "quantise": quantise,
    "colour_blocks": colour_blocks,
    "sharpen": lambda x, level, rng: x + (1, 2, 3, 6, 12)[level - 1] * (x - _blurred(x, 1.0)),
    "contrast": contrast,
}
