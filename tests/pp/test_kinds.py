"""Kinds of picture files: which are read, refused by what name, counted in a folder."""

import io
import os
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, formats, jxl
from diffv2iqa_jax.pp.decode import Reading
from tests.pictures import display_p3, encoded, picture, smooth, turned

ROOT = pathlib.Path(__file__).parents[2]
CFA, LINEAR_RAW = 32803, 34892
DNG_VERSION = (50706, "B", 4, bytes([1, 4, 0, 0]), True)
CFA_TAGS = [
    (33421, "H", 2, (2, 2), True),
    (33422, "B", 4, bytes([0, 1, 1, 2]), True),
]
MAKE = (271, "s", 0, "NIKON CORPORATION", True)
SENSOR = picture(64, 80, 1, dtype=np.uint16)[..., 0]
THUMBNAIL = smooth(16, 20)


def refused(source, **how) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode.read(source, Reading(**how))
    assert "\n" not in str(caught.value)
    return caught.value


def tiff(*pages, big=False, byteorder="<") -> bytes:
    """A TIFF file; each page is pixels and settings of tifffile."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=big, byteorder=byteorder) as file:
        for pixels, settings in pages:
            grey = "rgb" if pixels.ndim == 3 else "minisblack"
            file.write(pixels, **{"photometric": grey, "metadata": None} | settings)
    return stream.getvalue()


def box(*brands: bytes) -> bytes:
    """How an ISO base media file of these brands starts."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(400)


# Camera raw


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "pages",
    [
        # A DNG: its thumbnail first, what the sensor saw below it.
        [
            (THUMBNAIL, dict(subifds=1, subfiletype=1, extratags=[DNG_VERSION])),
            (SENSOR, dict(photometric=CFA, extratags=CFA_TAGS)),
        ],
        # Nikon's and Sony's: no tag of a DNG.
        [
            (THUMBNAIL, dict(subifds=2, subfiletype=1, extratags=[MAKE])),
            (smooth(32, 40), dict(subfiletype=1)),
            (SENSOR, dict(photometric=CFA)),
        ],
        # Pentax's: the sensor first.
        [(SENSOR, dict(photometric=CFA, extratags=[MAKE])), (THUMBNAIL, {})],
        # Linear raw, as phones write; and a pattern of colours alone.
        [(THUMBNAIL, dict(subifds=1)), (picture(64, 80), dict(photometric=LINEAR_RAW))],
        [(SENSOR, dict(extratags=CFA_TAGS))],
    ],
    ids=["dng", "nef", "pef", "linear", "pattern"],
)
def test_camera_raw_is_refused_by_its_tags_whatever_its_name(pages, big, byteorder, tmp_path):
    data = tiff(*pages, big=big, byteorder=byteorder)
    for name in ("a.dng", "a.tif", "a.nef", "a.jpg", "a"):
        (tmp_path / name).write_bytes(data)
        error = refused(tmp_path / name)
        assert error.code == "E_UNSUPPORTED" and "is camera raw" in error.reason
        assert "develop it" in error.reason
    # Pillow opens the thumbnail; it takes a big-endian BigTIFF for a small one, and opens nothing.
    if pages[0][1].get("photometric") != CFA and (byteorder == "<" or not big):
        assert "camera raw" in refused(Image.open(io.BytesIO(data))).reason


