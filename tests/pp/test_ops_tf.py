import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from diffv2iqa_jax.pp import ops_numpy, ops_tf


def picture(h=40, w=50):
    """Every pixel says where it is."""
    rows, columns = np.mgrid[:h, :w]
    return np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)


def example(h=40, w=50, seed=(3, 4), views=True):
    image = picture(h, w)
    ex = {"image": image, "reference": image, "content": np.uint32(4_000_000_000)}
    ex |= {"views": np.stack([image, image]).astype(np.float32)} if views else {}
    return {k: tf.constant(x) for k, x in ex.items()} | {"seed": tf.constant(seed, tf.int32)}


def run(text, **kwargs):
    return {k: np.asarray(x) for k, x in ops_tf.parse(text)(example(**kwargs)).items()}


RANDOM = ["crop(16)", "flip(0.5)", "vertical_flip(0.5)", "crop(16)|flip(0.5)|vertical_flip(0.5)"]
FIXED = ["center(16)", "grid(16)", "random_crops(16, 5)", "grid(16)|flip(1.0)", "center(size=16)"]


@pytest.mark.parametrize("text", [*RANDOM, *FIXED])
@pytest.mark.parametrize("seed", [(0, 0), (1, 7), (-1, 5)])
def test_image_reference_and_views_get_the_same_geometry(text, seed):
    out = run(text, seed=seed)
    np.testing.assert_array_equal(out["image"], out["reference"])
    assert out["views"].dtype == np.float32
    for view in np.moveaxis(out["views"], -4, 0):
        np.testing.assert_array_equal(out["image"], view)


def test_a_crop_is_a_part_of_the_picture_and_can_be_any():
    tops, lefts = set(), set()
    for number in range(200):
        image = run("crop(36)", seed=(0, number))["image"]
        top, left = image[0, 0, :2]
        np.testing.assert_array_equal(image, picture()[top : top + 36, left : left + 36])
        tops.add(int(top))
        lefts.add(int(left))
    assert tops == set(range(5)) and lefts == set(range(15))


def test_the_seed_alone_decides():
    np.testing.assert_array_equal(run("crop(16)")["image"], run("crop(16)")["image"])
    assert not np.array_equal(run("crop(16)")["image"], run("crop(16)", seed=(3, 5))["image"])


def test_ops_of_one_pipeline_draw_different_numbers():
    # Were the draws shared, two flips at one half would always cancel out.
    turned = [run("flip(0.5)|flip(0.5)", seed=(0, n))["image"][0, 0, 1] > 0 for n in range(40)]
    assert 8 < sum(turned) < 32


def test_flips_turn_the_right_axis():
    np.testing.assert_array_equal(run("flip(1)")["image"], picture()[:, ::-1])
    np.testing.assert_array_equal(run("vertical_flip(1)")["image"], picture()[::-1])
    np.testing.assert_array_equal(run("flip(0)")["image"], picture())


