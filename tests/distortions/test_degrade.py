import numpy as np
import pytest

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import degrade
from diffv2iqa_jax.evaluation import full_reference

PICTURES = [scenes.scene(index, 64) for index in range(8)]


@pytest.mark.parametrize("type", degrade.TYPES)
def test_quality_falls_with_every_level(type):
    quality = np.zeros((len(PICTURES), 5))
    for i, picture in enumerate(PICTURES):
        for level in degrade.LEVELS:
            distorted = degrade.degrade(picture, type, level, seed=i)
            assert distorted.shape == picture.shape and distorted.dtype == np.uint8
            quality[i, level - 1] = full_reference.haarpsi(picture, distorted, subsample=False)
    mean = quality.mean(axis=0)
    assert (np.diff(mean) < -0.02).all(), mean
    assert 0.5 < mean[0] < 1 and mean[4] < 0.6, mean


@pytest.mark.parametrize("type", degrade.TYPES)
def test_the_same_arguments_give_the_same_picture(type):
    before = PICTURES[0].copy()
    first = degrade.degrade(PICTURES[0], type, 3, seed=5)
    np.testing.assert_array_equal(first, degrade.degrade(PICTURES[0], type, 3, seed=5))
    np.testing.assert_array_equal(PICTURES[0], before)


@pytest.mark.parametrize("type", ["motion_blur", "white_noise", "impulse_noise", "lost_blocks"])
def test_the_seed_matters_where_there_is_chance(type):
    one, two = (degrade.degrade(PICTURES[0], type, 3, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_codecs_are_real():
    picture = PICTURES[0]
    blocks = degrade.degrade(picture, "jpeg", 5, seed=0).astype(int)
    jumps = abs(np.diff(blocks, axis=1)).mean(axis=(0, 2))
    edges = np.arange(len(jumps)) % 8 == 7
    assert jumps[edges].mean() > 1.5 * jumps[~edges].mean()  # JPEG's 8x8 blocks show
    for level, decibels in zip(degrade.LEVELS, (36, 32, 28, 25, 22), strict=True):
        coded = degrade.degrade(picture, "jpeg2000", level, seed=0)
        assert abs(full_reference.psnr(picture, coded) - decibels) < 2


def test_sizes_that_are_no_multiple_of_anything_work():
    picture = scenes.scene(0, 64)[:37, :51]
    for type in degrade.TYPES:
        assert degrade.degrade(picture, type, 5, seed=0).shape == (37, 51, 3)


@pytest.mark.parametrize(
    ("type", "level", "image", "message"),
    [
        ("blurr", 1, PICTURES[0], "'blurr': known are .*'gaussian_blur'"),
        ("jpeg", 0, PICTURES[0], r"level 0 of 'jpeg': known are \(1, 2, 3, 4, 5\)"),
        ("jpeg", 6, PICTURES[0], "level 6"),
        ("jpeg", 1, PICTURES[0] / 255, "must be uint8"),
        ("jpeg", 1, PICTURES[0][..., :1], "must be uint8"),
    ],
)
def test_refusals(type, level, image, message):
    with pytest.raises(ValueError, match=message):
        degrade.degrade(image, type, level, seed=0)