@pytest.mark.parametrize(
    "head, name",
    [
        (b"II*\0\x10\0\0\0CR\2\0", "Canon CR2"),
        (box(b"crx ", b"crx ", b"isom"), "Canon CR3"),
        (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm"),
        (b"IIRO\x08\0\0\0", "Olympus"),
        (b"IIRS\x08\0\0\0", "Olympus"),
        (b"MMOR\0\0\0\x08", "Olympus"),
        (b"IIU\0\x18\0\0\0", "Panasonic"),
        (b"FOVb\0\0\2\0", "Sigma"),
        (b"\0MRM\0\0\0\0", "Minolta"),
        (b"II*\0\x08\0\0\0IIII", "Phase One"),
        (b"MM\0*\0\0\0\x08MMMM", "Phase One"),
    ],
)
def test_camera_raw_of_other_containers_is_named(head, name):
    error = refused(head + bytes(2000))
    assert error.code == "E_UNSUPPORTED" and f"camera raw ({name})" in error.reason


def test_a_cameras_tiff_is_a_picture():
    """With its maker's name, a thumbnail below and EXIF's thumbnail as a second page."""
    x = smooth(64, 80)
    for pages in (
        [(x, dict(extratags=[MAKE]))],
        [(x, dict(subifds=1, extratags=[MAKE])), (THUMBNAIL, dict(subfiletype=1))],
        [(x, dict(extratags=[MAKE])), (THUMBNAIL, dict(subfiletype=1))],
    ):
        found = decode.read(tiff(*pages), Reading(strict=True))
        np.testing.assert_array_equal(found.image_HWC, x)
        assert found.flags == ()


def test_no_thumbnail_is_taken_for_the_picture():
    x = picture(64, 80)
    following = tiff((THUMBNAIL, dict(subfiletype=1)), (x, {}))
    found = decode.read(following, Reading(strict=True))
    np.testing.assert_array_equal(found.image_HWC, x)
    below = tiff((THUMBNAIL, dict(subifds=1, subfiletype=1)), (x, {}))
    error = refused(below)
    assert error.code == "E_UNSUPPORTED" and "thumbnail of 20 x 16" in error.reason


# Frames


def test_steps_of_a_pyramid_are_no_frames():
    x = smooth(65, 80)
    marked = tiff((x, {}), (x[::3, ::3], dict(subfiletype=1)))
    unmarked = tiff((x, {}), (x[::2, ::2], {}), (x[:-1:4, ::4], {}))
    below = tiff((x, dict(subifds=1)), (x[::2, ::2], dict(subfiletype=1)))
    mask = tiff((x, {}), (x[..., 0] > 99, dict(subfiletype=4)))
    for data in (marked, unmarked, below, mask):
        found = decode.read(data, Reading(strict=True))
        np.testing.assert_array_equal(found.image_HWC, x)
        assert found.flags == ()
    pages = tiff((x, {}), (x[:, ::-1], {}))
    assert decode.read(pages).flags == ("multiframe",)
    assert refused(pages, strict=True).code == "E_MULTIFRAME"


def test_a_gain_map_or_a_preview_behind_a_jpeg_is_no_frame():
    x, small = Image.fromarray(smooth(64, 80)), Image.fromarray(smooth(16, 20))
    plain = decode.read(encoded(x, "JPEG", quality=95)).image_HWC
    xmp = b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    for settings in ({}, {"xmp": xmp}):
        data = encoded(x, "MPO", save_all=True, append_images=[small], quality=95, **settings)
        found = decode.read(data, Reading(strict=True))
        np.testing.assert_array_equal(found.image_HWC, plain)
        assert found.flags == ()


def test_of_a_stereo_pair_the_first_counts():
    """A camera marks both as parts of one: kind 0x020002, which Pillow does not write."""
    left, right = smooth(64, 80), smooth(64, 80)[:, ::-1]
    stream = encoded(left, "MPO", save_all=True, append_images=[Image.fromarray(right)])
    data = bytearray(stream)
    # An entry: kind, size, offset (the first's is 0), dependencies.
    (entries,) = re.finditer(rb"\0\0\x03\0....\0{8}\0\0\0\0", stream, re.DOTALL)
    for place in (entries.start(), entries.start() + 16):
        data[place : place + 4] = struct.pack("<I", 0x020002)
    found = decode.read(bytes(data))
    assert found.flags == ("multiframe",)
    assert np.abs(found.image_HWC.astype(int) - left).mean() < 5
    assert refused(bytes(data), strict=True).code == "E_MULTIFRAME"


def test_a_film_behind_a_jpeg_is_no_damage():
    data = encoded(smooth(64, 80), "JPEG", quality=95)
    moving = data + box(b"mp42", b"isom") + bytes(3000)
    found = decode.read(moving, Reading(strict=True))
    np.testing.assert_array_equal(found.image_HWC, decode.read(data).image_HWC)
    assert found.flags == ()


# One list


@pytest.mark.parametrize(
    "head, kind",
    [
        (box(b"avif", b"mif1", b"miaf"), "AVIF"),
        (box(b"avis", b"msf1", b"avif"), "AVIF"),
        (box(b"mif1", b"avif", b"miaf"), "AVIF"),
        *((box(brand, b"mif1"), "HEIC") for brand in (b"heic", b"heix", b"heim", b"heis")),
        *((box(brand, b"msf1"), "HEIC") for brand in (b"hevc", b"hevx", b"hevm", b"hevs")),
        (box(b"mif1", b"heic"), "HEIC"),
        (box(b"msf1", b"hevc"), "HEIC"),
        (box(b"mif1", b"jpeg"), "HEIF of another codec"),
        (box(b"avci", b"mif1"), "HEIF of another codec"),
        (box(b"qt  "), "film"),
        (b"\xff\xd8\xff\xf7", "JPEG-LS"),
        (b"\0\0\1\0\1\0\x10\x10", "icon"),
        (b"\n\5\1\x08\0\0\0\0", "PCX"),
        (b"PF\n8 8\n-1.0\n", "PFM of colours"),
        (b"P7\nWIDTH 8", "PAM"),
        (b"qoif\0\0\0\x08", "QOI"),
        (b"\x76\x2f\x31\x01\2\0\0\0", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        ", "AppleDouble"),
        (b"PK\3\4\x14\0", "archive"),
    ],
)
def test_kinds_are_told_by_their_first_bytes(head, kind):
    assert formats.kind_of(head.ljust(200, b"\1")) == kind
    if kind not in formats.READ:
        error = refused(head.ljust(200, b"\1"))
        assert error.code == "E_UNSUPPORTED" and kind in error.reason and ";" in error.reason


def test_tga_is_told_by_its_header():
    for mode in ("RGB", "RGBA", "L", "P"):
        data = encoded(Image.fromarray(smooth()).convert(mode), "TGA")
        assert "is TGA" in refused(data).reason
    assert refused(bytes(500)).code == "E_DECODE"


@pytest.mark.parametrize(
    "format, mode, name",
    [
        ("BLP", "P", "BLP"),
        ("DDS", "RGB", "DDS"),
        ("DIB", "RGB", "BMP without its file header"),
        ("DIB", "1", "BMP without its file header"),
        ("MSP", "1", "Microsoft Paint"),
        ("PCX", "L", "PCX"),
        ("SGI", "RGB", "SGI"),
    ],
)
def test_what_pillow_writes_and_we_do_not_read_is_named(format, mode, name):
    error = refused(encoded(Image.fromarray(smooth()).convert(mode), format))
    assert error.code == "E_UNSUPPORTED" and f"is {name}, which is not read" in error.reason


@pytest.mark.parametrize(
    "head, name",
    [
        (b"\x8aMNG\r\n\x1a\n", "MNG"),
        (b"\x8bJNG\r\n\x1a\n", "MNG"),
        (b"Image type: RGB image\r\n", "IFUNC IM"),
        (b"id=ImageMagick  version=1.0\n", "MIFF"),
        (b"\0\0\0\x65\0\0\0\x07\0\0\0\x02\0\0\0\x18", "XWD"),
        (b"FORM\0\2\x09\xb4ILBMBMHD", "ILBM"),
        (b"\x97JB2\r\n\x1a\n", "JBIG2"),
    ],
)
def test_older_kinds_are_named(head, name):
    assert f"is {name}, which is not read; convert it" in refused(head + bytes(200)).reason


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "PPM"])
def test_what_pillow_decodes_by_itself_is_read(format):
    x = smooth(64, 80)
    settings = dict(quality=95) if format == "AVIF" else {}
    found = decode.read(encoded(x, format, **settings))
    assert np.abs(found.image_HWC.astype(int) - x).mean() < 3


