"""Opens image files, and turns what their decoders raise into refusals."""

import contextlib
import importlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, ImageFile

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp.formats import DECODERS, PLUGINS

KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


def opened(path: str | os.PathLike) -> BinaryIO:
    """The file, opened; only a regular one, and never waiting for one."""
    name = printable(path)
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


def printable(path: str | os.PathLike) -> str:
    """A path for a message: in one line, of characters that any terminal prints."""
    return ascii(os.fsdecode(path))[1:-1]


def open_header(stream: BinaryIO, format: str, name: str) -> ImageFile.ImageFile:
    """The picture in a file, its pixels not decoded yet.

    Pillow's own limit of pixels is not asked, as it holds for the whole process: whoever calls
    compares `size` with a limit of his own before he loads the pixels.

    Args:
      format: a name in `formats.READ`.
      name: what messages call the file.

    Raises:
      ImageError: E_UNSUPPORTED, its decoder is not installed. Else whatever decoders raise: see
        `refusals`.
    """
    if format in PLUGINS:
        _plug_in(format, name)
    decoder = DECODERS.get(format, format)
    if decoder not in Image.OPEN:
        Image.init()
    if decoder not in Image.OPEN:
        raise ImageError("E_UNSUPPORTED", f"{name}: is {format}, which this Pillow cannot read")
    stream.seek(0)
    return Image.OPEN[decoder][0](stream, "")


def _plug_in(format: str, name: str) -> None:
    """Registers the decoder of a kind that Pillow does not read by itself."""
    try:
        module = importlib.import_module(PLUGINS[format])
    except ImportError:
        raise ImageError(
            "E_UNSUPPORTED",
            f"{name}: is {format}, whose decoder is not installed;"
            " pip install 'diffv2iqa_jax[formats]', or convert it to PNG",
        ) from None
    if format == "HEIC":
        module.register_heif_opener()


@contextlib.contextmanager
def refusals(name: str, format: str, stream: BinaryIO | None = None) -> Iterator[None]:
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
