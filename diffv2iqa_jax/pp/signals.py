"""What files say where Pillow does not look: of their colours and, in PNG, of their pixels."""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from diffv2iqa_jax.errors import ImageError

D65 = (0.3127, 0.329)  # the white of BMP, which says none
BOXED = ("AVIF", "HEIF", "HEIC")  # as Pillow and its plug-ins call formats of ISO boxes
# Chunks or boxes that are looked at, and bytes of one that are read: beyond, nothing is looked for.
PARTS, LARGEST = 1000, 1 << 22


class Coding(NamedTuple):
    """Attributes:
    cicp: ITU-T H.273's primaries, transfer and matrix, and 1 for the full range; or None.
    bits: of a sample, the most; 8 where nothing is looked for.
    reduced: some components have fewer samples than others (JPEG 2000).
    info: what Pillow's `info` would hold of PNG: "icc_profile", "gamma", "chromaticity".
    """

    cicp: tuple[int, int, int, int] | None = None
    bits: int = 8
    reduced: bool = False
    info: dict[str, Any] = {}  # noqa: RUF012, never changed


NOTHING = Coding()


def coding_of(stream: BinaryIO, format: str | None) -> Coding:
    """What a file says; the place in the stream stays as it was.

    Read are PNG's chunks before the pixels, JPEG 2000's SIZ and colr, the headers of BMP and PPM,
    and of AVIF and HEIC the boxes nclx and pixi of the first picture.
    """
    readers = dict.fromkeys(BOXED, _of_boxes)
    readers |= {"PNG": _of_png, "JPEG2000": _of_jpeg2000, "BMP": _of_bmp, "PPM": _of_ppm}
    if format not in readers:
        return NOTHING
    here = stream.tell()
    try:
        return readers[format](stream)
    except (struct.error, IndexError, ValueError, OverflowError):
        return NOTHING  # damaged: its decoder finds words for it
    finally:
        stream.seek(here)


def _of_png(stream: BinaryIO) -> Coding:
    bits, cicp = 8, None
    stream.seek(8)
    for _ in range(PARTS):
        size, name = struct.unpack(">I4s", stream.read(8))
        if name in (b"IDAT", b"IEND"):
            break
        start = stream.read(min(size, 13))
        if name == b"IHDR":
            bits = start[8]
        if name == b"cICP":
            cicp = struct.unpack_from(">4B", start)
        stream.seek(size - len(start) + 4, 1)
    return Coding(cicp, bits)


def check_png(stream: BinaryIO, name: str) -> None:
    """Refuses pixels that fail their checksum, which Pillow does not compare.

    A rest of zeros, as a copy that failed leaves, may decode to pixels.

    Raises:
      ImageError: E_DECODE, they do.
    """
    here = stream.tell()
    stream.seek(8)
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        size = int.from_bytes(head[:4], "big")
        if head[4:] != b"IDAT":
            stream.seek(size + 4, 1)
            continue
        data, stated = stream.read(size), stream.read(4)
        if len(stated) == 4 and zlib.crc32(data, zlib.crc32(b"IDAT")) != int.from_bytes(
            stated, "big"
        ):
            raise ImageError(
                "E_DECODE", f"{name}: damaged PNG (a checksum is wrong); copy it again"
            )
    stream.seek(here)


def _of_jpeg2000(stream: BinaryIO) -> Coding:
    stream.seek(0)
    head = stream.read(LARGEST)  # a profile may stand before it
    siz = head.index(b"\xff\x4f\xff\x51") + 2
    (components,) = struct.unpack_from(">H", head, siz + 38)
    depths, across, down = (head[siz + 40 + i :: 3][:components] for i in range(3))
    reduced = len({*zip(across, down, strict=True)}) > 1
    info = _jp2_colours(head[: siz - 2])
    return Coding(bits=max((bits & 0x7F) + 1 for bits in depths), reduced=reduced, info=info)