@pytest.mark.parametrize(
    ("h", "w", "size"), [(40, 50, 16), (32, 32, 16), (33, 47, 16), (16, 40, 16), (17, 16, 16)]
)
def test_a_grid_covers_every_pixel(h, w, size):
    out = run(f"grid({size})", h=h, w=w)
    seen = {tuple(pixel[:2]) for pixel in out["image"].reshape(-1, 3).tolist()}
    assert len(seen) == h * w
    assert len(out["image"]) == -(-h // size) * -(-w // size)
    np.testing.assert_array_equal(out["crop"], np.arange(len(out["image"])))
    assert tuple(out["image"][0, 0, 0, :2]) == (0, 0)
    assert tuple(out["image"][-1, -1, -1, :2]) == (h - 1, w - 1)


def test_random_crops_depend_on_the_content_alone():
    one = run("random_crops(16, 5)", seed=(0, 0))["image"]
    np.testing.assert_array_equal(one, run("random_crops(16, 5)", seed=(9, 9))["image"])
    assert len({crop.tobytes() for crop in one}) == 5


@pytest.mark.parametrize("op", ["crop(24)", "center(24)", "grid(24)", "random_crops(24, 1)"])
def test_small_pictures_are_continued_by_reflection(op):
    image = run(op, h=5, w=24)["image"].reshape(24, 24, 3)
    np.testing.assert_array_equal(
        image, np.pad(picture(5, 24), ((0, 19), (0, 0), (0, 0)), "reflect")
    )
    assert (run(op, h=1, w=1)["image"] == 0).all()


def test_resize_keeps_flat_colour_and_refuses_views():
    ex = example(views=False)
    ex["image"] = ex["image"] * 0 + 200
    out = ops_tf.parse("resize(20)")(ex)["image"]
    assert out.shape == (20, 20, 3) and out.dtype == tf.uint8 and (np.asarray(out) == 200).all()
    with pytest.raises(ValueError, match="views cannot be resized"):
        run("resize(20)")


def with_strong_edges(h, w):
    """Bars, a disc and dots of black and white on noise and a ramp."""
    y, x = np.mgrid[:h, :w]
    image = np.stack(
        [x * 255 // w, y * 255 // h, np.random.default_rng(0).integers(0, 256, (h, w))]
    )
    image = np.where(x // 7 % 3 == 0, 255 * (y // 5 % 2), image)
    image = np.where(np.hypot(y - h / 2, x - w / 2) < min(h, w) / 4, 255, image)
    return np.moveaxis(np.where((3 * x + 5 * y) % 31 == 0, 0, image), 0, -1).astype(np.uint8)


def twice_resampled(image, factor):
    """Keys' cubic (a = -1/2) in float64, clipped and rounded after each axis, columns first."""

    def weights(length, size):
        scale = max(length / size, 1)
        at = (np.arange(size)[:, None] + 0.5) * length / size - np.arange(length) - 0.5
        t = np.abs(at) / scale
        near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
        out = np.where(t < 1, near, np.where(t < 2, far, 0))
        return out / out.sum(axis=1, keepdims=True)

    def scaled(x, h, w):
        x = np.floor(np.einsum("jw,hwc->hjc", weights(x.shape[1], w), x) + 0.5).clip(0, 255)
        return np.floor(np.einsum("ih,hwc->iwc", weights(x.shape[0], h), x) + 0.5).clip(0, 255)

    h, w, _ = image.shape
    return scaled(scaled(image.astype(float), max(h // factor, 1), max(w // factor, 1)), h, w)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("h, w", [(64, 64), (45, 70), (128, 128)])
def test_shrinking_clips_and_rounds_after_each_axis_as_pillow_does(h, w, factor):
    """SR3's condition; rounding once, after both axes, is up to 15 levels off beside edges."""
    random, edges = np.random.default_rng(0).integers(0, 256, (h, w, 3)), with_strong_edges(h, w)
    for reference in (random.astype(np.uint8), edges, edges[:, ::-1], 255 * (edges > 127)):
        reference = reference.astype(np.uint8)
        ex = {"image": tf.constant(reference * 0), "reference": tf.constant(reference)}
        out = ops_tf.parse(f"shrink({factor})")(ex)
        np.testing.assert_array_equal(out["reference"], reference)
        image = np.asarray(out["image"])
        small = Image.fromarray(reference).resize((w // factor, h // factor), Image.BICUBIC)
        np.testing.assert_array_equal(image, small.resize((w, h), Image.BICUBIC))
        assert np.abs(image - twice_resampled(reference, factor)).max() <= 1
        cut = ops_numpy.parse(f"shrink({factor})", with_reference=True)
        (crop,) = cut(reference * 0, content=0, reference_HWC=reference)
        np.testing.assert_array_equal(crop.image_HWC, image)


def test_shrinking_needs_the_reference_and_no_views():
    with pytest.raises(ValueError, match="needs the reference"):
        run("shrink(2)")


def test_nothing_is_done_by_an_empty_pipeline():
    np.testing.assert_array_equal(run("")["image"], picture())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop(16)|blur(3)", r"'blur\(3\)' in 'crop\(16\)\|blur\(3\)': no such op; .*'crop'"),
        ("crop", "write op"),
        ("crop(16", "write op"),
        ("crop(16)||flip(0.5)", "write op"),
        ("crop(0)", "whole numbers from 1"),
        ("crop(16.5)", "whole numbers from 1"),
        ("crop()", "missing 1 required"),
        ("crop(16, 3)", "takes 1 positional"),
        ("crop(sise=16)", "unexpected keyword"),
        ("flip(2)", r"probability in \[0, 1\]"),
        ("flip('a')", r"probability in \[0, 1\]"),
        ("crop(open('x'))", "malformed node"),
        ("__import__('os').getcwd()", "write op"),
    ],
)
def test_a_bad_pipeline_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        ops_tf.parse(text)


def test_two_crop_axes_are_refused():
    with pytest.raises(ValueError, match="only one of grid"):
        run("grid(16)|random_crops(8, 2)")
