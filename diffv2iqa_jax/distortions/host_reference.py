"""The 25 types with Pillow, SciPy and scikit-image: what the device's are held against.

Each function maps (float64 HWC in [0, 1], level 1..5, generator) -> the same form, unclipped, with
the strengths of `distortions/kadid.py`, by the fastest way these libraries have.
"""

import io
import math
import warnings

import numpy as np
from PIL import Image
from scipy import ndimage, signal
from skimage import color

SPECKLE = (0.001, 0.005, 0.01, 0.02, 0.05)
WHITE = (0.001, 0.002, 0.003, 0.005, 0.01)


def distort(image_HWC: np.ndarray, type: str, level: int, seed: int) -> np.ndarray:
    """A uint8 RGB picture distorted; noise and places are other than the device's.

    Raises:
      KeyError: unknown type.
    """
    rng = np.random.default_rng(seed)
    return _uint8(FUNCTIONS[type](image_HWC / 255.0, level, rng))


def _uint8(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def _recoded(x: np.ndarray, format: str, **settings) -> np.ndarray:
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


def lens_blur(x, level, rng):
    radius = (1, 2, 4, 6, 8)[level - 1]
    place = np.arange(-radius - 1, radius + 2)
    kernel = np.clip(radius + 0.5 - np.hypot(place[:, None], place), 0, 1)
    return _convolved(x, kernel / kernel.sum())


def motion_blur(x, level, rng):
    reach, angle = (1, 2, 4, 6, 10)[level - 1], rng.uniform(0, math.pi)
    along, place = np.linspace(-reach, reach, 8 * reach + 1), np.arange(-reach, reach + 1)
    near = lambda at: np.maximum(0, 1 - np.abs(place[:, None] - at))
    kernel = near(along * math.sin(angle)) @ near(along * math.cos(angle)).T
    return _convolved(x, kernel / kernel.sum())


def colour_diffusion(x, level, rng):
    lab = color.rgb2lab(x)
    lab[..., 1:] = _blurred(lab[..., 1:], (1, 3, 6, 8, 12)[level - 1])
    return _rgb(lab)


def colour_shift(x, level, rng):
    by, angle = (1, 3, 6, 8, 12)[level - 1], rng.uniform(0, 2 * math.pi)
    top, left = (12 + round(by * f(angle)) for f in (math.sin, math.cos))
    out, green = x.copy(), np.pad(x[..., 1], 12, mode="symmetric")
    out[..., 1] = green[top : top + x.shape[0], left : left + x.shape[1]]
    return out


def colour_quantisation(x, level, rng):
    cut = Image.fromarray(_uint8(x)).quantize(2 ** (7 - level), dither=Image.Dither.NONE)
    return np.asarray(cut.convert("RGB")) / 255.0


def saturation_hsv(x, level, rng):
    value = x.max(axis=-1, keepdims=True)
    return value - (0.4, 0.2, 0.1, 0.0, -0.4)[level - 1] * (value - x)


def saturation_lab(x, level, rng):
    lab = color.rgb2lab(x)
    lab[..., 1:] *= (1.5, 2.0, 3.0, 6.0, 9.0)[level - 1]
    return _rgb(lab)


def _toned(x, exponent):
    lab = color.rgb2lab(x)
    lab[..., 0] = 100 * np.maximum(lab[..., 0] / 100, 1e-6) ** exponent
    return _rgb(lab)


def jpeg2000(x, level, rng):
    settings = {"quality_mode": "rates", "quality_layers": [(16, 32, 45, 120, 170)[level - 1]]}
    return _recoded(x, "JPEG2000", irreversible=True, mct=1, **settings)


def jpeg(x, level, rng):
    quality = (43, 36, 24, 7, 4)[level - 1]
    return _recoded(x, "JPEG", quality=quality, subsampling="4:2:0")


def white_noise(x, level, rng):
    return x + math.sqrt(WHITE[level - 1]) * rng.standard_normal(x.shape)


def colour_noise(x, level, rng):
    variance = (0.0005, 0.001, 0.002, 0.004, 0.008)[level - 1]
    cb, cr = math.sqrt(variance) * rng.standard_normal((2, *x.shape[:2]))
    return x + np.stack([1.402 * cr, -0.344136 * cb - 0.714136 * cr, 1.772 * cb], axis=-1)


def impulse_noise(x, level, rng):
    part, hit = (0.001, 0.005, 0.01, 0.02, 0.03)[level - 1], rng.random(x.shape)
    return np.where(hit < part / 2, 0.0, np.where(hit > 1 - part / 2, 1.0, x))


def multiplicative_noise(x, level, rng):
    return x * (1 + math.sqrt(SPECKLE[level - 1]) * rng.standard_normal(x.shape))


def denoise(x, level, rng):
    noisy = white_noise(x, level, rng)
    planes = [signal.wiener(noisy[..., c], 5, WHITE[level - 1]) for c in range(3)]
    return np.stack(planes, axis=-1)


def mean_shift(x, level, rng):
    return x + rng.choice((-1, 1)) * (0.03, 0.06, 0.09, 0.12, 0.15)[level - 1]


def jitter(x, level, rng):
    h, w, _ = x.shape
    by = math.sqrt(5) * (0.05, 0.1, 0.2, 0.5, 1.0)[level - 1] * rng.standard_normal((2, h, w))
    at = np.mgrid[:h, :w] + by
    moved = [ndimage.map_coordinates(x[..., c], at, order=1, mode="nearest") for c in range(3)]
    return np.stack(moved, axis=-1)


def patches(x, level, rng):
    h, w, _ = x.shape
    side, out = min(16, max(2, min(h, w) // 8)), x.copy()
    share = h * w / (512 * 384) * (16 / side) ** 2
    room = np.array([h - side, w - side])
    for _ in range(max(level, round(share * 20 * level))):
        i, j = rng.integers(0, room + 1)
        a, b = np.clip((i, j) + rng.integers(-16, 17, 2), 0, room)
        out[i : i + side, j : j + side] = x[a : a + side, b : b + side]
    return out


def pixelate(x, level, rng):
    factor = 0.95 - (0.01, 0.05, 0.1, 0.2, 0.5)[level - 1] ** 0.6
    picture = Image.fromarray(_uint8(x))
    small = picture.resize([round(n * factor) for n in picture.size], Image.Resampling.NEAREST)
    return np.asarray(small.resize(picture.size, Image.Resampling.NEAREST)) / 255.0


def quantise(x, level, rng):
    steps = (20, 16, 13, 10, 7)[level - 1] - 1
    return np.rint(x * steps) / steps


def colour_blocks(x, level, rng):
    h, w, _ = x.shape
    side, out = max(1, round(32 * math.sqrt(h * w / (512 * 384)))), x.copy()
    for _ in range(2 * level):
        i, j = rng.integers(0, (h - side + 1, w - side + 1))
        out[i : i + side, j : j + side] = rng.random(3)
    return out


def contrast(x, level, rng):
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
