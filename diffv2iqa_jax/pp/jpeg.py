"""Damage in JPEG files that libjpeg only warns of, which Pillow does not pass on.

A file that a recovered card or a broken copy has filled up with zeros or garbage decodes without an
error, and so does one with its end put behind a half. What gives it away: markers where none can
be, restarts out of step, and picture data that end before the picture does, or after it. Some
damage in the middle stays unseen: within a step between restarts, within a pass of a progressive
file that does not end early for it, and in arithmetic coding, of which only markers are checked.
"""

import io
import itertools
import re
from typing import NamedTuple, NoReturn

from PIL import Image, ImageChops

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp.opening import open_header

SOI, EOI, SOS, DHT, DRI = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD
HUFFMAN = {0xC0, 0xC1, 0xC2}
PROGRESSIVE = {0xC2, 0xCA}
OTHERS = dict.fromkeys((0xC3, 0xCB), "lossless JPEG") | {0xF7: "JPEG-LS"}
OTHERS |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")
# Some cameras fill picture data up to a multiple of their memory's width; no picture needs more.
SLACK = 64
STEP = 4  # bytes of it that the decoder gets at a time
# libjpeg reads 8 bytes ahead. Twice as many and it has all it can want of a whole picture.
AHEAD = b"\0" * 16
# No block's coefficients are so many equal bits; see `_zeros`.
ZEROS = b"\0" * 64
FEW = 32  # coefficients: a code skips 15 at most, so that one or two make a block of these
# Bits of both kinds: what is decoded from them is no flat picture.
FILLING = b"\x5a" * 64
STRIP = 2**22  # pixels compared at a time
# What ends picture data: a marker, but for restarts where there are some. 0xff00 is a byte 0xff.
END = re.compile(rb"\xff[^\0\xff]")
END_OR_RESTART = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")
RESTART = re.compile(rb"\xff([\xd0-\xd7])")


class Component(NamedTuple):
    """Attributes:
    number: what scans call it.
    across, down: how often it is sampled, relative to the others.
    """

    number: int
    across: int
    down: int


class Scan(NamedTuple):
    """A pass over the picture.

    Attributes:
      start, end: where its data are in the file.
      components: numbers of those it holds.
      band: first and last coefficient; high, low: bits known before, and left out.
    """

    start: int
    end: int
    components: tuple[int, ...]
    band: tuple[int, int]
    high: int
    low: int


class Feed:
    """A file for Pillow that tells how much of a JPEG's only scan its decoder wanted.

    The last SLACK bytes of the scan are given in STEPs, then AHEAD, then the end of image.
    """

    def __init__(self, data: bytes, scan: Scan):
        self._data = data[: scan.end] + AHEAD + b"\xff\xd9"
        slack = range(max(scan.start, scan.end - SLACK), scan.end, STEP)
        self._stops = (*slack, scan.end, scan.end + len(AHEAD))
        self._end = scan.end
        self._at = self._reached = 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else self._at + size
        end = min([end, *(stop for stop in self._stops if stop > self._at)])
        piece = self._data[self._at : end]
        self._at += len(piece)
        self._reached = max(self._reached, self._at)
        return piece

    def seek(self, place: int, whence: int = 0) -> int:
        self._at = place + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    @property
    def left(self) -> bool:
        """The picture was complete before the last SLACK bytes, or before others than filling."""
        rest = self._data[self._reached : self._end]
        return self._reached <= self._stops[0] or bool(rest.strip(b"\0\xff"))

    @property
    def lacking(self) -> bool:
        """The picture was not complete when its data were used up."""
        return self._reached > self._stops[-1]


