"""Reading pictures of any origin: an allow-list of formats, and one error code for each refusal.

Whatever comes in, uint8 RGB comes out: the orientation that EXIF tells is applied, an embedded
colour profile becomes sRGB, transparency shows white, 16 bits are rounded to 8, and of several
frames the first one counts. What was done is said by flags.
"""

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from diffv2iqa_jax.errors import ImageError

# Pillow warns beyond MAX_IMAGE_PIXELS and refuses beyond twice as many; so do we.
PIXELS = 2 * Image.MAX_IMAGE_PIXELS

# A file is what its first bytes say, whatever its name: (offset, bytes, format of Pillow).
SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
)
# No decoder of ours is run on these: (offset, bytes, name, what to do).
PLUGIN = "open it with {}, which registers with Pillow, and pass the PIL image"
OTHERS = (
    (4, b"ftypheic", "HEIC", PLUGIN.format("pillow-heif")),
    (4, b"ftypheix", "HEIC", PLUGIN.format("pillow-heif")),
    (4, b"ftypmif1", "HEIF", PLUGIN.format("pillow-heif")),
    (4, b"ftypavif", "AVIF", "convert it to PNG"),
    (0, b"\xff\x0a", "JPEG XL", PLUGIN.format("pillow-jxl-plugin")),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", PLUGIN.format("pillow-jxl-plugin")),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000", "convert it to PNG"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", "convert it to PNG"),
    (0, b"%PDF", "PDF", "render it to PNG"),
    (0, b"%!PS", "PostScript", "render it to PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS", "render it to PNG"),
    (0, b"8BPS", "Photoshop", "export it as PNG"),
    (0, b"SIMPLE  =", "FITS", "convert it to PNG"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF", "render it to PNG"),
    (0, b"\x01\0\0\0", "EMF", "render it to PNG"),
    (0, b"<svg", "SVG", "render it to PNG"),
    (0, b"<?xml", "XML or SVG", "render it to PNG"),
)
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
ORIENTATION = 0x0112  # EXIF's tag


class Picture(NamedTuple):
    """Attributes:
    image_HWC: uint8, RGB.
    flags: what was done to it, of "rotated", "icc", "icc_ignored", "alpha", "16bit",
      "multiframe", "truncated".
    """

    image_HWC: np.ndarray
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read.

    Attributes:
      icc: "convert" an embedded colour profile to sRGB, or "ignore" it.
      orientation: "apply" the turn that EXIF asks for, or "ignore" it.
      max_pixels: larger pictures are refused by their header alone.
      strict: refuse several frames instead of taking the first.
      allow_truncated: take a JPEG that ends early, its rest grey.
    """

    icc: str = "convert"
    orientation: str = "apply"
    max_pixels: int = PIXELS
    strict: bool = False
    allow_truncated: bool = False

    def __post_init__(self):
        if self.icc not in ("convert", "ignore"):
            raise ValueError(f"icc {self.icc!r}: known are ['convert', 'ignore']")
        if self.orientation not in ("apply", "ignore"):
            raise ValueError(f"orientation {self.orientation!r}: known are ['apply', 'ignore']")
        if not 1 <= self.max_pixels <= PIXELS:
            raise ValueError(f"max_pixels {self.max_pixels}: must lie in [1, {PIXELS}]")


STORED = Reading(icc="ignore", orientation="ignore")


def read(source: Any, how: Reading = Reading()) -> Picture:  # noqa: B008, it is frozen
    """A picture from a path (str or path-like), an encoded file (bytes), a PIL image or an array.

    Raises:
      ImageError: it cannot be read.
      TypeError, ValueError: an array of another type, shape or range; see `from_array`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), "bytes", how)
    if isinstance(source, str | os.PathLike):
        with _file(source) as stream:
            return _decode(stream, ascii(os.fsdecode(source))[1:-1], how)
    if isinstance(source, Image.Image):
        with _refusals("PIL image", source.format or "picture"):
            return _convert(source, "PIL image", how)
    return Picture(from_array(source), ())


