"""Picture files: which there are, and what is in one as RGB pixels."""

import glob
import io
import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Undecodable(ValueError):
    """A file that is no picture of ours, or a damaged one."""


def found(where: str) -> list[str]:
    """Picture files of a folder (and those below it) or of a glob, sorted.

    Raises:
      ValueError: there is none.
    """
    where = os.path.expanduser(where)
    pattern = os.path.join(glob.escape(where), "**", "*") if os.path.isdir(where) else where
    every = glob.glob(pattern, recursive=True)
    files = sorted(p for p in every if p.lower().endswith(ENDINGS) and os.path.isfile(p))
    if not files:
        raise ValueError(f"{where}: no {', '.join(ENDINGS)} files there; name a folder or a glob")
    return files


def decode(data: bytes) -> np.ndarray:
    """An encoded picture -> uint8 RGB (H, W, 3), upright.

    Grey is repeated, transparency composited on white, 16 bits are rounded to 8.

    Raises:
      Undecodable: not one of FORMATS, damaged, cut short, or so large that it may be an attack.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I"):
                values = np.asarray(picture, np.float64) / 257
                picture = Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            return np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise Undecodable(f"is no {', '.join(FORMATS)} file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Undecodable(str(error).splitlines()[0]) from error


def read(path: str) -> np.ndarray:
    """A file as `decode` gives it; its errors name the file."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return decode(data)
    except Undecodable as error:
        raise Undecodable(f"{path}: {error}") from error