class File:
    """A JPEG file whose structure is sound.

    Attributes:
      stream: what the decoder is to read.
      block: how many bytes of it at a time; None, as it likes.

    Raises:
      ImageError: E_TRUNCATED, it ends early; E_DECODE, it is damaged; E_UNSUPPORTED, it is of a
        process that we do not decode.
    """

    def __init__(self, data: bytes, name: str):
        self.name, self._data = name, data
        self._process = self._interval = 0
        self._size, self._components = (0, 0), ()
        self._symbols: dict[int, bytes] = {}  # of Huffman tables, in the order of their codes
        self.scans: list[Scan] = []
        self._walk()
        self._check_script()
        self._one = len(self.scans) == 1 and self._process in (0xC0, 0xC1)
        self.stream = Feed(data, self.scans[0]) if self._one else io.BytesIO(data)
        # libjpeg cannot wait for more data in the middle of arithmetic coding.
        self.block = None if self._process in HUFFMAN else len(data)

    def check(self, image: Image.Image) -> None:
        """Compares what was decoded with what there is; call it once the pixels are loaded.

        Raises:
          ImageError: E_TRUNCATED or E_DECODE, pixels are made up.
        """
        if self._one:
            if self.stream.left:
                self._damaged("data are left over where the picture ends")
            if self.stream.lacking:
                self._cut()
        elif self._process in HUFFMAN:
            # What is lacking at the end of a scan, libjpeg takes for nothing, or from FILLING.
            parts, last = [], 0
            for scan in self.scans:
                parts += [self._data[last : scan.end], FILLING]
                last = scan.end
            filled = io.BytesIO(b"".join([*parts, self._data[last:]]))
            with open_header(filled, "JPEG", self.name) as other:
                other.load()
                if not _equal(image, other):
                    self._cut()

    def _damaged(self, what: str) -> NoReturn:
        raise ImageError("E_DECODE", f"{self.name}: damaged JPEG ({what}); copy it again")

    def _cut(self) -> NoReturn:
        raise ImageError("E_TRUNCATED", f"{self.name}: ends early; copy it again")

    def _walk(self) -> None:
        """Reads the segments, up to the end of the image; what follows that is not ours."""
        at, data = 2, self._data
        while True:
            at, marker = self._marker(at)
            if marker == EOI:
                return
            if marker < 0xC0 or 0xD0 <= marker <= SOI:
                self._damaged(f"marker 0xff{marker:02x} out of place")
            length = int.from_bytes(data[at : at + 2], "big")
            segment = data[at + 2 : at + length]
            if len(segment) != length - 2:
                self._cut()
            self._segment(marker, segment)
            at += length
            if marker == SOS:
                at = self._scan(at, segment)

    def _marker(self, at: int) -> tuple[int, int]:
        """The next marker, and where it ends."""
        while self._data[at : at + 2] == b"\xff\xff":
            at += 1
        pair = self._data[at : at + 2]
        if len(pair) < 2:
            self._cut()
        if pair[0] != 0xFF:
            # Zeros to the end are what a copy that failed leaves of a file.
            self._damaged("no marker where one must be") if pair.strip(b"\0") else self._cut()
        return at + 2, pair[1]

    def _segment(self, marker: int, segment: bytes) -> None:
        frame = 0xC0 <= marker <= 0xCF and marker not in (DHT, 0xC8, 0xCC) or marker == 0xF7
        if frame:
            if self._process:
                self._damaged("two frames")
            what = OTHERS.get(marker) or (segment[:1] != b"\x08" and f"JPEG of {segment[0]} bits")
            if not what and segment[1:3] == b"\0\0":
                what = "JPEG whose height stands behind its data (DNL)"
            if what:
                raise ImageError("E_UNSUPPORTED", f"{self.name}: is {what}; convert it to PNG")
            self._process = marker
            self._size = tuple(int.from_bytes(segment[i : i + 2], "big") for i in (3, 1))
            of = [segment[i : i + 3] for i in range(6, len(segment) - 2, 3)]
            self._components = tuple(Component(c[0], c[1] >> 4 or 1, c[1] & 15 or 1) for c in of)
        elif marker == DRI:
            self._interval = int.from_bytes(segment[:2], "big")
        elif marker == DHT:
            at = 0
            while at + 17 < len(segment):
                end = at + 17 + sum(segment[at + 1 : at + 17])
                self._symbols[segment[at]] = segment[at + 17 : end]
                at = end

    def _scan(self, start: int, header: bytes) -> int:
        """Notes a scan and checks its data; returns where they end."""
        stop = (END_OR_RESTART if self._interval else END).search(self._data, start)
        if not stop or not self._process:
            self._cut()
        end = stop.start()
        while self._data[end - 1 : end] == b"\xff":  # any number of them may precede a marker
            end -= 1
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count or not count:
            self._damaged("a scan's header")
        numbers, tables = header[1 : 1 + 2 * count : 2], header[2 : 2 + 2 * count : 2]
        low, high, bits = header[1 + 2 * count : 4 + 2 * count]
        scan = Scan(start, end, tuple(numbers), (low, high), bits >> 4, bits & 15)
        self.scans.append(scan)
        if self._interval:
            self._check_restarts(scan)
        if self._process in HUFFMAN and self._zeros(scan, tables[0] & 15):
            self._damaged("zeros among its data")
        return end

    def _check_restarts(self, scan: Scan) -> None:
        width, height = self._size
        across = max((c.across for c in self._components), default=1)
        down = max((c.down for c in self._components), default=1)
        if len(scan.components) == 1:  # then one of its blocks is a unit
            for c in self._components:
                if c.number == scan.components[0]:
                    width, height = -(-width * c.across // across), -(-height * c.down // down)
            across = down = 1
        units = -(-width // (8 * across)) * -(-height // (8 * down))
        steps = b"".join(RESTART.findall(self._data, scan.start, scan.end))
        # Some encoders put one behind the last unit too.
        wanted = -(-units // self._interval) - 1, units // self._interval
        cycle = bytes(range(0xD0, 0xD8)) * (len(steps) // 8 + 1)
        if steps != cycle[: len(steps)] or len(steps) > max(wanted):
            self._damaged("its restarts are out of step")
        if len(steps) not in wanted:
            self._cut()

    def _zeros(self, scan: Scan, table: int) -> bool:
        """Whether a scan holds zeros that no encoder wrote.

        Where the code of zeros does not mean "the rest of the block is 0", they would be the same
        coefficient again and again, through several blocks. Passes that refine have other codes.
        In one over a few coefficients, such blocks are those of any pattern that repeats.
        """
        progressive = self._process in PROGRESSIVE
        few = scan.band[0] == 0 or scan.band[1] - scan.band[0] < FEW
        if scan.high or (progressive and few):
            return False
        symbols = self._symbols.get(0x10 | table, b"\0")
        # An encoder that has symbols for several such blocks does not write that for one twice.
        several = progressive and any(s and s < 0xF0 and not s & 15 for s in symbols)
        if symbols[:1] == b"\0" and not several:
            return False
        return self._data.find(ZEROS, scan.start, scan.end) >= 0

    def _check_script(self) -> None:
        """Whether the scans hold all bits of all coefficients of all components."""
        numbers = {c.number for c in self._components}
        if not self.scans or not numbers <= {n for s in self.scans for n in s.components}:
            self._cut()
        if self._process not in PROGRESSIVE:
            return
        lacking = dict.fromkeys(((n, i) for n in numbers for i in range(64)), 1)
        for scan in self.scans:
            for place in itertools.product(scan.components, range(scan.band[0], scan.band[1] + 1)):
                lacking[place] = scan.low
        if any(lacking.values()):
            self._cut()


def _equal(a: Image.Image, b: Image.Image) -> bool:
    """Whether all pixels are, compared strip by strip."""
    step = max(1, STRIP // max(a.width, 1))
    boxes = [(0, y, a.width, min(y + step, a.height)) for y in range(0, a.height, step)]
    return all(
        ImageChops.difference(a.crop(box), b.crop(box)).getbbox(alpha_only=False) is None
        for box in boxes
    )
