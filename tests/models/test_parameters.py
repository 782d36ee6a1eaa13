"""Parameter counts of the published nets, without computing anything."""

import math

import jax
import jax.numpy as jnp
import pytest

from diffv2iqa_jax.models.guidance import Guidance
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.models.vit import ViT
from diffv2iqa_jax.types import Views

RELEASE_DIFFERENCE = {
    "form": "logits",
    "absolute": True,
    "width": 32,
    "normalise": "half",
    "resnet": {"classes": 1000},
}
VIT, RESNET = 85_807_872, 23_508_032


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def tree(module, *args):
    return jax.eval_shape(module.init, jax.random.key(0), *args)["params"]


def count(params) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def views(number):
    return Views(shape(1, number, 224, 224, 3))


@pytest.mark.parametrize(
    ("settings", "conditional", "parameters"),
    [
        ({}, True, 97_807_491),
        ({}, False, 97_805_763),
        (
            {"multipliers": (1, 2, 4, 8, 16), "res_blocks": 1, "attn_res": ()}
            | {"groups": 16, "image_size": 512},
            True,
            155_334_339,
        ),
        (
            {"inner": 16, "groups": 8, "multipliers": (1, 2, 4), "attn_res": (8,)}
            | {"res_blocks": 1, "image_size": 32},
            True,
            661_619,
        ),
    ],
    ids=["16_128", "unconditional", "64_512", "small"],
)
def test_the_unet_has_as_many_as_sr3s(settings, conditional, parameters):
    image = shape(1, 64, 64, 3)
    params = tree(UNet(**settings), image if conditional else None, image, shape(1))
    assert count(params) == parameters


def test_vit_b8_has_as_many_as_timms():
    image = shape(1, 224, 224, 3)
    assert count(tree(ViT(final=True), image)) == VIT
    assert count(tree(ViT(final=True, classes=1000), image)) == 86_576_872
    # Blocks 10 and 11 and the last norm do not reach the taps, so they are not there.
    assert count(tree(ViT(), image)) == VIT - 2 * 7_087_872 - 1_536


def test_resnet50_has_as_many_as_timms():
    image = shape(1, 224, 224, 3)
    params = tree(ResNet(), image)
    stages = [
        sum(count(block) for name, block in params.items() if name.startswith(f"layer{i}_"))
        for i in (1, 2, 3, 4)
    ]
    assert stages == [215_808, 1_219_584, 7_098_368, 14_964_736]
    assert count(params) == RESNET
    assert count(tree(ResNet(classes=1000), image)) == 25_557_032


def test_guidance_with_one_view_is_maniqa():
    maniqa = Guidance(select=((6, 7, 8, 9),), noise_width=0, reduce=(768,))
    assert count(tree(maniqa, views(1))) == 114_164_578


def test_the_presets_are_the_sum_of_their_parts():
    paper = tree(QualityModel({"guidance": {}, "difference": {}}), views(4))
    release = tree(
        QualityModel({"guidance": {}, "difference": RELEASE_DIFFERENCE}, share_tabs=True, w2=5.0),
        views(4),
    )
    tab, conv = 3 * (784**2 + 784), lambda a, b: a * b + b

    def heads(width):
        return 2 * (conv(width, width) + conv(width, 1))

    # Four noise vectors, four TABs, Z = 8 * 768 + 4 * 192 channels; Swins without `downsample`.
    guidance = VIT - 2 * 7_087_872 - 1_536 + 4 * 192 + 4 * tab
    guidance += conv(6912, 2304) + conv(2304, 768) + conv(768, 384) + heads(384)
    guidance += 30_114_832 - 5_309_184 + 8_718_736 - 1_327_488
    assert count(paper["guidance"]) == guidance
    rtab = 3 * (49**2 + 49)
    assert count(paper) == guidance + RESNET + rtab + heads(2048) == 161_415_258
    logits = RESNET + conv(2048, 1000) + 4 * conv(1000, 784) + conv(1, 32) + heads(32)
    assert count(release) == guidance + logits == 158_201_484
    # The first TABs belong to both branches.
    assert count(release["tablock1_0"]) == tab and "tablock1_0" not in release["guidance"]
