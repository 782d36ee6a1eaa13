"""Single hand-made features as quality scores: what a learned score has to beat."""

from collections.abc import Callable, Iterable
from io import BytesIO

import numpy as np
from PIL import Image
from scipy import ndimage

from diffv2iqa_jax.evaluation import correlation


def _grey(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def sharpness(image: np.ndarray) -> float:
    """The logarithm of the variance of the Laplacian."""
    return float(np.log(np.var(ndimage.laplace(_grey(image))) + 1e-3))


def contrast(image: np.ndarray) -> float:
    """Standard deviation of the grey values."""
    return float(np.std(_grey(image)))


def noise(image: np.ndarray) -> float:
    """Minus the noise's standard deviation, by Immerkaer's (1996) mask."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    return -float(np.mean(np.abs(ndimage.convolve(_grey(image), mask)[1:-1, 1:-1])))


def blockiness(image: np.ndarray) -> float:
    """Minus the steps across the columns of JPEG's 8-pixel grid, relative to all steps."""
    steps = np.abs(np.diff(_grey(image), axis=1)).mean(axis=0)
    return -float(steps[7::8].mean() / (steps.mean() + 1e-3))


def colourfulness(image: np.ndarray) -> float:
    """Hasler & Suesstrunk 2003."""
    r, g, b = np.moveaxis(image.astype(np.float64), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def compressed_size(image: np.ndarray) -> float:
    """Bytes of the image as a JPEG of quality 90, the usual stand-in for its detail."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return float(file.tell())


FEATURES: dict[str, Callable[[np.ndarray], float]] = {
    "sharpness": sharpness,
    "contrast": contrast,
    "noise": noise,
    "blockiness": blockiness,
    "colourfulness": colourfulness,
    "compressed_size": compressed_size,
}


def srcc(batches: Iterable[dict[str, np.ndarray]]) -> dict[str, float | None]:
    """SRCC of each feature with the quality, sign included.

    The best feature is chosen on the images it is compared on, which sets the bar a bit high.

    Args:
      batches: image (B, H, W, 3) uint8, mos and mask (B,).
    """
    values = {name: [] for name in FEATURES}
    mos = []
    for batch in batches:
        real = batch["mask"] > 0
        mos.append(batch["mos"][real])
        for image in batch["image"][real]:
            for name, feature in FEATURES.items():
                values[name].append(feature(image))
    return {
        name: correlation.srcc(np.array(column), np.concatenate(mos))
        for name, column in values.items()
    }
