"""Samples of more than 8 bits, or stored as Pillow does not read them: taken exactly, made 8 bits.

Pillow cuts colours of 16 bits to their high byte, and knows neither floating colours nor many a
layout of TIFF. What it does right is left to it.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import tiff

ROWS = 1 << 20  # values that are converted at a time, so that memory stays small
# Integers that never exceed these shares of their range: 12 bits stored in 16 do not exceed the
# first (and show as nearly black), 14 bits not the second.
DARK, DIM = 1 / 16, 1 / 4


class Samples(NamedTuple):
    """A picture's samples.

    Attributes:
      values_HWC: grey (C=1), RGB (C=3), CMYK (C=4) or Lab (C=3): integers or floats, 0 is black,
        or no ink.
      alpha_HW: opacity of the same type, or None.
      top: the value that is white, or full ink, or opaque.
      colours: "grey", "rgb", "cmyk", "ycbcr", "lab" (a and b signed) or "icclab".
      premultiplied: whether the values are multiplied by alpha already.
      info: as that of a PIL image: the colour profile and what else the file says of its colours.
      orientation: EXIF's, still to be applied.
    """

    values_HWC: np.ndarray
    alpha_HW: np.ndarray | None
    top: int
    colours: str
    premultiplied: bool = False
    info: dict[str, Any] = {}  # noqa: RUF012, never changed
    orientation: int = 1

    @property
    def is_deep(self) -> bool:
        """Whether it holds more than 8 bits."""
        return self.top == 1 or self.top > 255


def of_tiff(stream: BinaryIO, name: str, max_pixels: int, page: int = 0) -> Samples | None:
    """The samples of a page of a TIFF file, where Pillow does not read them right; else None.

    Raises:
      ImageError: E_UNSUPPORTED, no rule says how to show them; E_TOO_LARGE.
      Exception: the file is damaged; see `opening.refusals`.
    """
    form = tiff.layout(stream, name, page)
    if form is None:
        return None
    check_size((form.width, form.height), name, max_pixels)
    x = tiff.samples(stream, form)
    colours = {0: "grey", 1: "grey", 5: "cmyk", 6: "ycbcr", 8: "lab", 9: "icclab"}
    top = 1 if form.kind == tiff.FLOAT else 2**form.bits - 1
    alpha = None
    kinds = [i for i, kind in enumerate(form.extra) if kind in (1, 2)]
    if kinds:
        alpha = x[..., form.colours + kinds[0]]
    premultiplied = bool(kinds) and form.extra[kinds[0]] == 1
    x = x[..., : form.colours]
    if form.photometric in (0, 1, 2) and form.kind != tiff.FLOAT:
        top = _stated_top(form.tags.get(281, ()), x, top)
    if form.photometric == 0:
        if premultiplied:
            raise unsupported(name, "has premultiplied grey whose zero is white")
        x = x.dtype.type(top) - x
    if form.photometric == tiff.PALETTE:
        x, alpha, top = _painted(x[..., 0], form.tags.get(320, ())), _to_16(alpha, top), 65535
    raster = Samples(
        values_HWC=x,
        alpha_HW=alpha,
        top=top,
        colours=colours.get(form.photometric, "rgb"),
        premultiplied=premultiplied,
        info={"icc_profile": _bytes(form.tags[34675])} if 34675 in form.tags else {},
        orientation=turn if (turn := form.tags.get(274, (1,))[0]) in range(1, 9) else 1,
    )
    if form.kind == tiff.FLOAT:
        _check_floats(raster, name)
    return raster


def of_png(image: Image.Image) -> Samples | None:
    """The samples of an opened PNG or of one that is not yet loaded, if it has 16 bits; else None.

    Raises:
      Exception: the file is damaged; see `opening.refusals`.
    """
    modes = {"RGB;16B": (3, "RGB;16L"), "RGBA;16B": (4, "RGBA;16L"), "LA;16B": (2, "RGBA")}
    raw = image.tile[0].args if image.format == "PNG" and image.tile else None
    stream = getattr(image, "fp", None)
    if raw not in (*modes, "I;16B") or stream is None or getattr(image, "is_animated", False):
        return None
    if raw == "I;16B":
        x = np.asarray(image)[..., None]
        return _with_key(Samples(x, None, 65535, "grey", info=image.info))
    channels, low = modes[raw]
    here = stream.tell()
    stream.seek(0)
    with PngImagePlugin.PngImageFile(stream) as other:
        # The decoder takes the other byte of each pair; of grey with alpha, both.
        other.tile = [other.tile[0]._replace(args=low)]
        low_HWC = np.asarray(other)
    if channels == 2:
        pairs = low_HWC.astype(np.uint16)
        x = pairs[..., ::2] << 8 | pairs[..., 1::2]
    else:
        stream.seek(here)
        x = np.asarray(image).astype(np.uint16) << 8 | low_HWC
    alpha = x[..., -1] if channels in (2, 4) else None
    x = x[..., : channels - (alpha is not None)]
    raster = Samples(x, alpha, 65535, "grey" if channels == 2 else "rgb", info=image.info)
    return _with_key(raster)


def of_grey(image: Image.Image, name: str) -> Samples | None:
    """The samples of a loaded picture in one of Pillow's modes of more than 8 bits; else None.

    Integers are taken for 0..65535, floats for 0..1.

    Raises:
      ImageError: E_UNSUPPORTED, values outside that range.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    x = np.asarray(image)[..., None]
    top = 1 if x.dtype.kind == "f" else 65535
    if not (x.min() >= 0 and x.max() <= top):  # also where it is not finite
        values = f"grey values from {x.min()} to {x.max()}, outside 0..{top}"
        raise unsupported(name, values)
    return Samples(x, None, top, "grey", info=image.info)


