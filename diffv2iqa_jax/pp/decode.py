"""The one decoder of image files: an allow-list of formats, one error code for each refusal.

Scoring, training photos, `prepare` and the tools all read through `read`, so one file is the same
pixels everywhere. Whatever comes in, uint8 RGB comes out: the orientation in EXIF is applied, an
embedded colour profile is converted to sRGB, transparency shows white, 16 bits are rounded to 8,
and of several frames the first one counts. Flags say what was done. `Reading` holds the options.
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
from diffv2iqa_jax.pp.formats import FORMATS, OF_SETS, TO_SCORE, format_of

# Pillow warns beyond MAX_IMAGE_PIXELS and refuses beyond twice as many; so do we.
PIXELS = 2 * Image.MAX_IMAGE_PIXELS

ICC = ("convert", "ignore")
ORIENTATIONS = ("apply", "ignore")
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
ORIENTATION = 0x0112  # EXIF's tag
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
      orientation: "apply" the orientation in EXIF, or "ignore" it.
      formats: names in `formats.FORMATS` of those to read; files of others are refused.
      max_pixels: larger pictures are refused by their header alone.
      strict: refuse several frames instead of taking the first.
      allow_truncated: take a JPEG that ends early, its rest grey.
    """

    icc: str = "convert"
    orientation: str = "apply"
    formats: tuple[str, ...] = TO_SCORE
    max_pixels: int = PIXELS
    strict: bool = False
    allow_truncated: bool = False

    def __post_init__(self):
        for name, choices in (("icc", ICC), ("orientation", ORIENTATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {list(choices)}")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ValueError(f"formats {unknown or self.formats}: known are {list(FORMATS)}")
        if not 1 <= self.max_pixels <= PIXELS:
            raise ValueError(f"max_pixels {self.max_pixels}: must lie in [1, {PIXELS}]")


TO_STORE = Reading(formats=OF_SETS)  # how `prepare` reads files, where it is not told otherwise
# Prepared sets hold pixels that are final: `prepare` has done what it was asked to do.
STORED = Reading(icc="ignore", orientation="ignore", formats=("JPEG", "PNG", "BMP"))


def read(source: Any, how: Reading = Reading(), name: str = "bytes") -> Picture:  # noqa: B008, it is frozen
    """A picture from a path (str or path-like), an encoded file (bytes), a PIL image or an array.

    Args:
      name: what messages call an encoded file.

    Raises:
      ImageError: it cannot be read.
      TypeError, ValueError: an array of another type, shape or range; see `from_array`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), _printable(name), how)
    if isinstance(source, str | os.PathLike):
        with _file(source) as stream:
            return _decode(stream, _printable(source), how)
    if isinstance(source, Image.Image):
        with _refusals("PIL image", source.format or "picture"):
            return _convert(source, "PIL image", how)
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
    format = format_of(stream.read(32), "bytes", tuple(FORMATS))
    if format not in STORED.formats:
        return False
    with _refusals("bytes", format, stream), Image.open(stream, formats=[format]) as image:
        if image.mode not in ("RGB", "L") or image.has_transparency_data:
            return False
        # TensorFlow reads no BMP with palette, with 16 bits, or with the older, short header.
        header, bits = (int.from_bytes(encoded[at : at + 2], "little") for at in (14, 28))
        return format != "BMP" or (header >= 40 and bits == 24)


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
    name = _printable(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ImageError("E_NOT_FOUND", f"{name}: no such file") from None
    except OSError as error:
        raise ImageError("E_UNREADABLE", f"{name}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a device")
        raise ImageError("E_NOT_A_FILE", f"{name}: is {kind}, not a file")
    try:
        return open(path, "rb", opener=_open_without_waiting)
    except OSError as error:
        raise ImageError("E_UNREADABLE", f"{name}: {error.strerror}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _printable(path: str | os.PathLike) -> str:
    """A path for a message: in one line, of characters that any terminal prints."""
    return ascii(os.fsdecode(path))[1:-1]


def _decode(stream: BinaryIO, name: str, how: Reading) -> Picture:
    format = format_of(stream.read(32), name, how.formats)
    try:
        return _decoded(stream, name, format, how)
    except ImageError as error:
        if error.code != "E_TRUNCATED" or format != "JPEG" or not how.allow_truncated:
            raise
    stream.seek(0)
    # With an end of image put there, libjpeg leaves what is missing grey.
    picture = _decoded(io.BytesIO(stream.read() + b"\xff\xd9"), name, format, how)
    return picture._replace(flags=(*picture.flags, "truncated"))


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
    turn, turned = _load(image)
    rgb, done = _to_rgb(image, name, how)
    image_HWC = np.asarray(rgb)
    if how.orientation == "apply":
        image_HWC = _turned(image_HWC, turn)
        done += ["rotated"] if turn != 1 or turned != 1 else []
    else:
        # What undoes a quarter to one side is a quarter to the other; the rest undo themselves.
        image_HWC = _turned(image_HWC, {6: 8, 8: 6}.get(turned, turned))
    return Picture(np.ascontiguousarray(image_HWC), (*flags, *done))


def _load(image: Image.Image) -> tuple[int, int]:
    """Decodes the pixels; returns the orientation they still need, and that which they got.

    Pillow turns TIFF files by itself while it loads them, and no others.
    """
    announced = _orientation(image) if image.format == "TIFF" else 1
    image.load()
    turn = _orientation(image)
    return turn, announced if turn == 1 else 1


def _turned(image_HWC: np.ndarray, orientation: int) -> np.ndarray:
    """Upright what was stored in this orientation."""
    rows, columns, swapped = TURNS[orientation]
    image_HWC = image_HWC[::rows, ::columns]
    return image_HWC.swapaxes(0, 1) if swapped else image_HWC


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
