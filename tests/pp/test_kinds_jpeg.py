"""Damaged JPEG files, which libjpeg decodes with no more than a warning, and whole ones."""

import io

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, jpeg
from diffv2iqa_jax.pp.decode import Reading
from tests.pictures import encoded, picture, smooth

FORMS = {
    "baseline": {},
    "optimised": dict(optimize=True),
    "restarts": dict(restart_marker_rows=1),
    "progressive": dict(progressive=True),
    "fine": dict(subsampling=0, quality=97),
}


def detailed(h=240, w=320) -> np.ndarray:
    """A picture with detail everywhere, as a photo has."""
    x = smooth(h, w).astype(int) + picture(h // 4, w // 4, seed=3).repeat(4, 0).repeat(4, 1) // 5
    return x.clip(0, 255).astype(np.uint8)


def written(form: str) -> bytes:
    return encoded(detailed(), "JPEG", **{"quality": 90} | FORMS[form])


def refused(data: bytes, **how) -> str:
    with pytest.raises(ImageError) as caught:
        decode.read(data, Reading(**how))
    assert "copy it again" in caught.value.reason
    return caught.value.code


def parts(data: bytes) -> tuple[bytes, bytes]:
    """A file's halves, cut amid the data of its longest scan."""
    scan = max(jpeg.File(data, "x").scans, key=lambda scan: scan.end - scan.start)
    middle = (scan.start + scan.end) // 2
    return data[:middle], data[middle:]


@pytest.mark.parametrize("form", FORMS)
def test_a_rest_of_zeros_or_garbage_is_damage(form):
    start, rest = parts(written(form))
    garbage = np.random.default_rng(0).bytes(len(rest))
    early = start + bytes(len(rest)), start + rest[:-2], start + b"\xff\xd9"
    for data in early:
        assert refused(data) == "E_TRUNCATED"
    damaged = start + garbage, start + garbage + rest[-2000:]
    for data in damaged:
        assert refused(data) in ("E_DECODE", "E_TRUNCATED")
    Image.open(io.BytesIO(early[2])).load()  # to Pillow, this one is whole


def test_a_pattern_that_repeats_is_whole_though_its_code_is_all_zeros():
    """In a pass over few coefficients, a block may be zeros from its first bit to its last."""
    stripes = 128 - 4 * np.cos((2 * np.arange(8) + 1) * np.pi / 8)
    image = np.tile(stripes.round().astype(np.uint8), (320, 40))
    data = encoded(image, "JPEG", progressive=True, quality=75)
    assert bytes(64) in data
    np.testing.assert_allclose(decode.read(data).image_HWC[..., 0], image, atol=2)


@pytest.mark.parametrize("form", FORMS)
def test_zeros_amid_the_data_are_damage(form):
    if form == "progressive":
        pytest.skip("seen only if they end a pass early: see jpeg.py")
    start, rest = parts(written(form))
    assert refused(start + bytes(512) + rest[512:]) in ("E_DECODE", "E_TRUNCATED")
    if form != "restarts":  # within a step, data that are lacking cannot be told
        assert refused(start + rest[512:]) in ("E_DECODE", "E_TRUNCATED")


def test_a_rest_of_zeros_is_taken_on_request_and_is_grey():
    data = written("baseline")
    start, rest = parts(data)
    for early in (start, start + bytes(len(rest))):
        found = decode.read(early, Reading(allow_truncated=True))
        assert found.flags == ("truncated",)
        whole = decode.read(data).image_HWC
        np.testing.assert_array_equal(found.image_HWC[:64], whole[:64])
        assert np.ptp(found.image_HWC[-16:].astype(int), axis=(0, 1)).max() == 0


@pytest.mark.parametrize("form", FORMS)
def test_what_follows_the_end_is_not_looked_at(form):
    data = written(form)
    for more in (b"\0" * 5000, np.random.default_rng(1).bytes(5000), data):
        np.testing.assert_array_equal(
            decode.read(data + more).image_HWC, decode.read(data).image_HWC
        )


def test_filling_that_cameras_write_is_no_damage():
    """Up to 64 bytes behind the picture's data, bytes 0xff before a marker."""
    data = written("baseline")
    want = decode.read(data).image_HWC
    for filling in (b"\0" * 30, b"\xff" * 9, b"\0\xff\xff"):
        np.testing.assert_array_equal(decode.read(data[:-2] + filling + data[-2:]).image_HWC, want)
    assert refused(data[:-2] + b"\1" * 200 + data[-2:]) == "E_DECODE"


def test_data_left_over_for_a_flat_end_are_damage():
    """A sector copied twice shifts the picture; what drops out below may be few bytes."""
    flat = np.full((320, 320, 3), 255, np.uint8)
    data = encoded(np.vstack([detailed(160, 320), flat]), "JPEG", quality=90, optimize=True)
    at = jpeg.File(data, "x").scans[0].start + 2000
    assert refused(data[:at] + data[at - 512 :]) == "E_DECODE"


def test_no_whole_file_is_refused():
    """300 files: all qualities, samplings, tables, restarts, passes; flat, noisy and tiny ones."""
    g = np.random.default_rng(7)
    flat = [np.full((90, 120, 3), value, np.uint8) for value in (0, 255, 128)]
    squares = np.kron(g.integers(0, 2, (12, 15, 1)), np.full((8, 8, 3), 255)).astype(np.uint8)
    sources = [detailed(96, 128), smooth(96, 128), picture(96, 120), squares, *flat]
    for number in range(300):
        x = sources[number % len(sources)]
        h, w = g.integers(1, x.shape[:2], endpoint=True) if g.random() < 0.5 else x.shape[:2]
        mode = ("RGB", "RGB", "RGB", "L", "CMYK")[g.integers(5)]
        settings = dict(quality=int(g.integers(1, 101)), optimize=bool(g.integers(2)))
        settings["progressive"] = bool(g.random() < 0.3)
        if mode == "RGB":
            settings["subsampling"] = int(g.integers(3))
        if g.random() < 0.4:
            settings[f"restart_marker_{('rows', 'blocks')[g.integers(2)]}"] = int(g.integers(1, 9))
        data = encoded(Image.fromarray(x[:h, :w]).convert(mode), "JPEG", **settings)
        want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decode.read(data).image_HWC, want, str(settings))


@pytest.mark.parametrize(
    "frame, name", [(b"\xc3", "lossless JPEG"), (b"\xc5", "hierarchical"), (b"\xf7", "JPEG-LS")]
)
def test_processes_that_are_not_decoded_are_named(frame, name):
    data = written("baseline").replace(b"\xff\xc0", b"\xff" + frame, 1)
    with pytest.raises(ImageError, match=name) as caught:
        decode.read(data)
    assert caught.value.code == "E_UNSUPPORTED"


def test_12_bits_are_named():
    data = bytearray(written("baseline"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match="JPEG of 12 bits") as caught:
        decode.read(bytes(data))
    assert caught.value.code == "E_UNSUPPORTED"


def test_a_height_behind_the_data_is_named():
    data = bytearray(written("restarts"))
    at = data.index(b"\xff\xc0") + 5
    height, data[at : at + 2] = bytes(data[at : at + 2]), bytes(2)
    with pytest.raises(ImageError, match="height stands behind its data.*convert it") as caught:
        decode.read(bytes(data[:-2]) + b"\xff\xdc\0\4" + height + b"\xff\xd9")
    assert caught.value.code == "E_UNSUPPORTED"
