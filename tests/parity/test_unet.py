import flax.linen as nn
import jax
import numpy as np
import pytest

from diffv2iqa_jax.models import unet
from tests.parity import nets
from tests.parity.golden import Golden, close, near, to_nchw


def run(golden, **given):
    condition, y = np.split(golden.image(), 2, axis=-1)
    out, taps = nets.run(
        "sr3", golden.tensors(), condition, y, golden["noise_level"][:, 0], **given
    )
    blocks = [n for n in golden.about["tensors_with_stats"] if n[0] in "dmu"]
    nets.each(golden, taps, {n: n.replace(".", "_") for n in blocks}, 1e-4, to_nchw)
    golden.check("noise_level_mlp", taps["noise_level_mlp_3"][0], 1e-4)
    close(to_nchw(out), golden["out.full"], 1e-4)
    close(to_nchw(out), golden["out.full_f64"], 1e-4)


def test_the_small_net_and_each_of_its_blocks():
    golden = Golden("sr3_unet_small")
    run(golden, groups=8, image_size=32)
    encoding = unet.level_encoding(golden["noise_level"][:, 0], 16)
    golden.check("noise_level_mlp.0", encoding, 1e-4)


@pytest.mark.slow
def test_the_published_16_128_net_and_each_of_its_blocks():
    run(Golden("sr3_unet_16_128"))


def test_the_encoding_of_levels():
    golden = Golden("sr3_positional_encoding")
    for width in (16, 64):
        got = jax.jit(unet.level_encoding, static_argnums=1)(golden["noise_level"][:, 0], width)
        near(got, golden[f"enc{width}"], 1e-6)


def test_the_encoding_of_steps_keeps_its_digits():
    steps = np.arange(2000)
    got = jax.jit(unet.step_encoding, static_argnums=1)(steps, 64)
    angle = steps[:, None] * 1e4 ** (-2 * np.arange(32) / 64)
    want = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    np.testing.assert_allclose(got, want, atol=3e-4)


def test_attention():
    golden = Golden("sr3_selfattention")
    net = unet.SelfAttention(groups=8, dtype="float32")
    out = nets.part("sr3", golden, "mid.0.attn.", "mid_0/attn", net, golden.image())
    close(to_nchw(out), golden["out"], 1e-5)


@pytest.mark.parametrize("name, use", [("sr3_resnetblock", 1e-5), ("sr3_resnetblock_eps", 1e-4)])
def test_residual_block(name, use):
    golden = Golden(name)
    net = unet.ResnetBlock(24, False, 8, 0.0, "level", False, "float32")
    inputs = golden.image(), golden["emb"][:, 0]
    out = nets.part("sr3", golden, "downs.1.res_block.", "downs_1", net, *inputs, None)
    close(to_nchw(out), golden["out"], use)


def test_scale_and_shift():
    golden = Golden("sr3_featurewiseaffine_affine")
    prefix = "downs.1.res_block.noise_func."
    modulation = nets.part("sr3", golden, prefix, "downs_1/noise_func", nn.Dense(16), golden["emb"])
    close(to_nchw(unet.modulate(golden.image(), modulation)), golden["out"], 1e-5)
