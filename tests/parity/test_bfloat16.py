"""Each net in bfloat16 against itself in float32, with the fixtures' weights and inputs."""

import jax
import numpy as np
import pytest

from diffv2iqa_jax.types import Views
from diffv2iqa_jax.weights import published
from tests.parity import nets
from tests.parity.golden import Golden, within


def unet(golden):
    return (*np.split(golden.image(), 2, axis=-1), golden["noise_level"][:, 0])


def image(golden):
    return (golden.image(),)


def view(golden):
    return (Views(golden.image()[:, None]),)


def four_views(golden):
    names = ("x_dis", "y_0", "y_t1", "y_t2")
    return (Views(np.stack([golden.image(n) for n in names], axis=1)),)


# fixture: (kind, its inputs, what to compare of the output, settings, bound). The bound is on the
# largest difference in standard deviations of the float32 output; of one score, relative.
CASES = {
    "sr3_unet_small": ("sr3", unet, lambda out: out, {"groups": 8, "image_size": 32}, 0.1),
    "vcrnet_restore_64": ("vcrnet_restore", image, lambda out: out[0], {}, 0.1),
    "vcrnet_quality": ("vcrnet", image, lambda out: out[0], {}, 0.05),
    "timm_resnet50": ("resnet50", image, lambda out: out[1], {}, 0.1),
    "timm_vit_b8": ("vit_timm", image, lambda out: out[2], {}, 0.1),
    "maniqa_full": ("maniqa", view, lambda out: out["score"], {}, 0.02),
    "diffv2iqa_release_9001": ("diffv2iqa_release", four_views, lambda o: o["score"], {}, 0.02),
}
SLOW = ("timm_vit_b8", "maniqa_full", "diffv2iqa_release_9001")
# Scores in float32 that the fixture has; that ours are these is tested in its own file.
KNOWN = {"maniqa_full": "score", "diffv2iqa_release_9001": "sum_w2_5"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES]
)
def test_bfloat16_stays_near_float32(name):
    kind, inputs, pick, hints, bound = CASES[name]
    golden = Golden(name)
    weights, card, _ = published.convert(kind, golden.tensors(), **hints)
    net = published.module(card)

    def run(net):
        return pick(jax.jit(net.apply)(nets.variables(weights), *inputs(golden)))

    def run_in(dtype):
        return np.asarray(run(net.clone(dtype=dtype)), float)

    full = golden[KNOWN[name]] if name in KNOWN else run_in("float32")
    half = run_in("bfloat16").reshape(full.shape)
    size = full.std() if full.size > 1 else abs(full).max()
    assert within(abs(half - full).max() / size, bound, "of the float32 output") > 1e-6
