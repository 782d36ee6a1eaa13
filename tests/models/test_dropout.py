"""What training drops of an image depends on that image's key alone, in every model that drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax import rng
from diffv2iqa_jax.models.layers import Dropout
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.types import Views
from tests import tiny

IMAGES, RATE = 3, 0.5
TURN = np.array([2, 0, 1])
TAB = {"dropout": RATE}
SWIN = {"depths": (2,), "heads": (2,), "mlp": 16, "dropout": RATE, "drop_path": RATE}
GUIDANCE = tiny.guidance(tab=TAB, swin=SWIN, dropout=RATE)
DIFFERENCE = tiny.difference(tab=TAB, dropout=RATE)
LOGITS = DIFFERENCE | {"form": "logits", "positions": 16, "resnet": tiny.resnet(classes=8)}
# The first stage has a second block, hence a path that can be dropped.
STAGES = ((2, 3, 1, 1, 4), (1, 3, 2, 2, 4), (1, 5, 2, 2, 4), (1, 3, 2, 2, 4), (1, 3, 2, 2, 4))
VCR = {"width": 2, "scale_width": 2, "hidden": 16, "stages": STAGES, "stem": 4, "head": 8}


def quality(views=4, size=tiny.SIZE, **settings):
    return QualityModel(**settings), (Views(tiny.images(0, IMAGES, views, size, size, 3)),)


def unet():
    x = tiny.images(0, IMAGES, tiny.SIZE, tiny.SIZE, 3)
    return UNet(**tiny.restorer(net={"dropout": RATE})["net"]), (x, -x, jnp.full(IMAGES, 0.5))


MODELS = {
    "unet": unet,
    "stages": lambda: quality(branches={"guidance": GUIDANCE, "difference": DIFFERENCE}),
    "shared tabs": lambda: quality(
        branches={"guidance": GUIDANCE, "difference": LOGITS}, share_tabs=True
    ),
    "vcrnet": lambda: quality(1, 32, branches={"vcrnet": {"net": VCR | {"norm": "frozen"}}}),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_images_key_alone_decides_what_is_dropped_of_it(name, monkeypatch):
    net, inputs = MODELS[name]()
    variables = tiny.variables(net, *inputs)

    @jax.jit
    def run(inputs, drop_key_B):
        """The output of each image, and the keys by which something of it was dropped."""
        keys = []

        def chosen(key_B, *args, draw=rng.chosen):
            keys.append(jax.random.key_data(key_B))
            return draw(key_B, *args)

        with monkeypatch.context() as patched:
            patched.setattr(rng, "chosen", chosen)
            out = net.apply(variables, *inputs, drop_key_B=drop_key_B)
        return out["score"] if isinstance(out, dict) else out, jnp.stack(keys)

    key_B = rng.per_image(rng.stream(0, "test"), jnp.arange(IMAGES))
    out, keys = run(inputs, key_B)
    turned, _ = run(jax.tree.map(lambda x: x[TURN], inputs), key_B[TURN])
    np.testing.assert_allclose(turned, out[TURN], rtol=1e-5, atol=1e-6)
    other, _ = run(inputs, key_B[jnp.array([0, 0, 1])])
    np.testing.assert_allclose(other[0], out[0], rtol=1e-5, atol=1e-6)
    assert all(np.any(np.abs(other[i] - out[i]) > 1e-3) for i in (1, 2))
    flat = {tuple(key) for key in np.asarray(keys).reshape(-1, keys.shape[-1]).tolist()}
    assert len(keys) >= 2 and len(flat) == len(keys) * IMAGES  # no two modules draw the same


def test_the_share_that_is_dropped_and_what_becomes_of_the_rest():
    x = jnp.ones((200, 5, 40))
    key_B = rng.per_image(rng.stream(0, "test"), jnp.arange(len(x)))
    out = np.asarray(Dropout(0.2).apply({}, x, key_B))
    assert set(np.unique(out)) == {0, np.float32(1 / 0.8)}
    np.testing.assert_allclose(np.mean(out == 0), 0.2, atol=0.01)  # five standard deviations
    whole = np.asarray(Dropout(0.2, whole=True).apply({}, x, key_B))
    assert np.all(whole == whole[:, :1, :1]) and 0.05 < np.mean(whole == 0) < 0.35
    for kept in (Dropout(0.0).apply({}, x, key_B), Dropout(0.2).apply({}, x, None)):
        np.testing.assert_array_equal(kept, x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(ValueError, match=f"dropout {rate}: must be at least 0 and less than 1"):
        Dropout(rate).apply({}, jnp.ones((1, 2)), None)