def _jp2_colours(head: bytes) -> dict[str, Any]:
    """A profile, of no use where it is a number for other colours than sRGB, grey and sYCC.

    Args:
      head: the boxes before the codestream, which Pillow does not tell of.
    """
    for name, data in _boxes(dict(_boxes(head)).get(b"jp2h", b"")):
        if name == b"colr" and data[:1] in (b"\2", b"\3"):
            return {"icc_profile": data[3:]}
        if name == b"colr" and data[:1] == b"\1":
            number = int.from_bytes(data[3:7], "big")
            return {} if number in (16, 17, 18) else {"icc_profile": b"%d" % number}
    return {}


def _of_ppm(stream: BinaryIO) -> Coding:
    stream.seek(0)
    words = re.sub(rb"#[^\n]*", b"", stream.read(1024)).split()
    deep = words[0] in (b"P2", b"P3", b"P5", b"P6") and int(words[3]) > 255
    return Coding(bits=int(words[3]).bit_length() if deep else 8)


def _of_bmp(stream: BinaryIO) -> Coding:
    """The fields of the headers V4 and V5; in V4, and if it says so in V5, primaries and gammas."""
    stream.seek(14)
    head = stream.read(124)
    (size,) = struct.unpack_from("<I", head)
    if size not in (108, 124):
        return NOTHING
    kind, *numbers = struct.unpack_from("<4s9i3I", head, 56)
    if size == 124 and kind == b"DEBM":  # "MBED", embedded, from its last byte on
        start, length = struct.unpack_from("<2I", head, 112)
        stream.seek(14 + start)
        return Coding(info={"icc_profile": stream.read(min(length, LARGEST))})
    if kind == b"KNIL":  # "LINK": a profile in another file
        return Coding(info={"icc_profile": b"linked"})
    ends, gammas = numbers[:9], numbers[9:]
    if kind != bytes(4) or not all(sum(ends[i : i + 3]) for i in (0, 3, 6)):
        return NOTHING
    x_y = [ends[i + j] / sum(ends[i : i + 3]) for i in (0, 3, 6) for j in (0, 1)]
    gamma = gammas[1] / 65536
    # Some writers mean the exponent of the file, 1/2.2, others that of the display.
    gamma = 1 / gamma if gamma > 1 else gamma
    return Coding(info={"chromaticity": (*D65, *x_y)} | ({"gamma": gamma} if gamma else {}))


def _of_boxes(stream: BinaryIO) -> Coding:
    """The properties that the box ipma gives to the item of the box pitm."""
    meta = _meta(stream)
    boxes = dict(_boxes(meta[4:]))
    properties = dict(_boxes(boxes.get(b"iprp", b"")))
    listed = list(_boxes(properties.get(b"ipco", b"")))
    coding = Coding()
    for index in _given(properties.get(b"ipma", b""), _primary(boxes.get(b"pitm", b""))):
        name, data = listed[index - 1] if 0 < index <= len(listed) else (b"", b"")
        if name == b"colr" and data[:4] == b"nclx":
            *numbers, full = struct.unpack_from(">3HB", data, 4)
            coding = coding._replace(cicp=(*numbers, full >> 7))
        if name == b"pixi":
            coding = coding._replace(bits=data[5])
    return coding


def _meta(stream: BinaryIO) -> bytes:
    stream.seek(0)
    for _ in range(PARTS):
        size, name = struct.unpack(">I4s", stream.read(8))
        if name == b"meta":
            return stream.read(min(size - 8, LARGEST)) if size > 8 else b"\0" * 4
        if size < 8:  # a box of 64 bits, or up to the end: pixels; meta stands before them
            break
        stream.seek(size - 8, 1)
    return b"\0" * 4


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that stand one after the other: (name, content)."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield name, data[at + 8 : at + size]
        at += size


def _primary(pitm: bytes) -> int:
    return struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)[0]


def _given(ipma: bytes, item: int) -> list[int]:
    """The numbers of an item's properties, from 1 on."""
    version, wide = ipma[0], ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(count):
        (entry,) = struct.unpack_from(">I" if version else ">H", ipma, at)
        at += 4 if version else 2
        number = ipma[at]
        form, mask = (f">{number}H", 0x7FFF) if wide else (f">{number}B", 0x7F)
        properties = struct.unpack_from(form, ipma, at + 1)
        if entry == item:
            return [p & mask for p in properties]
        at += 1 + struct.calcsize(form)
    return []
