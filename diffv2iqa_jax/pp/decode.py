"""The one decoder of image files: an allow-list of formats, one error code for each refusal.

Scoring, training photos, `prepare` and the tools all read through `read`, so one file is the same
pixels everywhere. Whatever comes in, uint8 RGB comes out: the orientation in EXIF is applied,
colours are converted to sRGB by what the file says of them, transparency shows white, 16 bits are
rounded to 8, and of several frames the first one counts. Flags say what was done. `Reading` holds
the options.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import jpeg, jxl, pages, samples, signals
from diffv2iqa_jax.pp.arrays import from_array
from diffv2iqa_jax.pp.colour import of_samples, to_rgb
from diffv2iqa_jax.pp.formats import HEAD, READ, format_of
from diffv2iqa_jax.pp.opening import open_header, opened, printable, refusals

PIXELS = 178_956_970  # where Pillow refuses by default: 512 MiB of RGB; more is for the user to say
MOST = 2**31 - 1  # Pillow counts no further

ICC = ("convert", "ignore")
ORIENTATIONS = ("apply", "ignore")
ORIENTATION = 0x0112  # EXIF's tag
MP_ENTRIES = 0xB002  # the tag that lists the pictures of a JPEG's multi-picture format
STRIP = 2**24  # pixels whose colours are converted at a time
# Orientation -> steps through the stored rows and columns, and whether these change places.
TURNS = {
    1: (1, 1, False),
    2: (1, -1, False),
    3: (-1, -1, False),
    4: (-1, 1, False),
    5: (1, 1, True),
    6: (-1, 1, True),
    7: (-1, -1, True),
    8: (1, -1, True),
}


class Picture(NamedTuple):
    """Attributes:
    image_HWC: uint8, RGB.
    flags: what was done to it, of "rotated", "icc", "cicp", "gamma", "icc_ignored", "alpha",
      "16bit", "dark", "multiframe", "truncated".
    """

    image_HWC: np.ndarray
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read.

    Attributes:
      icc: "convert" colours to sRGB by what the file says of them (`colour`), or "ignore" that.
      orientation: "apply" the orientation in EXIF, or "ignore" it.
      formats: names in `formats.READ` of those to read; files of others are refused.
      max_pixels: larger pictures are refused by their header alone.
      strict: refuse several frames instead of taking the first.
      allow_truncated: take a JPEG that ends early, its rest grey.
    """

    icc: str = "convert"
    orientation: str = "apply"
    formats: tuple[str, ...] = READ
    max_pixels: int = PIXELS
    strict: bool = False
    allow_truncated: bool = False

    def __post_init__(self):
        for name, choices in (("icc", ICC), ("orientation", ORIENTATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {list(choices)}")
        unknown = [name for name in self.formats if name not in READ]
        if unknown or not self.formats:
            raise ValueError(f"formats {unknown or self.formats}: known are {list(READ)}")
        if not 1 <= self.max_pixels <= MOST:
            raise ValueError(f"max_pixels {self.max_pixels}: must lie in [1, {MOST}]")


TO_STORE = Reading()  # how `prepare` reads files, where it is not told otherwise
# Prepared sets hold pixels that are final: `prepare` has done what it was asked to do.
STORED = Reading(icc="ignore", orientation="ignore", formats=("JPEG", "PNG", "BMP"))


def read(source: Any, how: Reading = Reading(), name: str = "bytes") -> Picture:  # noqa: B008, it is frozen
    """A picture from a path (str or path-like), an encoded file (bytes), a PIL image or an array.

    Args:
      name: what messages call an encoded file.

    Raises:
      ImageError: it cannot be read.
      TypeError, ValueError: an array of another type, shape or range; see `arrays.from_array`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), printable(name), how)
    if isinstance(source, str | os.PathLike):
        with opened(source) as stream:
            return _decode(stream, printable(source), how)
    if isinstance(source, Image.Image):
        with refusals("PIL image", source.format or "picture"):
            return _of_pil(source, how)
    return Picture(from_array(source), ())


def pixels_of(encoded: bytes) -> np.ndarray:
    """Pixels of an image as a prepared set stores it, uint8 RGB (H, W, 3).

    What is stored is final: no colour profile is converted and nothing is turned.

    Raises:
      ImageError: the bytes are damaged.
    """
    return read(encoded, STORED).image_HWC


def is_plain(encoded: bytes) -> bool:
    """Whether TensorFlow decodes a file to the same pixels as `pixels_of`.

    True of JPEG, PNG and BMP (24 bits) whose pixels are 8-bit RGB or grey, without transparency.

    Raises:
      ImageError: its header is damaged, or its format is none that is stored.
    """
    stream = io.BytesIO(encoded)
    format = format_of(stream.read(HEAD), "bytes", READ)
    if format not in STORED.formats:
        return False
    with refusals("bytes", format, stream), open_header(stream, format, "bytes") as image:
        if image.mode not in ("RGB", "L") or image.has_transparency_data:
            return False
        if signals.coding_of(stream, format).bits > 8:  # which TensorFlow cuts
            return False
        # TensorFlow reads no BMP with palette, with 16 bits, or with the older, short header.
        header, bits = (int.from_bytes(encoded[at : at + 2], "little") for at in (14, 28))
        return format != "BMP" or (header >= 40 and bits == 24)


def _decode(stream: BinaryIO, name: str, how: Reading) -> Picture:
    format = format_of(stream.read(HEAD), name, how.formats)
    if format == "JPEG":
        return _decode_jpeg(stream, name, how)
    with refusals(name, format, stream):
        page = pages.of_tiff(stream, name) if format == "TIFF" else None
        if page and (picture := _deep_tiff(stream, name, how, page)):
            return picture
        coding = signals.coding_of(stream, format)
        if format == "PNG":
            signals.check_png(stream, name)
        if format == "JPEG XL":  # whose decoder decodes all at once
            head = jxl.header(stream)
            coding = coding._replace(bits=head.bits)
            samples.check_size(head.size, name, how.max_pixels)
            if head.animated:
                what = "is animated JPEG XL, of which the decoder gives the last frame; extract one"
                raise ImageError("E_UNSUPPORTED", f"{name}: {what}")
        with open_header(stream, format, name) as image:
            return _convert(image, name, how, coding, page=page)


def _of_pil(image: Image.Image, how: Reading) -> Picture:
    """A PIL image; where its file is still open, what the file says counts too."""
    name, stream, coding, page = "PIL image", getattr(image, "fp", None), signals.NOTHING, None
    if stream:
        coding = signals.coding_of(stream, image.format)
    if stream and image.format == "TIFF":
        here = stream.tell()
        page = pages.of_tiff(stream, name)
        picture = _deep_tiff(stream, name, how, page)
        stream.seek(here)
        if picture:
            return picture
    return _convert(image, name, how, coding, page=page)


def _deep_tiff(stream: BinaryIO, name: str, how: Reading, page: pages.Pages) -> Picture | None:
    """The picture, where Pillow does not read its samples right."""
    raster = samples.of_tiff(stream, name, how.max_pixels, page.first)
    if raster is None:
        return None
    flags = _frames(page.several, name, how)
    rgb, done = of_samples(raster, name, how.icc)
    return _finished([rgb], rgb.size, flags + done, raster.orientation, 1, how)


def _decode_jpeg(stream: BinaryIO, name: str, how: Reading) -> Picture:
    stream.seek(0)
    data = stream.read()
    try:
        with refusals(name, "JPEG"):
            file = jpeg.File(data, name)
            with open_header(file.stream, "JPEG", name) as image:
                image.decodermaxblock = file.block or image.decodermaxblock
                return _convert(image, name, how, signals.NOTHING, check=file.check)
    except ImageError as error:
        if error.code != "E_TRUNCATED" or not how.allow_truncated:
            raise
    # With an end of image put there, libjpeg leaves what is missing grey.
    cut = io.BytesIO(data.rstrip(b"\0") + b"\xff\xd9")
    with refusals(name, "JPEG"), open_header(cut, "JPEG", name) as image:
        picture = _convert(image, name, how, signals.NOTHING)
    return picture._replace(flags=(*picture.flags, "truncated"))


def _convert(
    image: Image.Image,
    name: str,
    how: Reading,
    coding: signals.Coding,
    *,
    page: pages.Pages | None = None,
    check: Callable[[Image.Image], None] | None = None,
) -> Picture:
    """The picture as `read` gives it.

    Args:
      coding: what the file says of its colours.
      page: of a TIFF file, which page it is.
      check: called with the decoded picture, before its colours are converted.
    """
    flags = _frames(_choose_frame(image, page), name, how)
    samples.check_size(image.size, name, how.max_pixels)
    samples.check_jpeg2000(image, coding.bits, coding.reduced, name)
    raster = samples.of_png(image)
    turn, turned = _load(image)
    raster = raster or samples.of_grey(image, name)
    if check:
        check(image)
    if raster:
        rgb, done = of_samples(raster, name, how.icc, coding)
        return _finished([rgb], image.size, flags + done, turn, turned, how)
    flags += ["16bit"] if coding.bits > 8 else []
    parts = (to_rgb(part, name, how.icc, coding) for part in _strips(image))
    strips = (rgb for rgb, done in parts if not flags.extend(f for f in done if f not in flags))
    return _finished(strips, image.size, flags, turn, turned, how)


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """The picture, a large one in strips: its colours take several copies to convert."""
    rows = max(1, STRIP // image.width)
    if image.height <= rows:
        yield image
        return
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.format = image.format
        yield strip


def _frames(several: bool, name: str, how: Reading) -> list[str]:
    if several and how.strict:
        raise ImageError("E_MULTIFRAME", f"{name}: has several frames; extract one")
    return ["multiframe"] if several else []


def _finished(
    strips: Iterable[Image.Image],
    size: tuple[int, int],
    flags: list[str],
    turn: int,
    turned: int,
    how: Reading,
) -> Picture:
    """Upright if it is to be.

    Args:
      strips: the picture as it is stored, from its top on.
      flags: so far; strips may add others.
      turn: the orientation that is still to be applied; `turned` has been.
    """
    # What undoes a quarter to one side is a quarter to the other; the rest undo themselves.
    wanted = turn if how.orientation == "apply" else {6: 8, 8: 6}.get(turned, turned)
    rows, columns, swapped = TURNS[wanted]
    width, height = size
    image_HWC = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    stored_HWC = (image_HWC.swapaxes(0, 1) if swapped else image_HWC)[::rows, ::columns]
    top = 0
    for strip in strips:
        stored_HWC[top : top + strip.height] = np.asarray(strip)
        top += strip.height
    if how.orientation == "apply" and (turn != 1 or turned != 1):
        flags.append("rotated")
    return Picture(image_HWC, tuple(flags))


def _choose_frame(image: Image.Image, page: pages.Pages | None) -> bool:
    """Goes to the frame that counts; returns whether there are others."""
    if page is not None:
        image.seek(page.first)
        return page.several
    if image.format in ("JPEG", "MPO"):
        image.seek(0)
        # The first is the picture; a gain map or a preview behind it is none. Of a stereo pair, a
        # panorama or a burst, all are.
        entries = (getattr(image, "mpinfo", None) or {}).get(MP_ENTRIES, ())
        kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
        return sum(kind.startswith("Multi-Frame") for kind in kinds) > 1
    several = getattr(image, "is_animated", False)
    if several and image.format != "HEIF":  # which opens at its primary picture
        image.seek(0)
    return several


def _load(image: Image.Image) -> tuple[int, int]:
    """Decodes the pixels; returns the orientation they still need, and that which they got.

    Pillow turns TIFF files by itself while it loads them, and no others.
    """
    announced = _orientation(image) if image.format == "TIFF" else 1
    image.load()
    turn = _orientation(image)
    return turn, announced if turn == 1 else 1


def _orientation(image: Image.Image) -> int:
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return (
            1  # its decoder has turned it; EXIF in it does not count, but for a JPEG packed in it
        )
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF that cannot be read tells nothing
        return 1
    return turn if turn in TURNS else 1
