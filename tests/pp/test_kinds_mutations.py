"""Damaged files of every kind: each is read or refused, and nothing crashes, hangs or grows.

    python -m tests.pp.test_kinds_mutations 2000

prints how many there were of each code, the slowest and the largest.
"""

import collections
import io
import json
import resource
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import tifffile
from PIL import Image

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, formats
from tests.pictures import display_p3, encoded, picture, smooth, turned

SECONDS = 5  # of the processor
PIXELS = 10**6  # larger ones are refused: a header may announce anything


def tiff(x, **settings) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, x, **{"photometric": "rgb", "metadata": None} | settings)
    return stream.getvalue()


def whole() -> dict[str, bytes]:
    """A file of each kind and form."""
    x, image, deep = smooth(48, 64), Image.fromarray(smooth(48, 64)), picture(24, 32, dtype="u2")

    def frames(format: str) -> bytes:  # of an image of its own: Pillow leaves settings in it
        return encoded(x, format, save_all=True, append_images=[Image.fromarray(picture(48, 64))])

    found = {
        "JPEG": encoded(x, "JPEG", exif=turned(6), icc_profile=display_p3()),
        "JPEG progressive": encoded(x, "JPEG", progressive=True),
        "JPEG restarts": encoded(picture(48, 64), "JPEG", restart_marker_blocks=3),
        "JPEG CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "JPEG MPO": frames("MPO"),
        "PNG": encoded(x, "PNG", exif=turned(3)),
        "PNG palette": encoded(image.quantize(16), "PNG", transparency=0),
        "PNG animated": frames("PNG"),
        "WEBP": encoded(x, "WEBP"),
        "WEBP lossless": encoded(np.dstack([x, x[..., 0]]), "WEBP", lossless=True),
        "WEBP animated": frames("WEBP"),
        "GIF": frames("GIF"),
        "BMP": encoded(x, "BMP"),
        "BMP palette": encoded(image.quantize(16), "BMP"),
        "TIFF": encoded(x, "TIFF", compression="tiff_lzw"),
        "TIFF JPEG": encoded(x, "TIFF", compression="jpeg"),
        "TIFF pages": frames("TIFF"),
        "TIFF tiles": tiff(x, tile=(16, 16), compression="zlib", bigtiff=True),
        "TIFF deep": tiff(deep, compression="zlib", predictor=True),
        "TIFF planar": tiff(deep.transpose(2, 0, 1), planarconfig="separate", byteorder=">"),
        "TIFF float": tiff((x / 255).astype("f4")),
        "TIFF raw": tiff(deep[..., 0], photometric=32803),
        "PPM": encoded(x, "PPM"),
        "JPEG2000": encoded(x, "JPEG2000"),
        "AVIF": encoded(x, "AVIF"),
        "AVIF sequence": frames("AVIF"),
        "ICO": encoded(x, "ICO"),
        "TGA": encoded(x, "TGA"),
        "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500),
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 9,
    }
    for format, module in formats.PLUGINS.items():
        try:
            plugin = __import__(module)
        except ImportError:
            continue
        if format == "HEIC":
            plugin.register_heif_opener()
        found[format] = encoded(x, formats.DECODERS[format])
    return found


def mutated(data: bytes, g: np.random.Generator) -> bytes:
    """The file with one kind of damage, anywhere or near its start, where its structure is."""
    at = int(g.integers(len(data) if g.random() < 0.5 else min(len(data), 200)))
    length = int(g.integers(1, max(2, len(data) // 4)))
    kind = g.integers(7)
    if kind == 0:  # a few bytes
        out = bytearray(data)
        for _ in range(g.integers(1, 9)):
            place = at if g.random() < 0.3 else int(g.integers(len(data)))
            out[place] = g.integers(256)
        return bytes(out)
    if kind == 1:  # one bit
        return data[:at] + bytes([data[at] ^ 1 << g.integers(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at]
    if kind == 3:  # a lost sector
        return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]
    if kind == 4:
        return data[:at] + g.bytes(length) + data[at + length :]
    if kind == 5:  # a part is lacking, or there twice
        return (
            data[:at] + data[at + length :] if g.random() < 0.5 else data[: at + length] + data[at:]
        )
    extremes = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
    return data[:at] + extremes[g.integers(4)] + data[at + 4 :]


def read_all(start: int, count: int) -> None:
    """Prints a line for each file that it starts with, and what came of it; a hang ends it."""
    warnings.simplefilter("ignore")
    files = list(whole().items())
    for number in range(start, count):
        print(number, flush=True)
        kind, data = files[number % len(files)]
        data = mutated(data, np.random.default_rng(number))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        before = time.process_time()
        try:
            flags = decode.read(data, decode.Reading(max_pixels=PIXELS)).flags
            code = "read" + " multiframe" * ("multiframe" in flags)
        except ImageError as error:
            code = error.code
            assert "\n" not in str(error) and " at 0x" not in str(error), error
        seconds = time.process_time() - before
        print(json.dumps([kind, code, seconds, peak()]), flush=True)


def peak() -> int:
    """MiB that this process held at most, without what its parent held when it started it."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run(count: int) -> list[tuple]:
    """(kind, code, seconds, MiB of the process) of each; code is a signal's where it crashed."""
    found, start = [], 0
    while start < count:
        command = [sys.executable, "-m", __spec__.name, str(start), str(count)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        found += [tuple(json.loads(line)) for line in lines if line.startswith("[")]
        if done.returncode == 0:
            break
        assert lines, done.stderr
        start = int([line for line in lines if not line.startswith("[")][-1]) + 1
        found.append((f"file {start - 1}", f"{done.returncode} {done.stderr[-300:]}", 0.0, 0))
    return found


def test_damaged_files_of_every_kind_are_read_or_refused():
    found = run(200)
    assert len(found) == 200
    codes = {code for _, code, _, _ in found}
    known = {"read", "read multiframe", "E_DECODE", "E_TRUNCATED", "E_UNSUPPORTED", "E_TOO_LARGE"}
    assert codes <= known and {"read", "E_DECODE", "E_TRUNCATED"} <= codes, codes
    assert max(seconds for _, _, seconds, _ in found) < SECONDS
    assert max(memory for *_, memory in found) < 1000


if __name__ == "__main__":
    if len(sys.argv) == 3:
        read_all(int(sys.argv[1]), int(sys.argv[2]))
    else:
        rows = run(int(sys.argv[1]))
        print(collections.Counter(code for _, code, _, _ in rows))
        for row in sorted(rows, key=lambda row: -row[2])[:3]:
            print(row)
        print("MiB", max(memory for *_, memory in rows))
