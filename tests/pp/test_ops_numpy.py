"""Without TensorFlow a pipeline string gives the pixels that it gives with it."""

import numpy as np
import pytest
import tensorflow as tf

from diffv2iqa_jax.pp import ops_numpy, ops_tf
from tests.pictures import picture

TEXTS = [
    "",
    "grid(16)",
    "center(24)",
    "random_crops(16, 5)",
    "crop(16)",
    "crop(32)|flip(0.5)|vertical_flip(0.5)",
    "grid(16)|flip(0.5)|crop(9)",
    "center(size=16)|random_crops(8, 3)",
]
SIZES = [(40, 50), (16, 16), (5, 24), (1, 1), (1, 70), (33, 17)]


def by_tensorflow(text, image, content, **pictures):
    """The crops that training would see: image, views and reference, each with a crop axis."""
    example = {"image": tf.constant(image), "content": tf.constant(content, tf.uint32)}
    example |= {key: tf.constant(x) for key, x in pictures.items()}
    out = ops_tf.parse(text)(example | {"seed": ops_tf.seed_of(example["content"])})
    crops = {key: np.asarray(out[key]) for key in ("image", *pictures)}
    return crops if "crop" in out else {key: x[None] for key, x in crops.items()}


def test_each_op_has_both_forms():
    assert ops_numpy.OPS.keys() == ops_tf.OPS.keys()


@pytest.mark.parametrize("text", TEXTS)
def test_the_crops_are_those_of_training(text):
    cut = ops_numpy.parse(text)
    for number, (h, w) in enumerate(SIZES * 2):
        image = picture(h, w, number)
        views = np.stack([image, 255 - image]).astype(np.float16)
        content = (number * 2_654_435_761) % 2**32
        want = by_tensorflow(text, image, content, views=views, reference=255 - image)
        crops = cut(image, content, views, 255 - image)
        np.testing.assert_array_equal([c.image_HWC for c in crops], want["image"])
        np.testing.assert_array_equal([c.views_VHWC for c in crops], want["views"])
        np.testing.assert_array_equal([c.reference_HWC for c in crops], want["reference"])


@pytest.mark.parametrize("h, w", [(40, 50), (16, 9), (1, 1), (300, 211)])
def test_scaling_is_that_of_training(h, w):
    image = picture(h, w)
    for text in ("resize(16)", "resize(33)", "resize(224)", "shrink(4)", "shrink(3)"):
        (want,) = by_tensorflow(text, image, 1, reference=image)["image"]
        (crop,) = ops_numpy.parse(text, with_reference=True)(image, 1, reference_HWC=image)
        difference = crop.image_HWC.astype(int) - want
        assert abs(difference).max() <= 1  # a tie may round the other way
        assert np.mean(difference != 0) < 1e-3


def test_corners_say_where_a_crop_was():
    image = picture(40, 50)
    for text in ("grid(16)", "random_crops(16, 4)", "center(32)|grid(16)"):
        for crop in ops_numpy.parse(text)(image, 7):
            top, left = crop.corner
            np.testing.assert_array_equal(crop.image_HWC, image[top : top + 16, left : left + 16])


@pytest.mark.parametrize(
    "text", ["grid(16)|grid(8)", "resize(8)", "shrink(2)", "grid(0)", "flap(1)", "grid("]
)
def test_what_no_pipeline_can_be_is_refused(text):
    image = picture(32, 32)
    with pytest.raises(ValueError):
        ops_numpy.parse(text)(image, 1, image[None])
