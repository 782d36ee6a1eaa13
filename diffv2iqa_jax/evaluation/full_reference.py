"""Full-reference quality: how much a picture differs from its pristine original.

PSNR and SSIM measure what a restorer achieves; HaarPSI gives the labels of the built-in data
set. All take uint8 (H, W, C) arrays and return floats; higher is better.
"""

import numpy as np
from scipy import ndimage

# Constants that the authors of HaarPSI fitted: R. Reisenhofer et al., "A Haar wavelet-based
# perceptual similarity index for image quality assessment", Signal Processing: Image
# Communication 61, 2018.
HAARPSI_C = 30.0
HAARPSI_ALPHA = 4.2

YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def psnr(reference_HWC: np.ndarray, distorted_HWC: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf if identical.

    Raises:
      ValueError: not uint8 (H, W, C), or different shapes.
    """
    a, b = _checked(reference_HWC, distorted_HWC, smallest=1)
    error = np.mean((a - b) ** 2)
    return float(20 * np.log10(255 / np.sqrt(error))) if error else float("inf")


def ssim(reference_HWC: np.ndarray, distorted_HWC: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) in [-1, 1], 1 = identical.

    The window is Gaussian, 11x11, of deviation 1.5. The mean is over all channels and over the
    positions where the window lies inside the picture.

    Raises:
      ValueError: not uint8 (H, W, C), different shapes, or less than 11 pixels wide or high.
    """
    a, b = _checked(reference_HWC, distorted_HWC, smallest=11)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _window(a), _window(b)
    var_a = _window(a * a) - mean_a**2
    var_b = _window(b * b) - mean_b**2
    cov = _window(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * (2 * cov + c2) / (var_a + var_b + c2)))


def haarpsi(reference_HWC: np.ndarray, distorted_HWC: np.ndarray, subsample: bool = True) -> float:
    """Haar wavelet-based perceptual similarity, colour version, in [0, 1], 1 = identical.

    Compares the Haar coefficients of the two finest scales (luminance Y) and 2x2 means (chroma
    I, Q) position by position, passes their similarity through a logistic function, and
    averages it with the coefficients of the third scale as weights. Symmetric in its arguments.
    Where neither picture has any structure at all, all positions weigh the same.

    Args:
      reference_HWC: uint8 RGB.
      distorted_HWC: the same shape.
      subsample: first average 2x2 pixels into one, as the paper does for the viewing distance.

    Raises:
      ValueError: not uint8 (H, W, 3), different shapes, or less than 16 pixels wide or high.
    """
    a, b = _checked(reference_HWC, distorted_HWC, smallest=16)
    if a.shape[-1] != 3:
        raise ValueError(f"haarpsi compares RGB pictures; got {a.shape[-1]} channels")
    a_3HW, b_3HW = (np.moveaxis(x @ YIQ.T, -1, 0) for x in (a, b))
    if subsample:
        a_3HW, b_3HW = (_box(x)[:, ::2, ::2] for x in (a_3HW, b_3HW))
    haar_a, haar_b = _haar(a_3HW[0]), _haar(b_3HW[0])
    weight_2HW = np.maximum(haar_a[2], haar_b[2])
    local_2HW = np.mean(_similarity(haar_a[:2], haar_b[:2]), axis=0)
    chroma_a, chroma_b = abs(_box(a_3HW[1:])), abs(_box(b_3HW[1:]))
    local_chroma_HW = np.mean(_similarity(chroma_a, chroma_b), axis=0)
    local_3HW = np.concatenate([local_2HW, local_chroma_HW[None]])
    weight_3HW = np.concatenate([weight_2HW, weight_2HW.mean(axis=0, keepdims=True)])
    if not weight_3HW.any():
        weight_3HW = np.ones_like(weight_3HW)
    squashed_3HW = 1 / (1 + np.exp(-HAARPSI_ALPHA * local_3HW))
    mean = np.sum(squashed_3HW * weight_3HW) / np.sum(weight_3HW)
    # Rounding may leave the mean a hair outside the range of the logistic function.
    return float(np.clip(np.log(mean / (1 - mean)) / HAARPSI_ALPHA, 0, 1) ** 2)


def _checked(a: np.ndarray, b: np.ndarray, *, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures as float64. Raises ValueError unless they make a pair."""
    a, b = np.asarray(a), np.asarray(b)
    for x in (a, b):
        if x.dtype != np.uint8 or x.ndim != 3:
            raise ValueError(f"a picture must be uint8 (H, W, C); got {x.dtype} {x.shape}")
    if a.shape != b.shape:
        raise ValueError(f"the pictures differ in shape: {a.shape} and {b.shape}")
    if min(a.shape[:2]) < smallest:
        raise ValueError(f"a picture of {a.shape} is too small: at least {smallest} pixels")
    return a.astype(np.float64), b.astype(np.float64)


def _window(x_HWC: np.ndarray) -> np.ndarray:
    """Mean under SSIM's Gaussian window at each position where it fits."""
    weight = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weight /= weight.sum()
    for axis in (0, 1):
        x_HWC = ndimage.correlate1d(x_HWC, weight, axis=axis)
    return x_HWC[5:-5, 5:-5]


def _convolve(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Separable convolution of the last two axes, zeros beyond the border, same shape.

    Filters of even length reach one further to the right, as in the paper's own code.
    """
    x = ndimage.convolve1d(x, rows, axis=-2, mode="constant")
    return ndimage.convolve1d(x, columns, axis=-1, mode="constant")


def _box(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels."""
    return _convolve(x, np.full(2, 0.5), np.full(2, 0.5))


def _haar(y_HW: np.ndarray) -> np.ndarray:
    """Size of the horizontal and vertical Haar coefficients at three scales: (3, 2, H, W)."""
    coefficients = []
    for scale in (1, 2, 3):
        flat = np.full(2**scale, 2.0**-scale)
        edge = np.repeat([1.0, -1.0], 2 ** (scale - 1))
        coefficients.append([_convolve(y_HW, edge, flat), _convolve(y_HW, flat, edge)])
    return abs(np.array(coefficients))


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (2 * a * b + HAARPSI_C) / (a**2 + b**2 + HAARPSI_C)
