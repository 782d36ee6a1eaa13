"""JPEG and JPEG 2000 come out as Pillow's encoders and decoders make them."""

import io
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data

from diffv2iqa_jax.distortions import codecs
from diffv2iqa_jax.evaluation import full_reference

KODAK = pathlib.Path(__file__).parents[3] / "shared" / "data" / "pristine" / "kodak"
KODAK_FILES = sorted(KODAK.glob("*.webp"))
PHOTOS = [data.chelsea()[60:188, 100:228], data.astronaut()[30:158, 150:278]]

jpeg, jpeg2000 = jax.jit(codecs.jpeg), jax.jit(codecs.jpeg2000)


def coded(image: np.ndarray, format: str, **settings) -> tuple[np.ndarray, bytes]:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, format, **settings)
    return np.asarray(Image.open(stream).convert("RGB")), stream.getvalue()


def uint8(x) -> np.ndarray:
    return np.asarray(x).astype(np.uint8)


def kodak(sides: int, step: int) -> list[np.ndarray]:
    if not KODAK_FILES:
        pytest.skip("the Kodak photos in ../shared are absent")
    photos = [np.asarray(Image.open(p).convert("RGB")) for p in KODAK_FILES[::step]]
    return [x[100 : 100 + sides, 150 : 150 + sides] for x in photos]


def assert_jpeg_is_pillows(images, qualities):
    for image in images:
        for quality in qualities:
            want, _ = coded(image, "JPEG", quality=quality, subsampling="4:2:0")
            got = uint8(jpeg(image.astype(np.float32), quality))
            assert full_reference.psnr(want, got) >= 45, quality


def test_jpeg_is_pillows():
    assert_jpeg_is_pillows(PHOTOS, (5, 10, 25, 50, 75, 95))


def test_jpeg_is_pillows_on_the_kodak_photos():
    assert_jpeg_is_pillows(kodak(128, 3), (5, 20, 49, 51, 90))


@pytest.mark.parametrize("shape", [(16, 16), (17, 33), (37, 50), (40, 23)])
def test_jpeg_is_pillows_at_sizes_that_are_no_multiple_of_a_block(shape):
    image = PHOTOS[0][: shape[0], : shape[1]]
    assert_jpeg_is_pillows([image], (10, 60))


def assert_jpeg2000_is_pillows(images, ratios):
    for image in images:
        for ratio in ratios:
            settings = {"quality_mode": "rates", "quality_layers": [ratio], "mct": 1}
            want, code = coded(image, "JPEG2000", irreversible=True, **settings)
            headers = code.index(b"\xff\x93") + 4  # the code follows "start of data"
            rate = 8 * (len(code) - headers) / (image.shape[0] * image.shape[1])
            got = uint8(jpeg2000(image.astype(np.float32), rate))
            assert full_reference.psnr(image, got) == pytest.approx(
                full_reference.psnr(image, want), abs=1
            )


def test_jpeg2000_has_pillows_psnr_at_equal_rate():
    assert_jpeg2000_is_pillows([x for x in PHOTOS], (10, 24, 40))


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, axis=2)


def test_jpeg2000_has_pillows_psnr_at_high_rates_in_grey_and_in_colour():
    """Twice as large a coefficient costs one bit more there."""
    photos = [data.chelsea()[:256, :256], data.coffee()[:256, :256]]
    assert_jpeg2000_is_pillows(
        [*photos, *map(grey, photos), grey(data.coins())[:256, :256]], (4, 6)
    )


def test_jpeg2000_has_pillows_psnr_on_the_kodak_photos():
    assert_jpeg2000_is_pillows(kodak(256, 4), (16, 45, 120))


@pytest.mark.parametrize("n", [2, 3, 8, 17, 64])
def test_the_wavelet_is_undone_by_its_inverse_and_keeps_constants(n):
    forward, back = codecs.wavelet(n)
    np.testing.assert_allclose(back @ forward, np.eye(n), atol=1e-5)
    low = -(-n // 2)
    np.testing.assert_allclose((forward @ np.ones(n))[low:], 0, atol=1e-6)


def test_a_unit_of_every_coefficient_costs_the_same_error():
    """What makes one step for all bands the best one."""
    bands = codecs._analysis(jax.numpy.zeros((3, 64, 64)))
    for number, band in enumerate(bands[:9]):
        hit = list(bands)
        at = (1, band.shape[1] // 2, band.shape[2] // 2)
        hit[number] = band.at[at].set(1.0)
        rgb = codecs.mix(codecs.RGB_33, codecs._synthesis(hit, 64, 64))
        assert np.sum(np.square(rgb)) == pytest.approx(1, rel=0.1), number


def test_more_bits_keep_more():
    psnr = [
        full_reference.psnr(PHOTOS[0], uint8(jpeg2000(PHOTOS[0].astype(np.float32), rate)))
        for rate in (0.1, 0.3, 1.0, 3.0)
    ]
    assert all(np.diff(psnr) > 1.5)
