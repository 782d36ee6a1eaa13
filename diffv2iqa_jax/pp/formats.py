"""Formats of image files: what their first bytes are, and which formats each caller reads."""

from typing import NamedTuple

from diffv2iqa_jax.errors import ImageError


class Signature(NamedTuple):
    """How a file of a format starts.

    Attributes:
      offset, start: the file holds the bytes `start` at `offset`.
      format: as Pillow calls it, where `FORMATS` has it.
      advice: what to do with a file of a format that the caller does not read.
    """

    offset: int
    start: bytes
    format: str
    advice: str = "convert it to PNG"


# The formats that can be read -> the endings of their files' names.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm",),
    "JPEG2000": (".jp2",),
}
# What each caller reads of them.
TO_SCORE = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PHOTOS = ("PNG", "JPEG", "WEBP", "BMP")  # to train on
OF_SETS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")

PLUGIN = "open it with {}, which registers with Pillow, and pass the PIL image"
RENDER = "render it to PNG"
# A file is what its first bytes say, whatever its name. No decoder of ours runs on formats that
# are not in FORMATS.
SIGNATURES = (
    Signature(0, b"\xff\xd8\xff", "JPEG"),
    Signature(0, b"\x89PNG\r\n\x1a\n", "PNG"),
    Signature(8, b"WEBP", "WEBP"),
    Signature(0, b"GIF87a", "GIF"),
    Signature(0, b"GIF89a", "GIF"),
    Signature(0, b"BM", "BMP"),
    Signature(0, b"II*\0", "TIFF"),
    Signature(0, b"MM\0*", "TIFF"),
    Signature(0, b"II+\0", "TIFF"),
    Signature(0, b"MM\0+", "TIFF"),
    *(Signature(0, b"P" + kind, "PPM") for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f")),
    Signature(0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    Signature(0, b"\xff\x4f\xff\x51", "JPEG2000"),
    Signature(4, b"ftypheic", "HEIC", PLUGIN.format("pillow-heif")),
    Signature(4, b"ftypheix", "HEIC", PLUGIN.format("pillow-heif")),
    Signature(4, b"ftypmif1", "HEIF", PLUGIN.format("pillow-heif")),
    Signature(4, b"ftypavif", "AVIF"),
    Signature(0, b"\xff\x0a", "JPEG XL", PLUGIN.format("pillow-jxl-plugin")),
    Signature(0, b"\0\0\0\x0cJXL ", "JPEG XL", PLUGIN.format("pillow-jxl-plugin")),
    Signature(0, b"%PDF", "PDF", RENDER),
    Signature(0, b"%!PS", "PostScript", RENDER),
    Signature(0, b"\xc5\xd0\xd3\xc6", "EPS", RENDER),
    Signature(0, b"8BPS", "Photoshop", "export it as PNG"),
    Signature(0, b"SIMPLE  =", "FITS"),
    Signature(0, b"\xd7\xcd\xc6\x9a", "WMF", RENDER),
    Signature(0, b"\x01\0\0\0", "EMF", RENDER),
    Signature(0, b"<svg", "SVG", RENDER),
    Signature(0, b"<?xml", "XML or SVG", RENDER),
)


def endings(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Endings of names of files of these formats, in lower case, with their point."""
    return tuple(ending for format in formats for ending in FORMATS[format])


def format_of(head: bytes, name: str, allowed: tuple[str, ...]) -> str:
    """The format of a file, as its first bytes tell it.

    Args:
      head: the file's first 32 bytes.
      name: what messages call the file.
      allowed: names in FORMATS of the formats that the caller reads.

    Raises:
      ImageError: E_DECODE, it is no image; E_UNSUPPORTED, it is of no allowed format.
    """
    for offset, start, format, advice in SIGNATURES:
        if head[offset : offset + len(start)] == start:
            if format in allowed:
                return format
            raise ImageError("E_UNSUPPORTED", f"{name}: is {format}, which is not read; {advice}")
    what = "is empty" if not head else f"starts with {head[:8]!r}, as no picture does"
    raise ImageError("E_DECODE", f"{name}: {what}; read are {', '.join(sorted(allowed))}")
