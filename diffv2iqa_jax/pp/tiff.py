"""TIFF layouts that Pillow refuses, cuts or misreads: a page's samples, as stored.

Pillow reads the ordinary layouts of 8 bits, which are left to it. Of all others the parts of the
file are decompressed by zlib or by Pillow's libtiff, and put together here.
"""

import io
import itertools
import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from diffv2iqa_jax.errors import ImageError

# Compressions of bytes: none, deflate, and what libtiff undoes for us: LZW, PackBits, LZMA, zstd.
NONE, DEFLATES, PACKED = 1, (8, 32946), (5, 32773, 34925, 50000)
BYTES = (NONE, *DEFLATES, *PACKED)
GREY, PALETTE, CMYK, YCBCR = (0, 1), 3, 5, 6  # values of PhotometricInterpretation; RGB is 2
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}  # samples of a pixel without extra ones
# Compressions of pictures that Pillow reads -> of which photometrics: CCITT's, JPEG's.
PICTURES = dict.fromkeys((2, 3, 4), GREY) | dict.fromkeys((6, 7), (*GREY, 2, CMYK, YCBCR))
UNKNOWN = {
    4: "a transparency mask",
    10: "in ITU Lab colours",
    32844: "LogL (HDR)",
    32845: "LogLuv (HDR)",
    51177: "a depth map",
}
SIGNED, FLOAT, VOID = 2, 3, 4  # values of SampleFormat; unsigned integers are 1
# YCbCrCoefficients and ReferenceBlackWhite -> the only values that are converted: those of JFIF.
JFIF = {529: (0.299, 0.587, 0.114), 532: (0, 255, 128, 255, 128, 255)}
# Types of tags -> their letter for struct and their size; of rationals, both numbers as one.
TYPES = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 6: ("b", 1), 7: ("s", 1), 8: ("h", 2)}
TYPES |= {5: ("Q", 8), 9: ("i", 4), 13: ("I", 4), 16: ("Q", 8), 18: ("Q", 8)}
TAGS, LARGEST = 1000, 1 << 26  # of a directory, and bytes of a tag: beyond, a file is damaged
MOST = 16  # samples of a pixel: more are measurements rather than pictures


class Layout(NamedTuple):
    """How a TIFF file stores a page.

    Attributes:
      bits: of each sample.
      kind: SampleFormat.
      photometric: PhotometricInterpretation.
      samples: of each pixel, colours first.
      extra: what the samples after the colours are: 0 unspecified, 1 premultiplied alpha, 2 alpha.
      planar: whether each sample has a plane of its own.
      order: "<" or ">".
      part: (height, width) of a strip or a tile.
      tags: all of the page's tags.
    """

    width: int
    height: int
    bits: int
    kind: int
    photometric: int
    samples: int
    extra: tuple[int, ...]
    planar: bool
    compression: int
    predictor: int
    order: str
    part: tuple[int, int]
    tags: dict[int, tuple]

    @property
    def colours(self) -> int:
        return COLOURS[self.photometric]


