"""ViT-B/8 and ResNet50."""

import flax.linen as nn
import pytest

from diffv2iqa_jax.models.vit import Block
from tests.parity import nets
from tests.parity.golden import Golden, close, to_nchw


def test_a_vit_block_and_its_epsilon():
    golden = Golden("timm_vit_block_eps")
    net = Block(heads=2, mlp=64, attention=None, dtype="float32")
    out = nets.part("vit_timm", golden, "blocks.0.", "blocks_0", net, golden["x"])
    close(out, golden["out"], 1e-4)


@pytest.mark.slow
def test_vit_b8_and_each_of_its_blocks():
    golden = Golden("timm_vit_b8")
    (features, _, tokens), taps = nets.run("vit_timm", golden.tensors(), golden.image())
    inner = {"norm1": "norm1", "attn": "proj", "norm2": "norm2", "mlp": "fc2"}
    names = {f"block0.{theirs}": f"blocks_0/{ours}" for theirs, ours in inner.items()}
    names |= {f"block{i}": f"blocks_{i}" for i in range(12)}
    nets.each(golden, taps, {"patch_embed": "patch_embed", "norm": "norm", **names}, 1e-4)
    golden.check("forward_out_nocls", tokens, 1e-4)
    block9 = taps["blocks_9"][0]
    close(block9[:, :4], golden["block9.first4tokens_full"], 1e-4)
    close(block9[..., 0], golden["block9.channel0_all_tokens"], 1e-4)
    close(features[9], block9[:, 1:], 0)


def test_resnet50_and_each_of_its_blocks():
    golden = Golden("timm_resnet50")
    (stages, logits), taps = nets.run("resnet50", golden.tensors(), golden.image())
    blocks = [n for n in golden.about["tensors_with_stats"] if n.startswith("layer") and "." in n]
    names = {n: n.replace(".", "_") for n in blocks}
    names |= {"conv1": "conv1", "bn1_prerelu": "bn1"}
    nets.each(golden, taps, names, 1e-4, to_nchw)
    first = nn.relu(taps["bn1"][0])
    golden.check("act1", to_nchw(first), 1e-4)
    for i, stage in enumerate(stages, start=1):
        golden.check(f"layer{i}", to_nchw(stage), 1e-4)
    close(to_nchw(stages[-1]), golden["layer4.full"], 1e-4)
    close(logits, golden["logits.full"], 1e-4)
