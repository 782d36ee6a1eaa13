from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models import unet
from diffv2iqa_jax.models.unet import UNet, level_encoding
from tests import tiny

SR3_64_512 = {"multipliers": (1, 2, 4, 8, 16), "res_blocks": 1, "attn_res": (), "groups": 16}
LEVEL = jnp.array([0.9, 0.3])


def tree(net, size=16, *, condition=True):
    image = jnp.zeros((1, size, size, 3))
    args = (image if condition else None, image, jnp.zeros(1))
    return jax.eval_shape(net.init, jax.random.key(0), *args)["params"]


def attending(params):
    return {name for name, block in params.items() if "attn" in block}


@pytest.fixture(scope="module")
def net():
    """A tiny U-Net that attends at its second level."""
    small_net = UNet(**tiny.restorer(net={"attn_res": (8,)})["net"])
    image = jnp.zeros((2, 16, 16, 3))
    return jax.jit(partial(small_net.apply, tiny.variables(small_net, image, image, LEVEL)))


def test_the_level_is_encoded_by_sines_then_cosines():
    code = level_encoding(jnp.array([0.0, 0.5, 1.0]), 8)
    np.testing.assert_array_equal(code[0], [0] * 4 + [1] * 4)
    angle = 0.5 * 1e4 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(code[1], [*np.sin(angle), *np.cos(angle)], rtol=1e-6)
    np.testing.assert_allclose(code[2, 0], np.sin(1.0), rtol=1e-6)


def test_attention_is_where_sr3_has_it():
    assert attending(tree(UNet())) == {"downs_10", "downs_11", "mid_0", "ups_4", "ups_5", "ups_6"}
    assert attending(tree(UNet(**SR3_64_512, image_size=512))) == {"mid_0"}


def test_the_size_of_the_image_changes_no_parameter():
    assert tree(UNet(), 128) == tree(UNet(), 224)


def test_it_runs_at_other_sizes_and_sees_image_condition_and_level(net):
    condition, y = tiny.images(0, 2, 16, 16, 3), tiny.images(1, 2, 16, 16, 3)
    out = net(condition, y, LEVEL)
    assert out.shape == y.shape and out.dtype == jnp.float32
    for other in ((-condition, y, LEVEL), (condition, -y, LEVEL), (condition, y, LEVEL[::-1])):
        assert np.all(np.abs(net(*other) - out).max((1, 2, 3)) > 1e-3)
    wide = tiny.images(2, 2, 16, 24, 3)
    assert net(wide, wide, LEVEL).shape == wide.shape


def test_images_of_a_batch_do_not_meet(net):
    condition, y = tiny.images(0, 2, 16, 16, 3), tiny.images(1, 2, 16, 16, 3)
    out = net(condition, y, LEVEL)
    turned = net(condition[::-1], y[::-1], LEVEL[::-1])
    np.testing.assert_allclose(turned[::-1], out, atol=1e-5)


def test_without_a_condition_only_the_first_convolution_is_smaller():
    with_it, without = tree(UNet()), tree(UNet(), condition=False)
    assert with_it["downs_0"]["conv"]["kernel"].shape == (3, 3, 6, 64)
    assert without["downs_0"]["conv"]["kernel"].shape == (3, 3, 3, 64)
    del with_it["downs_0"], without["downs_0"]
    assert with_it == without


def test_an_attention_size_that_never_occurs_is_refused():
    with pytest.raises(
        ValueError, match=r"attn_res \[16\]: .* 224 only has .*224, 112, 56, 28, 14"
    ):
        UNet(image_size=224).check()


def test_a_width_that_no_group_divides_is_refused():
    with pytest.raises(ValueError, match=r"groups 32: does not divide the width\(s\) \[48\]"):
        UNet(inner=48).check()


@pytest.mark.parametrize("size", [24, 100])
def test_a_side_that_cannot_be_halved_is_refused(size):
    with pytest.raises(ValueError, match="sides must divide by 16"):
        tree(UNet(), size)


def test_patches_become_channels_and_pixels_again():
    x = tiny.images(0, 2, 8, 12, 3)
    folded = unet.fold(x, 2)
    assert folded.shape == (2, 4, 6, 12)
    np.testing.assert_array_equal(folded[:, 1, 2].reshape(2, 2, 2, 3), x[:, 2:4, 4:6])
    np.testing.assert_array_equal(unet.unfold(folded, 2), x)


def test_a_net_of_patches_makes_whole_images_and_halves_the_levels():
    net = UNet(**tiny.restorer(net={"patch": 2, "attn_res": (4,)})["net"])
    assert net.sizes == [8, 4] and net.multiple == 4
    params = tree(net)
    assert params["downs_0"]["conv"]["kernel"].shape == (3, 3, 24, 8)
    assert attending(params) == {"downs_3", "mid_0", "ups_0", "ups_1"}
    image = tiny.images(0, 1, 16, 20, 3)
    out = net.apply(tiny.variables(net, image, image, LEVEL[:1]), image, image, LEVEL[:1])
    assert out.shape == image.shape
    with pytest.raises(ValueError, match="patch 0: must be 1"):
        UNet(patch=0).check()
