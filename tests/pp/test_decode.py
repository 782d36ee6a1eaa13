"""Pictures from anywhere: what is read, how, and which code refuses the rest."""

import io
import os
import resource
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode
from diffv2iqa_jax.pp.decode import Reading
from tests.pictures import FORMATS, display_p3, encoded, linear, picture, smooth, turned


def read(source, **how):
    found = decode.read(source, Reading(**how))
    assert found.image_HWC.dtype == np.uint8 and found.image_HWC.flags.c_contiguous
    return found


def refused(source, **how) -> str:
    with pytest.raises(ImageError) as caught:
        read(source, **how)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"[{caught.value.code}]")
    return caught.value.code


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_their_pixels(format):
    settings = {"lossless": True} if format == "WEBP" else {}
    found = read(encoded(picture(), format, **settings))
    np.testing.assert_array_equal(found.image_HWC, picture())
    assert found.flags == ()


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_what_its_bytes_say(format, tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_bytes(encoded(smooth(), format))
    assert np.abs(read(path).image_HWC.astype(int) - smooth()).mean() < 20
    assert read(str(path)).flags == read(encoded(smooth(), format)).flags


# B1 - B4


def test_a_png_whose_pixels_fail_their_checksum_is_damaged():
    """Pillow does not compare it, and may take a rest of zeros for pixels."""
    data = encoded(picture(128, 128) // 40, "PNG")
    assert decode.read(data + bytes(999)).flags == ()
    middle = len(data) // 2
    damaged = data[:middle] + bytes(len(data) - middle)
    Image.open(io.BytesIO(damaged)).load()  # to Pillow, it is whole
    with pytest.raises(ImageError, match="a checksum is wrong.*copy it again") as caught:
        decode.read(damaged)
    assert caught.value.code == "E_DECODE"


def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html><body>404</body></html>")
    assert refused(tmp_path / "none.png") == "E_NOT_FOUND"
    assert refused(tmp_path / "page.jpg" / "x.png") == "E_NOT_FOUND"
    assert refused("nul\0byte.png") == "E_NOT_FOUND"
    assert refused(tmp_path / "empty.jpg") == "E_DECODE"
    assert refused(tmp_path / "page.jpg") == "E_DECODE"
    assert refused(tmp_path / ("x" * 300)) == "E_UNREADABLE"


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_short_says_so(format):
    data = encoded(picture(64, 64), format)
    assert refused(data[: len(data) // 2]) == "E_TRUNCATED"


def test_a_cut_jpeg_is_taken_on_request():
    data = encoded(smooth(160, 160), "JPEG", quality=95)
    found = read(data[: len(data) // 2], allow_truncated=True)
    assert found.flags == ("truncated",) and found.image_HWC.shape == (160, 160, 3)
    assert np.abs(found.image_HWC[:40].astype(int) - smooth(160, 160)[:40]).mean() < 5
    assert read(data, allow_truncated=True).flags == ()
    half = encoded(picture(64, 64), "PNG")
    assert refused(half[: len(half) // 2], allow_truncated=True) == "E_TRUNCATED"


# B5


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_read_or_refused(format):
    """Nothing else is raised, and no decoder takes long."""
    g = np.random.default_rng(zlib.crc32(format.encode()))
    whole = [encoded(picture(16, 24, seed=i), format) for i in range(3)]
    codes = set()
    for number in range(300):
        data = bytearray(whole[number % 3])
        for place in g.integers(0, len(data), g.integers(1, 9)):
            data[place] = g.integers(256)
        if number % 5 == 0:
            start, length = g.integers(0, len(data), 2)
            del data[start : start + length // 4]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        try:
            read(bytes(data), max_pixels=10**6)
        except ImageError as error:
            codes.add(error.code)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5
    assert codes & {"E_DECODE", "E_TRUNCATED"}


# B6, B9


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, bits: int = 8) -> bytes:
    """A colour PNG, by hand."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bomb(width: int, height: int) -> bytes:
    """A PNG that announces a size; its pixels are missing."""
    return png(width, height, b"\0")


def test_a_bomb_is_refused_by_its_header():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(bomb(50_000, 50_000)) == "E_TOO_LARGE"
    assert refused(bomb(1001, 1000), max_pixels=10**6) == "E_TOO_LARGE"
    assert refused(bomb(1000, 1000), max_pixels=10**6) == "E_TRUNCATED"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    with pytest.raises(ValueError, match="max_pixels"):
        Reading(max_pixels=0)


@pytest.mark.slow
def test_a_picture_of_100_megapixels_is_read():
    data = encoded(Image.new("RGB", (10_000, 10_000), (1, 2, 3)), "JPEG")
    assert read(data).image_HWC.shape == (10_000, 10_000, 3)


# B7


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_the_first_counts(format):
    frames = [Image.new("RGB", (16, 16), c) for c in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    found = read(data)
    assert "multiframe" in found.flags
    assert np.abs(found.image_HWC.astype(int) - [250, 0, 0]).max() < 9
    assert refused(data, strict=True) == "E_MULTIFRAME"
    assert read(encoded(frames[0], format), strict=True).flags == ()


# B10 - B12


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_are_their_rgb_twins(mode):
    image = Image.fromarray(picture()).convert(mode)
    want = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(encoded(image)).image_HWC, want)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white_and_hides_colour(mode):
    x = picture(16, 16, 4)
    x[:8, :, 3], x[8:, :, 3] = 0, 255
    image = Image.fromarray(x).convert(mode if mode != "P" else "RGBA")
    data = encoded(image)
    if mode == "P":
        image = Image.fromarray(x[..., :3]).quantize(16)
        data = encoded(image, transparency=0)
        hidden = np.asarray(image) == 0
    else:
        hidden = x[..., 3] == 0
    found = read(data)
    assert found.flags == ("alpha",) and (found.image_HWC[hidden] == 255).all()
    shown = np.asarray(image.convert("RGB"))[~hidden]
    np.testing.assert_array_equal(found.image_HWC[~hidden], shown)
    x[..., 3] = 255
    assert read(encoded(x)).flags == ()


def test_half_transparent_is_half_white():
    x = np.full((4, 4, 4), (100, 0, 200, 128), np.uint8)
    want = np.array([100, 0, 200]) * 128 / 255 + 255 * 127 / 255
    assert np.abs(read(encoded(x)).image_HWC - want).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_rounded_to_8(format):
    x = picture(dtype=np.uint16)[..., 0]
    found = read(encoded(x, format))
    want = np.rint(x / 257)
    np.testing.assert_array_equal(found.image_HWC, np.stack([want] * 3, -1))
    assert found.flags == ("16bit",)


def test_16_bit_colour_is_rounded_to_8():
    x = picture(dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    found = read(png(20, 12, rows, bits=16)).image_HWC
    assert np.abs(found - x / 257).max() <= 1


def test_grey_of_no_known_scale_is_refused():
    good = Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
    assert read(encoded(good, "TIFF")).image_HWC.max() == 255
    for value in (3.5, np.nan, -1):
        bad = Image.fromarray(np.full((4, 4), value, np.float32))
        assert refused(encoded(bad, "TIFF")) == "E_UNSUPPORTED"


# B13 - B15


def test_cmyk_is_converted():
    image = Image.fromarray(smooth()).convert("CMYK")
    found = read(encoded(image, "JPEG", quality=100)).image_HWC.astype(int)
    assert np.abs(found - smooth()).mean() < 3
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert (read(encoded(white, "JPEG")).image_HWC > 250).all()


def test_a_colour_profile_is_applied():
    x = np.full((8, 8, 3), 50, np.uint8)
    data = encoded(x, icc_profile=linear())
    found = read(data)
    assert found.flags == ("icc",)
    share = 50 / 255  # IEC 61966-2-1
    want = 255 * (1.055 * share ** (1 / 2.4) - 0.055)
    assert np.abs(found.image_HWC - want).max() <= 2
    ignored = read(data, icc="ignore")
    assert ignored.flags == () and (ignored.image_HWC == 50).all()


def test_display_p3_shows_the_colours_it_means():
    """Against CSS Color 4: linear light, one matrix to sRGB's primaries, clipped."""
    x = picture(16, 16)
    found = read(encoded(x, icc_profile=display_p3()))
    assert found.flags == ("icc",)
    share = x / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_srgb = [[1.2249, -0.2249, 0], [-0.0421, 1.0421, 0], [-0.0196, -0.0786, 1.0983]]
    light = np.clip(light @ np.array(to_srgb).T, 0, 1)
    share = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(found.image_HWC - share * 255).mean() < 1


def test_a_colour_profile_that_is_srgb_or_broken_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, flags in ((srgb, ()), (b"nonsense" * 40, ("icc_ignored",))):
        found = read(encoded(picture(), icc_profile=profile))
        np.testing.assert_array_equal(found.image_HWC, picture())
        assert found.flags == flags
    with pytest.raises(ValueError, match="icc 'apply': known are"):
        Reading(icc="apply")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_all_eight_orientations_are_the_upright_picture(format):
    x = smooth(16, 32)
    stored = {
        1: x,
        2: x[:, ::-1],
        3: x[::-1, ::-1],
        4: x[::-1],
        5: x.swapaxes(0, 1),
        6: np.rot90(x),
        7: np.rot90(x, 2).swapaxes(0, 1),
        8: np.rot90(x, -1),
    }
    for turn, pixels in stored.items():
        lossless = {"lossless": True} if format == "WEBP" else {}
        data = encoded(np.ascontiguousarray(pixels), format, exif=turned(turn), **lossless)
        found, as_stored = read(data), read(data, orientation="ignore")
        off = np.abs(found.image_HWC.astype(int) - x)
        assert off.max() == 0 if format != "JPEG" else off.mean() < 8
        assert found.flags == (("rotated",) if turn != 1 else ()) and as_stored.flags == ()
        off = np.abs(as_stored.image_HWC.astype(int) - pixels)
        assert off.max() == 0 if format != "JPEG" else off.mean() < 8


def test_unknown_options_are_refused():
    for options in ({"orientation": "turn"}, {"formats": ("TGA",)}, {"formats": ()}):
        with pytest.raises(ValueError, match="known are"):
            Reading(**options)


# B16, B17, B19


@pytest.mark.parametrize(
    "head",
    [
        b"<svg xmlns=''>",
        b"<?xml version='1.0'?><svg/>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF",
        b"8BPS\0\1",
        b"SIMPLE  =                    T",
        b"\xd7\xcd\xc6\x9a\0\0",
    ],
)
def test_other_formats_are_refused_before_a_decoder_runs(head, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    assert refused(head + b"\0" * 99) == "E_UNSUPPORTED"


def test_a_picture_that_any_decoder_reads_alike_is_plain():
    """What `prepare` keeps as it is, and TensorFlow then decodes; see test_prepare too."""
    grey = Image.fromarray(smooth()).convert("L")
    for image, format in ((smooth(), "JPEG"), (smooth(), "PNG"), (smooth(), "BMP"), (grey, "JPEG")):
        assert decode.is_plain(encoded(image, format))
    for image, format in ((smooth(), "WEBP"), (smooth(), "TIFF"), (grey, "BMP")):
        assert not decode.is_plain(encoded(image, format))
    for mode in ("P", "RGBA", "LA", "1", "CMYK"):
        format = "JPEG" if mode == "CMYK" else "PNG"
        assert not decode.is_plain(encoded(Image.fromarray(smooth()).convert(mode), format))


def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        codes = [refused(tmp_path / name) for name in ("fifo.jpg", "s")]
    assert codes == ["E_NOT_A_FILE"] * 2
    assert refused(tmp_path) == refused("/dev/null") == "E_NOT_A_FILE"
    assert refused(tmp_path / "loop.jpg") == "E_UNREADABLE"


# B18


@pytest.mark.parametrize(
    "name", ["照片.png", "🌄 'a\" b.png", "new\nline.png", "-x.png", b"\xff\xfe.png"]
)
def test_names_may_hold_anything(name, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(encoded(picture()))
    assert read(os.fsdecode(path)).image_HWC.shape == (12, 20, 3)
    os.truncate(path, 40)
    with pytest.raises(ImageError) as caught:
        read(os.fsdecode(path))
    str(caught.value).encode()  # can be printed


# B20, B21


@pytest.mark.parametrize(
    "x, message",
    [
        (picture() * 1.0, r"values from 0 to 255.*divide"),
        (np.full((4, 4, 3), np.nan), "nan.*finite"),
        (np.full((4, 4, 3), np.inf), "inf.*finite"),
        (np.full((4, 4, 3), -0.5), "from -0.5"),
        (picture()[..., 0], r"\(12, 20\).*np.stack"),
        (picture().transpose(2, 0, 1), r"x.transpose\(1, 2, 0\)"),
        (picture(channels=4), "fromarray"),
        (picture(channels=2), "must be"),
        (np.zeros((0, 4, 3), np.uint8), "must be"),
    ],
)
def test_arrays_that_are_no_pictures_say_how_to_fix_them(x, message):
    with pytest.raises(ValueError, match=message):
        read(x)


@pytest.mark.parametrize("type", [np.int32, np.int64, bool, object, complex])
def test_arrays_of_other_types_are_refused(type):
    with pytest.raises(TypeError, match="must be uint8"):
        read(picture().astype(type))


def test_a_torch_tensor_is_told_how_to_become_an_array():
    tensor = type("Tensor", (), {"__module__": "torch"})()
    with pytest.raises(TypeError, match="torch tensor: pass x.permute"):
        read(tensor)


def test_a_pil_image_is_left_as_it_was():
    image = Image.fromarray(picture(channels=4))
    before = image.tobytes()
    read(image)
    assert image.mode == "RGBA" and image.tobytes() == before
    broken = Image.open(io.BytesIO(encoded(picture(64, 64))[:3000]))
    assert refused(broken) == "E_TRUNCATED"