@pytest.mark.parametrize("head", [box(b"heic", b"mif1"), b"\xff\x0a\xfa"], ids=["heic", "jxl"])
def test_a_plug_in_that_is_not_there_is_named(head, monkeypatch):
    for module in formats.PLUGINS.values():
        monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    error = refused(head + bytes(200))
    assert error.code == "E_UNSUPPORTED" and "diffv2iqa_jax[formats]" in error.reason


@pytest.mark.parametrize("format, module", formats.PLUGINS.items())
def test_what_a_plug_in_reads_is_read(format, module):
    pytest.importorskip(module)
    x = smooth(64, 80)
    name = formats.DECODERS[format]
    if format == "HEIC":
        __import__(module).register_heif_opener()
    found = decode.read(encoded(x, name, quality=95), Reading(strict=True))
    assert found.flags == () and np.abs(found.image_HWC.astype(int) - x).mean() < 3
    assert refused(encoded(x, name), max_pixels=100).code == "E_TOO_LARGE"


@pytest.mark.parametrize(
    "name",
    "a.JPG a.jfif a.jif a.pjpeg a.ppm a.pgm a.jp2 a.avif a.HEIC a.jxl a.dng a.NEF a.tga".split(),
)
def test_a_folders_pictures_are_told_by_their_endings(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert formats.is_picture(tmp_path / name)
    assert formats.is_picture(tmp_path / "gone" / name)


def test_a_folders_pictures_without_a_known_ending_are_told_by_their_bytes(tmp_path):
    for name, data, wanted in (
        ("IMG_1", encoded(smooth(), "JPEG"), True),
        ("b.bin", encoded(smooth(), "PNG"), True),
        ("c.jpg_large", encoded(smooth(), "WEBP"), True),
        ("d", b"FUJIFILMCCD-RAW 0201", True),
        ("e.txt", b"P6 is the better camera", True),  # its first bytes say so; its row says no
        ("f.txt", b"BMW, Fiat\n" * 9, False),
        ("g.csv", b"image,mos\n", False),
        ("h.pdf", b"%PDF-1.7", False),
        ("i.mp4", box(b"mp42"), False),
        ("j", b"", False),
    ):
        (tmp_path / name).write_bytes(data)
        assert formats.is_picture(tmp_path / name) is wanted, name
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder", "gone"):
        assert not formats.is_picture(tmp_path / name)


def test_endings_belong_to_one_kind_each():
    every = [e for kind in formats.KINDS.values() for e in kind.endings.split()]
    assert len(every) == len(set(every)) and all(e == e.lower() and e[0] == "." for e in every)
    assert set(formats.endings()) < set(every)


def test_the_page_says_of_every_kind_what_happens_to_it():
    page = (ROOT / "diffv2iqa_jax" / "scoring" / "README.md").read_text()
    section = page.split("## Kinds of files")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()]
    told = {row[0]: (row[1].replace("`", ""), row[2]) for row in rows if len(row) == 3}
    for heading in ("read", "refused", "---"):
        del told[heading]
    assert told.keys() == formats.KINDS.keys()
    for name, kind in formats.KINDS.items():
        assert told[name][0] == kind.endings
        assert not kind.advice or told[name][1] == kind.advice
    assert list(told)[: len(formats.READ)] == list(formats.READ)


