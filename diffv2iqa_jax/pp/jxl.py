"""The header of a JPEG XL file: its size, frames and bits, which its decoder tells late or never.

As ISO/IEC 18181-1 has it: bits from the lowest on.
"""

from typing import BinaryIO, NamedTuple

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
# Width to height, by number; 0 is: as it is told.
RATIOS = ((1, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
SIDES = (9, 13, 18, 30)  # bits of a side, by its own number
DEPTHS = (8, 10, 12)  # bits of a sample, by number
BOXES = 100  # before the picture's; a damaged file may have any number


class Header(NamedTuple):
    """Attributes:
    size: width and height.
    animated: whether it has frames.
    bits: of a sample, floats as 32; 8 where it is not looked for.
    """

    size: tuple[int, int]
    animated: bool
    bits: int = 8


class _Bits:
    def __init__(self, data: bytes):
        self._rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value


def header(stream: BinaryIO) -> Header:
    """What a file's first bytes say.

    Raises:
      OSError: it ends before its picture starts.
    """
    bits = _Bits(_codestream(stream))
    size = _size(bits)
    if bits.take(1):  # all by default
        return Header(size, False)
    if bits.take(1):  # more fields
        bits.take(3)  # orientation
        if bits.take(1):
            _size(bits)  # to show it at
        if bits.take(1):  # a preview: nothing is looked for behind it
            return Header(size, False)
        if bits.take(1):
            return Header(size, True)
    if bits.take(1):
        return Header(size, False, 32)
    number = bits.take(2)
    return Header(size, False, DEPTHS[number] if number < 3 else 1 + bits.take(6))


def _codestream(stream: BinaryIO) -> bytes:
    """The bytes behind the codestream's mark, as many as a header takes at most."""
    stream.seek(0)
    start = stream.read(len(CONTAINER))
    if start != CONTAINER:
        return start[2:] + stream.read(32)
    for _ in range(BOXES):
        place = stream.tell()
        length, kind = int.from_bytes(stream.read(4), "big"), stream.read(4)
        if length == 1:
            length = int.from_bytes(stream.read(8), "big")
        if kind in (b"jxlc", b"jxlp"):  # whole, or in parts, which are numbered
            return stream.read(2 + 4 * (kind == b"jxlp") + 32)[2 + 4 * (kind == b"jxlp") :]
        if length < 8 or not kind:
            break
        stream.seek(place + length)
    raise OSError("truncated: no picture in it")


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    over, under = RATIOS[ratio]
    return (height * over // under if ratio else _side(bits, small)), height


def _side(bits: _Bits, small: int) -> int:
    return (bits.take(5) + 1) * 8 if small else bits.take(SIDES[bits.take(2)]) + 1
