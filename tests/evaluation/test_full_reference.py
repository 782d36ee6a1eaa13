import pathlib

import numpy as np
import pytest
from scipy import signal

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.evaluation import full_reference

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "sr3_metrics.npz")
PAIR = GOLDEN["img1"], GOLDEN["img2"]
MEASURES = [full_reference.psnr, full_reference.ssim, full_reference.haarpsi]


def test_psnr_and_ssim_are_those_of_sr3():
    np.testing.assert_allclose(full_reference.psnr(*PAIR), GOLDEN["psnr"], rtol=1e-6)
    np.testing.assert_allclose(full_reference.ssim(*PAIR), GOLDEN["ssim"], rtol=1e-6)


def test_haarpsi_is_that_of_its_authors_python_code():
    np.testing.assert_allclose(full_reference.haarpsi(*PAIR), 0.8946795292695444, rtol=1e-9)
    np.testing.assert_allclose(full_reference.haarpsi(*PAIR, subsample=False), 0.7085830377829252)
    odd_sized = [x[:47, :39] for x in PAIR]
    np.testing.assert_allclose(full_reference.haarpsi(*odd_sized), 0.9106166633931618, rtol=1e-9)


def test_haar_coefficients_are_convolutions_with_the_square_filters():
    y = scenes.scene(0, 32).mean(axis=2)
    square = np.full((4, 4), 0.25) * np.array([1, 1, -1, -1])[:, None]
    want = abs(signal.convolve2d(y, square)[2:-1, 2:-1])
    np.testing.assert_allclose(full_reference._haar(y)[1, 0], want, atol=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_identical_pictures_are_best_and_order_does_not_matter(measure):
    a, b = scenes.scene(0, 32), scenes.scene(1, 32)
    assert measure(a, a) > measure(a, b)
    np.testing.assert_allclose(measure(a, b), measure(b, a), rtol=1e-12)


def test_haarpsi_stays_in_its_range():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
    flat = [np.full((32, 32, 3), value, np.uint8) for value in (0, 0, 255)]
    assert full_reference.haarpsi(flat[0], flat[1]) == pytest.approx(1)
    for a, b in (noise, (flat[0], noise[0]), flat[1:]):
        assert 0 <= full_reference.haarpsi(a, b) < 0.9


def test_psnr_of_identical_pictures_is_infinite():
    assert full_reference.psnr(PAIR[0], PAIR[0]) == float("inf")


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((32, 32, 3)), np.zeros((32, 32, 3)), "must be uint8"),
        (np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8), r"\(H, W, C\)"),
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 31, 3), np.uint8), "differ in shape"),
    ],
)
def test_what_cannot_be_compared_is_refused(measure, a, b, message):
    with pytest.raises(ValueError, match=message):
        measure(a, b)


def test_too_small_and_grey_pictures_are_refused():
    with pytest.raises(ValueError, match="too small"):
        full_reference.ssim(np.zeros((10, 32, 3), np.uint8), np.zeros((10, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="RGB"):
        full_reference.haarpsi(np.zeros((32, 32, 1), np.uint8), np.zeros((32, 32, 1), np.uint8))
