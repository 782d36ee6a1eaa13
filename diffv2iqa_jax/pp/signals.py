"""What files say of their colours outside a profile and where Pillow does not look."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BOXED = ("AVIF", "HEIF", "HEIC")  # as Pillow and its plug-ins call formats of ISO boxes
# Chunks or boxes that are looked at, and bytes of one that are read: beyond, nothing is looked for.
PARTS, LARGEST = 1000, 1 << 22


class Told(NamedTuple):
    """Attributes:
    cicp: ITU-T H.273's primaries, transfer and matrix, and 1 for the full range; or None.
    bits: of a sample; 8 where nothing is looked for.
    """

    cicp: tuple[int, int, int, int] | None = None
    bits: int = 8


NOTHING = Told()


def told(stream: BinaryIO, format: str | None) -> Told:
    """What a file says; the place in the stream stays as it was.

    Read are PNG's chunks before the pixels, JPEG 2000's SIZ, and of AVIF and HEIC the boxes nclx
    and pixi of the first picture.
    """
    readers = {"PNG": _of_png, "JPEG2000": _of_jpeg2000} | dict.fromkeys(BOXED, _of_boxes)
    if format not in readers:
        return NOTHING
    here = stream.tell()
    try:
        return readers[format](stream)
    except (struct.error, IndexError, ValueError, OverflowError):
        return NOTHING  # damaged: its decoder finds words for it
    finally:
        stream.seek(here)


def _of_png(stream: BinaryIO) -> Told:
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
    return Told(cicp, bits)


def _of_jpeg2000(stream: BinaryIO) -> Told:
    stream.seek(0)
    head = stream.read(4096)
    siz = head.index(b"\xff\x4f\xff\x51") + 2
    return Told(bits=(head[siz + 40] & 0x7F) + 1)


def _of_boxes(stream: BinaryIO) -> Told:
    """The properties that the box ipma gives to the item of the box pitm."""
    meta = _meta(stream)
    boxes = dict(_boxes(meta[4:]))
    properties = dict(_boxes(boxes.get(b"iprp", b"")))
    listed = list(_boxes(properties.get(b"ipco", b"")))
    found = Told()
    for index in _given(properties.get(b"ipma", b""), _primary(boxes.get(b"pitm", b""))):
        name, data = listed[index - 1] if 0 < index <= len(listed) else (b"", b"")
        if name == b"colr" and data[:4] == b"nclx":
            *numbers, full = struct.unpack_from(">3HB", data, 4)
            found = found._replace(cicp=(*numbers, full >> 7))
        if name == b"pixi":
            found = found._replace(bits=data[5])
    return found


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
        (found,) = struct.unpack_from(">I" if version else ">H", ipma, at)
        at += 4 if version else 2
        number = ipma[at]
        form, mask = (f">{number}H", 0x7FFF) if wide else (f">{number}B", 0x7F)
        properties = struct.unpack_from(form, ipma, at + 1)
        if found == item:
            return [p & mask for p in properties]
        at += 1 + struct.calcsize(form)
    return []
