import re

import flax.linen as nn
import jax
import pytest

from diffv2iqa_jax.models.layers import Dropout
from diffv2iqa_jax.models.vcr import Scales
from diffv2iqa_jax.weights import published
from tests.parity import nets
from tests.parity.golden import Golden, close, drawn, near, to_nchw, to_nhwc


def ours(name: str) -> str:
    """Their submodule -> ours."""
    part = {"": "/square", "_2": "/column", "_3": "/row"}
    if found := re.fullmatch(r"conv(\d+)(_[23])?", name):
        return f"unit{found[1]}{part[found[2] or '']}"
    return re.sub("^bn(.+)", r"unit\1/bn", name).replace("GP_conv", "image")


@pytest.mark.parametrize("name", ["vcrnet_restore_64"])
def test_restoration_and_each_of_its_layers(name):
    golden = Golden(name)
    (restored, features), taps = nets.run("vcrnet_restore", golden.tensors(), golden.image())
    layers = [n for n in golden.about["tensors_with_stats"] if n.startswith("mod.")]
    names = {n: ours(n.removeprefix("mod.")) for n in layers if "pool" not in n}
    nets.each(golden, taps, names, 1e-4, to_nchw)
    for i, x in enumerate(features, start=1):
        golden.check(f"concatenate{i}", to_nchw(x), 1e-4)
    close(to_nchw(restored), golden["restored.full"], 1e-4)


@pytest.mark.parametrize("name", ["vcrnet_inception1"])
def test_multi_scale_block(name):
    golden = Golden(name)
    about = golden.about["config"]
    pad = 1 if about["stride"] == 2 else 0
    net = Scales(about["outchannel"], about["stride"], pad, "batch", "float32")
    args = "vcrnet", golden, "inception1_1.", "inception1_1", net, golden.image()
    close(to_nchw(nets.part(*args, train=False)), golden["out"], 1e-5)


@pytest.fixture(scope="module")
def quality():
    golden = Golden("vcrnet_quality")
    return golden, *published.convert("vcrnet", golden.tensors())


def test_quality_net_and_each_of_its_parts(quality):
    golden, weights, card, report = quality
    (score, restored), taps = nets.apply(published.module(card), weights, golden.image())
    nets.each(
        golden,
        taps,
        {f"eff.block{i}": f"efficient/blocks_{i}" for i in range(16)},
        2e-4,
        to_nchw,
    )
    for i, x in enumerate(taps["efficient"][0], start=1):
        golden.check(f"eff.reduction_{i}", to_nchw(x), 2e-4)
    scales = {n: n for n in golden.about["tensors_with_stats"] if n.startswith("inception")}
    nets.each(golden, taps, scales, 2e-4, to_nchw)
    golden.check("VCR.restored", to_nchw(restored), 2e-4)
    close(taps["fc1"][0], golden["fc1.full"], 2e-4)
    close(taps["prelu"][0], golden["dropout_in.full"], 2e-4)
    close(taps["fc2"][0], golden["fc2_out_dropout_off.full"], 2e-4)
    near(score, golden["score_dropout_off"], 1e-5)
    dropped = {name for name, _, our_name in report if our_name == "dropped"}
    assert "efficient._fc.weight" in dropped


def test_the_dropout_that_is_never_off(quality):
    golden, weights, card, _ = quality
    image = golden.image()
    keys = jax.random.split(jax.random.key(0), len(image))

    def keep_these(call, args, kwargs, context):
        if isinstance(context.module, Dropout):  # theirs never drops a path outside of training
            return args[0] if context.module.whole else args[0] * golden["dropout_keep_mask"] * 2
        return call(*args, **kwargs)

    with nn.intercept_methods(keep_these):
        net = published.module(card)
        score, _ = jax.jit(net.apply)(nets.variables(weights), image, drop_key_B=keys)
    near(score, golden["score_with_mask"], 1e-5)


def test_another_image_size(quality):
    golden, weights, card, _ = quality
    x = to_nhwc(drawn(int(golden["x256_seed"]), (1, 3, 256, 256), "standard_normal"))
    score, _ = jax.jit(published.module(card).apply)(nets.variables(weights), x)
    near(score, golden["score256_dropout_off"], 1e-5)
