import jax
import numpy as np
import pytest

from diffv2iqa_jax.weights import resize

G = np.random.default_rng(0)


def test_positions_keep_the_class_token_and_the_corners_order():
    embedding = G.standard_normal((1, 17, 5)).astype(np.float32)
    np.testing.assert_allclose(resize.positions(embedding, 4), embedding, atol=1e-6)
    embedding[0, 1:, 0] = np.repeat(np.arange(4), 4)  # the row
    embedding[0, 1:, 1] = np.tile(np.arange(4), 4)  # the column
    larger = resize.positions(embedding, 8)
    assert larger.shape == (1, 65, 5)
    np.testing.assert_array_equal(larger[:, 0], embedding[:, 0])
    rows, columns = larger[0, 1:, 0].reshape(8, 8), larger[0, 1:, 1].reshape(8, 8)
    assert (np.diff(rows, axis=0) > 0).all() and np.ptp(rows, axis=1).max() < 1e-5
    np.testing.assert_allclose(columns, rows.T, atol=1e-5)


def test_positions_that_are_no_square_are_refused():
    with pytest.raises(ValueError, match="15 position embeddings"):
        resize.positions(np.zeros((1, 15, 5)), 4)


@pytest.mark.parametrize("old, new", [(4, 8), (8, 12), (8, 8)])
def test_a_larger_patch_of_the_resized_image_gives_the_same_token(old, new):
    kernel = G.standard_normal((old, old, 3, 7)).astype(np.float32)
    patch = G.standard_normal((old, old, 3)).astype(np.float32)
    larger = jax.image.resize(patch, (new, new, 3), "bilinear", antialias=False)
    want = np.einsum("hwc,hwcd->d", patch, kernel)
    got = np.einsum("hwc,hwcd->d", larger, resize.patches(kernel, new))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def keys_matrix(old, new):
    """Antialiased bicubic resizing (Keys, a = -1/2) of one axis, in float64: (new, old)."""
    scale = max(old / new, 1)
    t = np.abs((np.arange(new)[:, None] + 0.5) * old / new - np.arange(old) - 0.5) / scale
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("old, new", [(4, 8), (8, 12), (8, 5), (16, 8)])
def test_bicubic_patches_are_those_of_timm(old, new):
    """resample_patch_embed: pinv(B^T) w, B the bicubic, antialiased resizing of both axes."""
    kernel = G.standard_normal((old, old, 3, 7)).astype(np.float32)
    one_axis = keys_matrix(old, new)
    want = np.linalg.pinv(np.kron(one_axis, one_axis).T) @ kernel.reshape(old**2, -1)
    got = resize.patches(kernel, new, "bicubic")
    np.testing.assert_allclose(got, want.reshape(new, new, 3, 7), atol=1e-4)
    assert np.abs(got - resize.patches(kernel, new)).max() > 0.01


def test_an_unknown_filter_is_refused():
    with pytest.raises(ValueError, match="'nearest': known are .'bilinear', 'bicubic'"):
        resize.patches(np.ones((4, 4, 3, 1)), 8, "nearest")


def test_a_smaller_patch_keeps_the_mean():
    kernel = np.ones((16, 16, 3, 1), np.float32)
    np.testing.assert_allclose(resize.patches(kernel, 8).sum(), kernel.sum(), rtol=1e-3)
