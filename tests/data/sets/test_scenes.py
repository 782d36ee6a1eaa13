import numpy as np
import pytest

from diffv2iqa_jax.data.sets import scenes


def test_a_scene_is_a_function_of_index_and_size():
    for index in range(len(scenes.KINDS)):
        image = scenes.scene(index, 32)
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8
        np.testing.assert_array_equal(image, scenes.scene(index, 32))


def test_scenes_differ_and_use_the_range():
    pictures = [scenes.scene(index, 32) for index in range(24)]
    assert len({p.tobytes() for p in pictures}) == 24
    for index, picture in enumerate(pictures):
        assert picture.std() > 12, index
        assert picture.max() > 150, index


def test_textures_have_a_falling_spectrum_and_correlated_channels():
    light, detail = [], []
    for index in range(2, 66, 8):  # the textures
        image = scenes.scene(index, 64) / 255
        power = abs(np.fft.rfft2(image.mean(axis=2) - image.mean())) ** 2
        light.append(power[1:5, 1:5].mean())
        detail.append(power[16:32, 16:32].mean())
    assert np.mean(light) > 10 * np.mean(detail)


def test_photos_come_as_two_crops_under_one_name():
    names, crops = zip(*scenes.photos(32), strict=True)
    assert len(names) == 24 and len(set(names)) == 12
    assert len({crop.tobytes() for crop in crops}) == 24
    assert all(crop.shape == (32, 32, 3) and crop.dtype == np.uint8 for crop in crops)


@pytest.mark.parametrize(("index", "size"), [(-1, 32), (0, 8)])
def test_no_such_scene(index, size):
    with pytest.raises(ValueError, match="starts at 0"):
        scenes.scene(index, size)
