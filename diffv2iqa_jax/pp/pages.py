"""What the directories of a TIFF file say, before any pixel is decoded: raw, thumbnails, pages."""

import struct
from typing import BinaryIO, NamedTuple

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp.formats import DEVELOP

# Of damaged files: more directories, entries or values than these are not looked at.
DIRECTORIES, ENTRIES, VALUES = 100, 1000, 16
SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 259, 262
STRIPS, TILES, SUB_DIRECTORIES, DNG_VERSION = 273, 324, 330, 50706
# What only a sensor's samples have: the pattern of their colours; a photometric interpretation
# (colour filter array, linear raw); a compression of Sony, Nikon, Samsung, Kodak or Pentax.
CFA_TAGS = {33421, 33422}
RAW_PHOTOMETRICS = {32803, 34892}
RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 65000, 65535}
# Type of a field that holds integers -> struct's letter: bytes, shorts, longs, directories.
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
Directory = dict[int, tuple[int, ...]]  # tag -> its first values; () where they are no integers


class Pages(NamedTuple):
    """Attributes:
    first: the number of the page that holds the picture, from 0 on.
    several: whether other pages hold other pictures; smaller copies of the first do not count.
    """

    first: int
    several: bool


def of_tiff(stream: BinaryIO, name: str) -> Pages:
    """Which page of a TIFF file is its picture.

    Args:
      name: what messages call the file.

    Raises:
      ImageError: E_UNSUPPORTED, it is a camera's raw file, or only a thumbnail can be reached.
    """
    chain, below = _directories(stream)
    every = chain + below
    if any(map(_is_raw, every)):
        kind = "DNG" if any(DNG_VERSION in d for d in every) else "TIFF with a sensor's samples"
        raise ImageError(
            "E_UNSUPPORTED", f"{name}: is camera raw ({kind}), which is not read; {DEVELOP}"
        )
    whole = [i for i, d in enumerate(chain) if not _is_reduced(d) and (i == 0 or _has_pixels(d))]
    first = whole[0] if whole else 0
    size = _size(chain[first]) if chain else (0, 0)
    largest = max((_size(d) for d in below if not _is_mask(d)), key=_area, default=(0, 0))
    if _area(largest) > _area(size):
        raise ImageError(
            "E_UNSUPPORTED",
            f"{name}: its first page is a thumbnail of {size[0]} x {size[1]}, its picture of"
            f" {largest[0]} x {largest[1]} is in a sub-directory; export it as PNG",
        )
    return Pages(first, any(not _is_halved(_size(chain[i]), size) for i in whole[1:]))


def _is_raw(d: Directory) -> bool:
    return bool(
        DNG_VERSION in d
        or CFA_TAGS & d.keys()
        or RAW_PHOTOMETRICS & set(d.get(PHOTOMETRIC, ()))
        or RAW_COMPRESSIONS & set(d.get(COMPRESSION, ()))
    )


def _is_reduced(d: Directory) -> bool:
    return bool(_value(d, SUBFILE) & 1) or _value(d, OLD_SUBFILE) == 2 or _is_mask(d)


def _is_mask(d: Directory) -> bool:
    return bool(_value(d, SUBFILE) & 4) or _value(d, PHOTOMETRIC) == 4


def _has_pixels(d: Directory) -> bool:
    """Cameras put EXIF's thumbnail, a JPEG with tags of its own, where a second page would be."""
    return bool({STRIPS, TILES} & d.keys())


def _is_halved(size: tuple[int, int], of: tuple[int, int]) -> bool:
    """Whether it is a step of a pyramid: each side halved as often, rounded up or down."""
    return any(
        all(side in (whole >> n, -(-whole >> n)) for side, whole in zip(size, of, strict=True))
        for n in range(1, 16)
    )


def _size(d: Directory) -> tuple[int, int]:
    return _value(d, WIDTH), _value(d, HEIGHT)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _value(d: Directory, tag: int) -> int:
    return (*d.get(tag, ()), 0)[0]


def _directories(stream: BinaryIO) -> tuple[list[Directory], list[Directory]]:
    """The directories in their chain, and those below them; of a damaged file, what can be read."""
    stream.seek(0)
    head = stream.read(16)
    order, big = "<" if head[:2] == b"II" else ">", b"+" in head[2:4]
    chain, below, seen = [], [], set()
    try:
        waiting = [(struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0], 0)]
    except struct.error:
        return [], []
    while waiting and len(seen) < DIRECTORIES:
        place, depth = waiting.pop()
        if not place or place in seen:
            continue
        seen.add(place)
        try:
            directory, following = _directory(stream, place, order, big)
        except (struct.error, OSError, OverflowError):
            continue
        (below if depth else chain).append(directory)
        waiting.append((following, depth))
        if depth < 3:  # a raw file's sub-directories have none; of a damaged file, no deeper
            waiting += [(p, depth + 1) for p in directory.get(SUB_DIRECTORIES, ())]
    return chain, below


def _directory(stream: BinaryIO, place: int, order: str, big: bool) -> tuple[Directory, int]:
    """The directory that starts there, and where the following one does."""
    counter, entry, room = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
    stream.seek(place)
    (count,) = struct.unpack(order + counter, stream.read(struct.calcsize(order + counter)))
    length = struct.calcsize(order + entry)
    data = stream.read(min(count, ENTRIES) * length + room)
    directory: Directory = {}
    for i in range(min(count, ENTRIES, len(data) // length)):
        tag, type, number, field = struct.unpack_from(order + entry, data, i * length)
        values = f"{order}{min(number, VALUES)}{INTEGERS.get(type, 'x')}"
        if type in INTEGERS and number * struct.calcsize(order + INTEGERS[type]) > room:
            stream.seek(struct.unpack(order + ("Q" if big else "I"), field)[0])
            field = stream.read(struct.calcsize(values))
        fits = type in INTEGERS and len(field) >= struct.calcsize(values)
        directory[tag] = struct.unpack_from(values, field) if fits else ()
    end = data[count * length : count * length + room]
    return directory, int.from_bytes(end, "little" if order == "<" else "big")
