import flax.linen as nn
import numpy as np
import pytest

from diffv2iqa_jax.models.layers import TransposedAttention
from diffv2iqa_jax.models.swin import ScaleSwin, SwinBlock, relative_index, shift_mask
from diffv2iqa_jax.types import Views
from diffv2iqa_jax.weights import published
from tests.parity import nets
from tests.parity.golden import Golden, close, near, to_nchw


@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("scramble, out", [(True, "out"), (False, "wrong_no_scramble_out")])
def test_transposed_attention(block, scramble, out):
    golden = Golden("maniqa_tab_small")
    net = TransposedAttention(scramble=scramble, block=block)
    args = "maniqa", golden, "tablock1.0.", "guidance/tablock1_0", net, golden["x"]
    close(nets.part(*args), golden[out], 1e-5)


@pytest.mark.parametrize(
    "name, use", [("maniqa_swinblock_noshift", 1e-5), ("maniqa_swinblock_shift2", 1e-5)]
)
def test_swin_block(name, use):
    golden = Golden(name)
    about = golden.about["config"]
    window, shift = about["window_size"], about["shift_size"]
    np.testing.assert_array_equal(relative_index(window), golden["relative_position_index"])
    if shift:
        np.testing.assert_array_equal(shift_mask(8, 8, window, shift), golden["attn_mask"])
    net = SwinBlock(about["num_heads"], window, shift, about["dim_mlp"], 0.0, "float32")
    at = "guidance/swin1/layers_0_blocks_0"
    prefix = "swintransformer1.layers.0.blocks.0."
    x_BHWC = golden["x"].reshape(2, 8, 8, 8)
    close(nets.part("maniqa", golden, prefix, at, net, x_BHWC), golden["out"], use)


def test_scale_swin_and_each_of_its_blocks():
    golden = Golden("maniqa_swin_small")
    about = golden.about["config"]
    net = ScaleSwin(
        depths=tuple(about["depths"]),
        heads=tuple(about["num_heads"]),
        window=about["window_size"],
        mlp=about["dim_mlp"],
        scale=about["scale"],
    )
    args = "maniqa", golden, "swintransformer1.", "guidance/swin1", net, golden.image()
    out, taps = nets.apply(net, nets.weights_of_part(*args), golden.image())
    for i in range(2):
        for j in range(2):
            block = taps[f"layers_{i}_blocks_{j}"][0]
            close(block, golden[f"layer{i}.block{j}.out"], 1e-5)
        close(nn.relu(taps[f"layers_{i}_conv"][0]), golden[f"layer{i}.out"], 1e-5)
    close(to_nchw(out), golden["out"], 1e-5)


@pytest.mark.slow
def test_the_published_net_and_each_of_its_parts():
    golden = Golden("maniqa_full")
    views = Views(golden.image()[:, None])
    out, taps = nets.run("maniqa", golden.tensors(), views, features=True)

    def at(name):
        return f"guidance/{name}"

    names = {f"vit.block{i}": at(f"vit/blocks_{i}") for i in range(10)}
    nets.each(golden, taps, {**names, "vit.patch_embed": at("vit/patch_embed")}, 1e-4)
    z_BCN = taps["guidance:features"][0]
    golden.check("feat_cat_transposed_b3072x784", z_BCN, 1e-4)
    golden.check("feat_cat_b784x3072", z_BCN.swapaxes(1, 2), 1e-4)
    tabs = {f"stage{s}.tab{i}": at(f"tablock{s}_{i}") for s in (1, 2) for i in (0, 1)}
    nets.each(golden, taps, tabs, 2e-4)
    maps = {"stage1.conv": "conv1_0", "stage1.swin_out": "swin1"}
    maps |= {"stage2.conv": "conv2", "stage2.swin_out": "swin2"}
    nets.each(golden, taps, {k: at(v) for k, v in maps.items()}, 2e-4, to_nchw)
    for stage in (1, 2):
        for i in (0, 1):
            layer = nn.relu(taps[at(f"swin{stage}/layers_{i}_conv")][0])
            golden.check(f"stage{stage}.swin.layer{i}_before_scale_and_skip", layer, 2e-4)
    close(taps[at("head/score_1")][0], golden["patch_score_prerelu"], 2e-4)
    close(out["map_score_guidance"], golden["patch_score"], 2e-4)
    close(out["map_weight_guidance"], golden["patch_weight"], 2e-4)
    near(out["score"], golden["score"], 1e-4, relative=True)


def test_the_residual_scale_is_in_the_card():
    shapes = published.Shapes(
        {
            **{f"layers_0_blocks_{i}/fc1/kernel": (8, 12) for i in (0, 1)},
            "layers_0_blocks_0/attn/relative_position_bias_table": (49, 2),
        }
    )
    want = {"depths": (2,), "heads": (2,), "window": 4, "mlp": 12, "scale": 0.13}
    assert published.swin(shapes, 0.13) == want
