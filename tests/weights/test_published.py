import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.weights import files, published, renames
from tests import theirs


@pytest.mark.parametrize(
    "net, attend, settings, parameters",
    [
        (
            dict(inner=64, mults=(1, 2, 4, 8, 8), blocks=2),
            (3,),
            dict(attn_res=(16,), groups=32, image_size=128),
            97_807_491,
        ),
        (
            dict(inner=64, mults=(1, 2, 4, 8, 16), blocks=1),
            (),
            dict(attn_res=(), groups=16, image_size=512),
            155_334_339,
        ),
        (
            dict(inner=64, mults=(1, 1, 2, 2, 4, 4), blocks=2, variant="ddpm"),
            (3,),
            dict(attn_res=(16,), image_size=128, embedding="step"),
            26_451_587,
        ),
    ],
    ids=["16_128", "64_512", "ddpm"],
)
def test_settings_of_the_published_unets_are_read_off(net, attend, settings, parameters):
    variant = net.get("variant", "sr3")
    shapes = {}
    for name, shape in theirs.unet(**net, attend=attend):
        hollow = np.broadcast_to(np.float32(0), shape)
        ours, layout = files.target(variant, name)
        assert ours, name
        shapes[ours.partition("/")[2]] = renames.LAYOUTS[layout](hollow).shape
    read_off = published.KINDS[variant].settings(published.Shapes(shapes))
    assert read_off["multipliers"] == net["mults"] and read_off["res_blocks"] == net["blocks"]
    assert read_off | settings == read_off
    # Every name and shape is that of our net, and no other.
    module = published.KINDS[variant].module(**read_off)
    x = jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(module.init, jax.random.key(0), x, x, jnp.ones(1))["params"]
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    assert {k[7:]: x.shape for k, x in files.flatten(theirs.weights(params)).items()} == shapes


@pytest.mark.parametrize("kind, variant", [("sr3", "sr3"), ("ddpm", "ddpm")])
def test_a_unet_of_any_other_size_needs_what_weights_do_not_tell(kind, variant):
    net = dict(inner=8, mults=(1, 2), blocks=1, attend=(1,), variant=variant)
    tensors = {"denoise_fn." + k: x for k, x in theirs.random(theirs.unet(**net)).items()}
    with pytest.raises(ValueError, match="give groups and image_size"):
        published.convert(kind, tensors)
    weights, card, report = published.convert(kind, tensors, groups=4, image_size=32)
    assert card["settings"]["attn_res"] == (16,) and len(report) == len(tensors)
    apply = published.module(card).apply
    x = jnp.zeros((1, 16, 16, 3))
    out = jax.eval_shape(lambda p: apply({"params": p}, x, x, jnp.ones(1)), weights.params)
    assert out.shape == (1, 16, 16, 3)


def test_an_unconditional_unet_has_no_condition():
    tensors = theirs.random(theirs.unet(8, (1, 2), 1, channels=3))
    weights, card, _ = published.convert("sr3", tensors, groups=4, image_size=32)
    apply = published.module(card).apply
    y = jnp.zeros((1, 16, 16, 3))
    out = jax.eval_shape(lambda p: apply({"params": p}, None, y, jnp.ones(1)), weights.params)
    assert out.shape == y.shape


def test_a_vit_in_jax_layout_is_the_same_as_in_pytorchs():
    tensors = theirs.random(theirs.vit())
    one, card, _ = published.convert("vit_timm", tensors)
    two, same, _ = published.convert("vit_augreg", theirs.to_augreg(tensors, heads=2))
    assert card["settings"] == same["settings"] and card["settings"]["heads"] == 2
    assert card["settings"]["classes"] == 5
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_vit_is_resized_on_request():
    tensors = theirs.random(theirs.vit(patch=4, side=4))
    resized = {"image_size": 48, "patch": 8, "heads": 2}
    weights, card, _ = published.convert("vit_timm", tensors, **resized)
    assert card["settings"]["image_size"] == 48 and card["settings"]["patch"] == 8
    assert weights.params["pos_embed"].shape == (1, 37, 128)
    kernel = weights.params["patch_embed"]["kernel"]
    assert kernel.shape == (8, 8, 3, 128)
    other, _, _ = published.convert("vit_timm", tensors, **resized, patch_filter="bicubic")
    assert not np.allclose(kernel, other.params["patch_embed"]["kernel"])


@pytest.mark.parametrize(
    "hints, words",
    [
        ({"image_size": 30}, "patch 4: does not divide image_size 30"),
        ({"scale": 0.13}, "'scale'.*: not settings of kind 'vit_timm', which takes .'heads'"),
        ({"normalise": "zero"}, "known are .'half', 'imagenet'"),
    ],
)
def test_settings_that_a_kind_does_not_have_are_refused(hints, words):
    with pytest.raises(ValueError, match=words):
        published.convert("vit_timm", theirs.random(theirs.vit()), **hints)


def test_a_checkpoint_of_another_kind_is_refused_in_one_line():
    with pytest.raises(ValueError, match="no telling.*unknown: cls_token, pos_embed"):
        published.convert("sr3", theirs.random(theirs.vit()))
    with pytest.raises(ValueError, match="give heads"):
        published.convert("vit_timm", theirs.random(theirs.vit(width=36)))