def directory(stream: BinaryIO, page: int = 0) -> tuple[str, bool, dict[int, tuple]]:
    """The byte order ("<" or ">"), whether it is BigTIFF, and the tags of a file's page.

    Raises:
      OSError, struct.error: the file is damaged.
    """
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    at, counts, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    (start,) = struct.unpack_from(order + at, head, 8 if big else 4)
    for _ in range(page):
        stream.seek(start)
        (count,) = _unpacked(stream, order + counts)
        stream.seek(count * struct.calcsize(order + entry), 1)
        (start,) = _unpacked(stream, order + at)
    stream.seek(start)
    (count,) = _unpacked(stream, order + counts)
    tags = {}
    for _ in range(min(count, TAGS)):
        tag, type_, number, value = _unpacked(stream, order + entry)
        code, size = TYPES.get(type_, ("", 0))
        if not code or tag in tags:
            continue
        if number * size > len(value):
            here = stream.tell()
            (offset,) = struct.unpack(order + at, value)
            stream.seek(min(offset, 1 << 62))
            value = stream.read(number * size) if number * size <= LARGEST else b""
            stream.seek(here)
        number = min(number, len(value) // size)
        tags[tag] = struct.unpack(f"{order}{number}{code}", value[: number * size])
        if code == "s":
            tags[tag] = (value[:number],)
    return order, big, tags


def _unpacked(stream: BinaryIO, form: str) -> tuple:
    data = stream.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise OSError("truncated directory")
    return struct.unpack(form, data)


def layout(stream: BinaryIO, name: str, page: int = 0) -> Layout | None:
    """The layout of a file that `samples` must read; None of one that Pillow reads right.

    Raises:
      ImageError: E_UNSUPPORTED, neither reads it.
    """
    order, big, tags = directory(stream, page)
    if 256 not in tags or 257 not in tags:
        return None  # damaged: Pillow finds words for it
    one = {tag: values[0] for tag, values in tags.items() if values}
    photometric, compression = one.get(262, 0), one.get(259, NONE)
    samples = one.get(277, 3 if compression in (6, 7) and photometric in (2, 6) else 1)
    bits, kinds = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    strip = (min(one.get(278, one[257]), one[257]), one[256])
    form = Layout(
        width=one[256],
        height=one[257],
        bits=max(bits),
        kind=max(kinds),
        photometric=photometric,
        samples=samples,
        extra=_extra(tags.get(338, ()), samples, photometric),
        planar=one.get(284) == 2,
        compression=compression,
        predictor=one.get(317, 1),
        order=order,
        part=(one.get(323, 0), one.get(322, 0)) if 324 in tags else strip,
        tags=tags,
    )
    # Pillow takes a big-endian BigTIFF for a small one.
    if len(bits) == len(kinds) == 1 and _is_ordinary(form) and not (big and order == ">"):
        return None
    _check(form, bits, kinds, name)
    return form


def samples(stream: BinaryIO, form: Layout) -> np.ndarray:
    """The samples (H, W, samples) in the type that holds them, as they are stored.

    Raises:
      OSError, ValueError: the file is damaged.
    """
    high, wide = form.part
    if high < 1 or wide < 1 or high * wide > 4 * max(form.width * form.height, 1 << 16):
        raise ValueError(f"its parts are {wide} x {high}")
    offsets = form.tags.get(324) or form.tags.get(273, ())
    sizes = form.tags.get(325) or form.tags.get(279, ())
    planes = form.samples if form.planar else 1
    channels = form.samples // planes
    across, down = -(-form.width // wide), -(-form.height // high)
    if len(offsets) < planes * across * down:
        raise OSError("truncated: parts of it are missing")
    corners = list(
        itertools.product(range(planes), range(0, form.height, high), range(0, form.width, wide))
    )
    out = np.empty((form.height, form.width, form.samples), _type(form))
    for i, (plane, top, left) in enumerate(corners):
        # Strips end with the picture; tiles are always whole.
        rows = high if 324 in form.tags else min(high, form.height - top)
        length = -(-wide * channels * form.bits // 8)
        stream.seek(offsets[i])
        size = sizes[i] if i < len(sizes) else rows * length
        data = _plain(stream.read(size), form.compression, length, rows)
        part = _values(data, form, rows, wide, channels)
        part = part[: form.height - top, : form.width - left]
        out[top : top + high, left : left + wide, plane : plane + channels] = part
    return out


def _extra(stated: tuple[int, ...], samples: int, photometric: int) -> tuple[int, ...]:
    """What each sample beyond the colours is; a fourth of RGB that nothing explains is alpha."""
    more = min(max(samples - COLOURS.get(photometric, samples), 0), MOST)
    if not stated and photometric == 2 and more == 1:
        return (2,)
    return (stated + (0,) * more)[:more]


def _is_ordinary(form: Layout) -> bool:
    """Whether Pillow reads it, exactly: at most 8 bits, of the usual kinds."""
    if form.kind not in (1, VOID) or form.predictor not in (1, 2):
        return False
    if form.compression in PICTURES:
        bits = 8 if form.compression in (6, 7) else 1
        right = form.photometric in PICTURES[form.compression] and form.bits == bits
        return right and not form.extra
    # libtiff passes over the predictor of PackBits, and refuses it of fewer bits.
    predicted = form.bits == 8 and form.compression in (5, 50000, *DEFLATES)
    if form.compression not in BYTES or (form.predictor == 2 and not predicted):
        return False
    if form.planar and form.extra:
        return False
    if form.bits in (1, 2, 4):
        return form.samples == 1 and form.photometric in (*GREY, PALETTE)
    usual = {0: ((),), 1: ((), (2,)), 2: ((), (0,), (1,), (2,)), 3: ((),), 5: ((),)}
    reversed_ = form.tags.get(266, (1,)) != (1,)
    return form.bits == 8 and not reversed_ and form.extra in usual.get(form.photometric, ())


def _check(form: Layout, bits: set, kinds: set, name: str) -> None:
    """Refuses what no rule says how to show."""
    what = None
    if form.photometric not in COLOURS:
        what = f"is {UNKNOWN.get(form.photometric, f'of photometric {form.photometric}')}"
    elif len(bits) > 1 or len(kinds) > 1:
        what = f"has samples of several sizes ({sorted(bits)} bits)"
    elif form.kind in (5, 6):
        what = "has complex numbers"
    elif form.kind == SIGNED and form.photometric not in (8, 9):
        what = f"has signed samples of {form.bits} bits, whose black and white nothing tells"
    elif form.compression not in BYTES:
        what = f"has samples of {form.bits} bits in compression {form.compression}"
    elif form.predictor not in ((1, 3) if form.kind == FLOAT else (1, 2)):
        what = f"has predictor {form.predictor}"
    elif form.samples < form.colours:
        what = f"has {form.samples} samples a pixel, too few for its colours"
    elif form.samples > MOST or (form.photometric in GREY and form.samples > 2):
        what = f"has {form.samples} channels and does not say which are red, green and blue"
    elif form.tags.get(266, (1,)) != (1,):
        what = f"has {form.bits} bits in reversed order"
    elif form.photometric == CMYK and form.tags.get(332, (1,)) != (1,):
        what = "has inks other than CMYK"
    elif form.photometric == YCBCR and tuple(form.tags.get(530, (2, 2))) != (1, 1):
        what = "has YCbCr samples of reduced resolution without JPEG"
    elif form.photometric == YCBCR and not _is_jfif(form):
        what = "has YCbCr samples of other coefficients or ranges than JFIF's"
    elif (
        form.photometric in (YCBCR, 8, 9)
        and form.kind == FLOAT
        or (form.bits not in (16, 32, 64) if form.kind == FLOAT else not _whole(form))
    ):
        what = f"has {'floating ' if form.kind == FLOAT else ''}samples of {form.bits} bits"
    if what:
        raise ImageError("E_UNSUPPORTED", f"{name}: {what}; save it as RGB of 8 or 16 bits")


def _is_jfif(form: Layout) -> bool:
    for tag, usual in JFIF.items():
        numbers = [struct.unpack("<2I", struct.pack("<Q", v)) for v in form.tags.get(tag, ())]
        over_under = numbers if form.order == "<" else [pair[::-1] for pair in numbers]
        values = tuple(over / max(under, 1) for over, under in over_under)
        if values and (
            len(values) != len(usual) or np.abs(np.subtract(values, usual)).max() > 0.001
        ):
            return False
    return True


def _whole(form: Layout) -> bool:
    """Whether integers of so many bits can be read in these colours."""
    if form.photometric in (YCBCR, 8, 9):
        return form.bits == 8 or (form.bits == 16 and form.photometric != YCBCR)
    if form.bits < 8 and form.samples > 1 and not form.planar:
        return False  # writers differ in the order of the bits
    return form.bits in (8, 16, 32, 64) or form.bits < 32 and form.predictor == 1


def _type(form: Layout) -> np.dtype:
    size = next(n for n in (8, 16, 32, 64) if n >= form.bits)
    return np.dtype(f"{'f' if form.kind == FLOAT else 'u'}{size // 8}")


def _plain(data: bytes, compression: int, length: int, rows: int) -> bytes:
    """A part of the file, decompressed: `rows` rows of `length` bytes."""
    if compression in DEFLATES:
        data = zlib.decompressobj().decompress(data, rows * length)
    elif compression in PACKED:
        data = _by_libtiff(data, compression, length, rows)
    if len(data) < rows * length:
        raise OSError("truncated part")
    return data[: rows * length]


def _by_libtiff(data: bytes, compression: int, length: int, rows: int) -> bytes:
    """As `_plain`: libtiff sees a grey picture of 8 bits, one strip of `length` pixels a row."""
    tags = {256: length, 257: rows, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: rows}
    tags[279] = len(data)
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with TiffImagePlugin.TiffImageFile(io.BytesIO(head + data)) as image:
        return image.tobytes()


def _values(data: bytes, form: Layout, rows: int, wide: int, channels: int) -> np.ndarray:
    """The samples (rows, wide, channels) in bytes of which they are made."""
    shape, type_ = (rows, wide, channels), _type(form)
    if form.bits not in (8, 16, 32, 64):
        bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, -1), axis=1)
        bits = bits[:, : wide * channels * form.bits].reshape(*shape, form.bits)
        out = np.zeros(shape, type_)
        for i in range(form.bits):
            out = out << 1 | bits[..., i].astype(type_)
        return out
    if form.predictor == 3:
        steps = np.frombuffer(data, np.uint8).reshape(rows, -1, channels)
        planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, form.bits // 8, -1)
        # Of every number the first bytes come first, whatever the order of the file.
        ordered = np.ascontiguousarray(planes.swapaxes(1, 2))
        return ordered.view(type_.newbyteorder(">")).reshape(shape).astype(type_)
    whole = np.dtype(f"{form.order}u{form.bits // 8}")
    x = np.frombuffer(data, whole).reshape(shape).astype(whole.newbyteorder("="))
    if form.predictor == 2:
        x = np.cumsum(x, axis=1, dtype=x.dtype)
    return x.view(type_)
