"""Pictures for tests: pixels made of a seed, and files of them."""

import io

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def picture(h=12, w=20, channels=3, seed=0, dtype=np.uint8):
    g = np.random.default_rng(seed)
    return g.integers(0, np.iinfo(dtype).max + 1, (h, w, channels), dtype)


def smooth(h=24, w=40):
    rows, columns = np.mgrid[:h, :w]
    x = np.stack([rows * 255 // h, columns * 255 // w, (rows + columns) * 255 // (h + w)], -1)
    return x.astype(np.uint8)


def encoded(image, format="PNG", **settings) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, format, **settings)
    return stream.getvalue()