def pixels_of(encoded: bytes) -> np.ndarray:
    """Pixels of an image as a prepared set stores it, uint8 RGB (H, W, 3).

    What is stored is final: no colour profile is converted and nothing is turned. `prepare` has
    done both where it was asked to.

    Raises:
      ImageError: the bytes are damaged.
    """
    return read(encoded, STORED).image_HWC


def from_array(x: Any) -> np.ndarray:
    """uint8 (0..255), uint16 (0..65535) or floating (0..1) RGB (H, W, 3) -> uint8.

    Raises:
      TypeError: another type.
      ValueError: another shape, or values outside the range; says which.
    """
    if type(x).__module__.partition(".")[0] == "torch":
        raise TypeError("image is a torch tensor: pass x.permute(1, 2, 0).cpu().numpy()")
    x = x if isinstance(x, np.ndarray) else np.asarray(x)
    _check_type(x)
    if x.ndim != 3 or x.shape[-1] != 3 or not x.size:
        fix = "pass (height, width, 3)"
        if x.ndim == 2:
            fix = "grey pictures: np.stack([x] * 3, axis=-1)"
        elif x.ndim == 3 and x.shape[0] == 3:
            fix = "channels must be last: x.transpose(1, 2, 0)"
        elif x.ndim == 3 and x.shape[-1] == 4:
            fix = "pass PIL.Image.fromarray(x), whose transparency we know to treat"
        raise ValueError(f"image of shape {x.shape}: must be (H, W, 3); {fix}")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype == np.uint16:
        return _to_8_bits(x)
    return np.rint(np.asarray(x, np.float32) * 255).astype(np.uint8)


def _check_type(x: np.ndarray) -> None:
    floating = x.dtype.kind == "f" or x.dtype.name == "bfloat16"
    if x.dtype not in (np.uint8, np.uint16) and not floating:
        raise TypeError(
            f"image of type {x.dtype}: must be uint8 (0..255), uint16 (0..65535) or floating"
            " (0..1); convert it with x.astype(np.uint8) if that is its range"
        )
    if not floating or not x.size:
        return
    low, high = float(np.min(x)), float(np.max(x))
    if not (0 <= low and high <= 1):  # also where one of them is NaN
        raise ValueError(
            f"floating image with values from {low:.4g} to {high:.4g}: must be finite and lie in"
            " 0..1; divide 0..255 by 255, or pass uint8"
        )


def _file(path: str | os.PathLike) -> BinaryIO:
    """The file, opened; only a regular one, and never waiting for one."""
    name = ascii(os.fsdecode(path))[1:-1]
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ImageError("E_NOT_FOUND", f"{name}: no such file") from None
    except OSError as error:
        raise ImageError("E_UNREADABLE", f"{name}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a device")
        raise ImageError("E_NOT_A_FILE", f"{name}: is {kind}, not a file")
    unblocked = lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        return open(path, "rb", opener=unblocked)
    except OSError as error:
        raise ImageError("E_UNREADABLE", f"{name}: {error.strerror}") from None


def _decode(stream: BinaryIO, name: str, how: Reading) -> Picture:
    head = stream.read(32)
    format = _format(head, name)
    try:
        return _decoded(stream, name, format, how)
    except ImageError as error:
        if error.code != "E_TRUNCATED" or format != "JPEG" or not how.allow_truncated:
            raise
    stream.seek(0)
    # With an end of image put there, libjpeg leaves what is missing grey.
    found = _decoded(io.BytesIO(stream.read() + b"\xff\xd9"), name, format, how)
    return found._replace(flags=(*found.flags, "truncated"))


def _format(head: bytes, name: str) -> str:
    for offset, start, format in SIGNATURES:
        if head[offset : offset + len(start)] == start:
            return format
    for offset, start, format, advice in OTHERS:
        if head[offset : offset + len(start)] == start:
            raise ImageError("E_UNSUPPORTED", f"{name}: is {format}, which is not read; {advice}")
    known = sorted({format for *_, format in SIGNATURES})
    what = "is empty" if not head else f"starts with {head[:8]!r}, as no picture does"
    raise ImageError("E_DECODE", f"{name}: {what}; read are {', '.join(known)}")