def test_training_and_prepare_read_what_scoring_reads():
    from diffv2iqa_jax.data import shelf

    assert Reading().formats == decode.TO_STORE.formats == shelf.READING.formats == formats.READ


def jpeg_xl(width: int, height: int, *, animated: bool = False, boxed: bool = False) -> bytes:
    """How a JPEG XL file of that size starts; ISO/IEC 18181-1, bits from the lowest on."""
    bits = "0"
    for side, more in ((height, "000"), (width, "")):  # 000: the width is told too
        number = next(i for i, room in enumerate((9, 13, 18, 30)) if side <= 1 << room)
        room = (9, 13, 18, 30)[number]
        bits += f"{number:02b}"[::-1] + f"{side - 1:0{room}b}"[::-1] + more
    # Metadata: not the default, more fields, orientation, no size of its own, no preview.
    bits += "01" + "000" + "00" + str(int(animated))
    data = b"\xff\x0a" + int(bits[::-1], 2).to_bytes(40, "little")
    if not boxed:
        return data
    brand = b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    return b"\0\0\0\x0cJXL \r\n\x87\n" + brand + b"\0\0\0\x34jxlp\0\0\0\0" + data


@pytest.mark.parametrize("boxed", [False, True])
def test_a_jpeg_xl_is_refused_by_its_header_before_its_decoder_runs(boxed):
    for width, height in ((1, 1), (512, 513), (8192, 8193), (16320, 12240)):
        data = jpeg_xl(width, height, boxed=boxed)
        assert jxl.header(io.BytesIO(data)) == ((width, height), False, 8)
    error = refused(data)
    assert error.code == "E_TOO_LARGE" and "16320 x 12240" in error.reason
    moving = refused(jpeg_xl(64, 48, animated=True, boxed=boxed))
    assert moving.code == "E_UNSUPPORTED" and "animated" in moving.reason


# Sizes


def test_a_larger_cap_is_obeyed_and_named():
    """Also beyond what Pillow allows by itself."""
    side = 13_400  # squared, more than the default
    header = b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, side, side, 1, 24, *[0] * 6)
    error = refused(header)
    assert error.code == "E_TOO_LARGE" and f"--max_pixels {side * side}" in error.reason
    assert refused(header, max_pixels=side * side).code == "E_TRUNCATED"


MEMORY = """
import resource, sys
from diffv2iqa_jax.pp import decode, ops_numpy
decode.STRIP, ops_numpy.BLOCK = 2**18, 2**18  # as small beside 12 megapixels as they are beside 800
scale = ops_numpy.parse("resize(32)")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
scale(decode.read(sys.argv[2]).image_HWC, 0)
before = peak()
image_HWC, flags = decode.read(sys.argv[1], decode.Reading(max_pixels=10**8))
assert flags == ("icc", "rotated"), flags
(small,) = scale(image_HWC, 0)
assert abs(small.image_HWC.mean() - image_HWC[::50, ::50].mean()) < 1
print((peak() - before) / image_HWC[..., 0].size)
"""


def test_a_large_picture_takes_ten_bytes_a_pixel(tmp_path):
    """Decoded, converted, turned and scaled: 2 GB for 200 megapixels."""
    settings = dict(exif=turned(6), icc_profile=display_p3())
    x = Image.fromarray(smooth()).resize((4000, 3000))
    (tmp_path / "large.jpg").write_bytes(encoded(x, "JPEG", **settings))
    (tmp_path / "small.jpg").write_bytes(encoded(smooth(), "JPEG", **settings))
    paths = [str(tmp_path / name) for name in ("large.jpg", "small.jpg")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 10