def check_jpeg2000(image: Image.Image, bits: int, reduced: bool, name: str) -> None:
    """Refuses what Pillow's JPEG 2000 decoder shows wrong.

    Where it makes 8 bits of more, it adds a half before it shifts, so that the brightest colours
    turn to 0. Colours of fewer samples than brightness (sYCC of 4:2:0) come out far off.
    """
    if reduced:
        raise unsupported(name, "is JPEG 2000 with components of reduced resolution")
    if bits > 8 and image.format == "JPEG2000" and not image.mode.startswith("I"):
        what = f"is JPEG 2000 of {bits} bits in colour, whose whites would show black"
        raise unsupported(name, what)


def check_dark(raster: Samples, name: str) -> list[str]:
    """["dark"] if integers use no more than a quarter of their range.

    Raises:
      ImageError: E_UNSUPPORTED, they use no more than a sixteenth, as 12 bits stored in 16 do.
    """
    if raster.top <= 255 or raster.colours not in ("grey", "rgb"):
        return []
    most = int(raster.values_HWC.max())
    share = most / (raster.top + 1)
    if 0 < share < DARK:
        raise unsupported(
            name,
            f"nearly black, as no value exceeds {most} of {raster.top}: if fewer bits are stored"
            f" in more, multiply by {1 << int(-np.log2((most + 1) / (raster.top + 1)))}",
        )
    return ["dark"] if 0 < share < DIM else []


def blocks(height: int, width: int) -> Iterator[slice]:
    """Rows that are converted together."""
    step = max(ROWS // max(width, 1), 1)
    return (slice(top, top + step) for top in range(0, height, step))


def shares(raster: Samples, rows: slice) -> np.ndarray:
    """Values (h, W, C) of these rows as shares of `top`, float64; those of clear pixels are 0."""
    x = raster.values_HWC[rows].astype(np.float64) / raster.top
    if raster.premultiplied:
        alpha = raster.alpha_HW[rows, :, None].astype(np.float64) / raster.top
        x = np.divide(x, alpha, out=np.zeros_like(x), where=alpha > 0).clip(0, 1)
    return x


def to_8_bits(raster: Samples) -> np.ndarray:
    """uint8 (H, W, C): shares of 255, to the nearest."""
    h, w, c = raster.values_HWC.shape
    out = np.empty((h, w, c), np.uint8)
    for rows in blocks(h, w):
        out[rows] = np.rint(shares(raster, rows) * 255)
    return out


def alpha_of(raster: Samples) -> Image.Image | None:
    """Its opacity, of 8 bits."""
    if raster.alpha_HW is None:
        return None
    alpha = raster.alpha_HW[..., None]
    return Image.fromarray(to_8_bits(Samples(alpha, None, raster.top, "grey"))[..., 0])


def unsupported(name: str, why: str) -> ImageError:
    return ImageError("E_UNSUPPORTED", f"{name}: {why}; save it as RGB of 8 or 16 bits")


def check_size(size: tuple[int, int], name: str, most: int) -> None:
    """Refuses a picture of more than `most` pixels."""
    width, height = size
    if width * height > most:
        raise ImageError(
            "E_TOO_LARGE",
            f"{name}: {width} x {height} is more than {most} pixels; allow it with"
            f" --max_pixels {width * height} (max_pixels= in Python), or make it smaller",
        )


def _bytes(values: tuple) -> bytes:
    """A tag's bytes, of the type UNDEFINED or BYTE."""
    return values[0] if values and isinstance(values[0], bytes) else bytes(values)


def _with_key(raster: Samples) -> Samples:
    """With the colour that PNG's tRNS chunk makes transparent."""
    key = raster.info.get("transparency")
    if raster.alpha_HW is not None or key is None:
        return raster
    clear = (raster.values_HWC == np.asarray(key)).all(-1)
    return raster._replace(alpha_HW=np.where(clear, 0, 65535).astype(np.uint16))


def _painted(x: np.ndarray, palette: tuple[int, ...]) -> np.ndarray:
    """Numbers of colours -> the colours; TIFF's palette holds all reds, all greens, all blues."""
    colours = np.array(palette, np.uint16).reshape(3, -1).T
    return colours[x]


def _to_16(alpha: np.ndarray | None, top: float) -> np.ndarray | None:
    return None if alpha is None else np.rint(alpha * (65535 / top)).astype(np.uint16)


def _check_floats(raster: Samples, name: str) -> None:
    for what, x in (("values", raster.values_HWC), ("opacity", raster.alpha_HW)):
        low, high = (0.0, 0.0) if x is None else (float(x.min()), float(x.max()))
        if not (low >= 0 and high <= 1):  # also where one of them is NaN
            raise unsupported(name, f"floating {what} from {low:.4g} to {high:.4g}, outside 0..1")


def _stated_top(stated: tuple[int, ...], x: np.ndarray, top: int) -> int:
    """The largest value where MaxSampleValue says that fewer bits are stored in more."""
    most = max(stated, default=0)
    fewer = 255 < most < top and most & (most + 1) == 0  # 1023, 4095, ...
    return most if fewer and x.max() <= most else top
