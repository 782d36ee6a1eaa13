import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models.vit import ViT
from tests import tiny

SMALL = tiny.vit(depth=4)
IMAGE = tiny.images(0, 2, 16, 16, 3)


def test_taps_are_those_of_a_longer_vit():
    long = ViT(**SMALL, taps=(1, 2), final=True, classes=5)
    variables = tiny.variables(long, IMAGE)
    taps, logits, tokens = long.apply(variables, IMAGE)
    short = ViT(**SMALL, taps=(2, 1))
    needed = jax.eval_shape(short.init, jax.random.key(0), IMAGE)["params"]
    assert not {"blocks_3", "norm", "head"} & set(needed)
    needed_variables = {"params": {name: variables["params"][name] for name in needed}}
    again, nothing, none = short.apply(needed_variables, IMAGE)
    assert nothing is none is None
    assert [tap.shape for tap in again] == [(2, 16, 16)] * 2
    jax.tree.map(np.testing.assert_array_equal, again, taps[::-1])
    assert logits.shape == (2, 5) and tokens.shape == (2, 16, 16)
    np.testing.assert_allclose(tokens.mean(-1), 0, atol=0.5)  # normed


def test_tokens_are_patches_in_row_major_order():
    vit = ViT(**{**SMALL, "depth": 1}, taps=(0,))
    variables = tiny.variables(vit, IMAGE)

    def tap(image):
        return vit.apply(variables, image)[0][0]

    change = np.abs(tap(IMAGE.at[:, 4:8, 8:12].add(1.0)) - tap(IMAGE)).sum((0, 2))
    assert change.argmax() == 1 * 4 + 2


@pytest.mark.parametrize("shape", [(1, 20, 16, 3), (1, 32, 32, 3)])
def test_an_image_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match="this ViT was built for 16 pixels"):
        ViT(**SMALL, taps=(0,)).init(jax.random.key(0), jnp.zeros(shape))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"taps \(4,\): this ViT has blocks 0 to 3"):
        ViT(**SMALL, taps=(4,)).check()
    with pytest.raises(ValueError, match="patch 5: does not divide image_size 16"):
        ViT(**{**SMALL, "patch": 5}, taps=(0,)).check()