def _decoded(stream: BinaryIO, name: str, format: str, how: Reading) -> Picture:
    stream.seek(0)
    with _refusals(name, format, stream), Image.open(stream, formats=[format]) as image:
        return _convert(image, name, how)


@contextlib.contextmanager
def _refusals(name: str, format: str, stream: BinaryIO | None = None) -> Iterator[None]:
    """Turns whatever decoders raise into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("E_TOO_LARGE", f"{name}: {error}") from None
    except Exception as error:  # a damaged file makes them raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if "runcated" in reason or (stream and _cut_webp(stream, format)):
            raise ImageError("E_TRUNCATED", f"{name}: ends early; copy it again") from None
        raise ImageError("E_DECODE", f"{name}: damaged {format} ({reason})") from None


def _cut_webp(stream: BinaryIO, format: str) -> bool:
    """Whether a WebP file is shorter than it says; its decoder does not say why it fails."""
    if format != "WEBP":
        return False
    stream.seek(4)
    announced = int.from_bytes(stream.read(4), "little") + 8
    return stream.seek(0, os.SEEK_END) < announced


def _convert(image: Image.Image, name: str, how: Reading) -> Picture:
    width, height = image.size
    if width * height > how.max_pixels:
        raise ImageError(
            "E_TOO_LARGE",
            f"{name}: {width} x {height} is more than {how.max_pixels} pixels; make it smaller",
        )
    flags = []
    if getattr(image, "is_animated", False):
        if how.strict:
            raise ImageError("E_MULTIFRAME", f"{name}: has several frames; extract one")
        image.seek(0)
        flags.append("multiframe")
    image.load()
    rgb, said = _to_rgb(image, name, how)
    turn = _orientation(image) if how.orientation == "apply" else 1
    flags += [*said, *(["rotated"] if turn != 1 else [])]
    return Picture(np.ascontiguousarray(TURNS[turn](np.asarray(rgb))), tuple(flags))


TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


def _orientation(image: Image.Image) -> int:
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF that cannot be read tells nothing
        return 1
    return turn if turn in TURNS else 1


def _to_rgb(image: Image.Image, name: str, how: Reading) -> tuple[Image.Image, list[str]]:
    """The picture in sRGB, opaque, and flags."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(np.asarray(image), name)).convert("RGB"), ["16bit"]
    flags, alpha = [], None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        image, info = rgba.convert("RGB"), image.info
        image.info = info
        if alpha.getextrema() == (255, 255):
            alpha = None
    elif image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    profile = image.info.get("icc_profile") if how.icc == "convert" else None
    rgb = image
    if profile:
        rgb, flag = _to_srgb(image, profile)
        flags += [flag] if flag else []
    if rgb.mode == "LAB":
        raise ImageError("E_UNSUPPORTED", f"{name}: is in LAB colours; convert it to RGB")
    rgb = rgb.convert("RGB")
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
        flags.append("alpha")
    return rgb, flags


def _to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str | None]:
    """The picture by its colour profile; as it is where that is sRGB already, or is no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
            return image, None
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"), "icc"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        return image, "icc_ignored"


def _grey(x: np.ndarray, name: str) -> np.ndarray:
    """Grey of more than 8 bits -> 8 bits: integers are taken for 0..65535, floats for 0..1."""
    top = 1.0 if x.dtype.kind == "f" else 65535
    if not (x.min() >= 0 and x.max() <= top):  # also where it is not finite
        raise ImageError(
            "E_UNSUPPORTED",
            f"{name}: grey values from {x.min()} to {x.max()}, outside 0..{top}; scale them",
        )
    return np.rint(x * 255.0).astype(np.uint8) if top == 1 else _to_8_bits(x)


def _to_8_bits(x: np.ndarray) -> np.ndarray:
    """0..65535 -> 0..255, to the nearest."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)
