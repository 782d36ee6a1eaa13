from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models.resnet import ResNet
from tests import tiny

IMAGE = tiny.images(0, 2, 16, 16, 3)


def small(norm, **settings):
    return ResNet(**tiny.resnet(norm=norm, blocks=(1, 1), **settings))


def test_stages_of_resnet50_have_the_published_shapes():
    net, image = ResNet(classes=1000), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    stages, logits = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], image)
    want = [(56, 256), (28, 512), (14, 1024), (7, 2048)]
    assert [stage.shape for stage in stages] == [(1, side, side, c) for side, c in want]
    assert logits.shape == (1, 1000)
    assert ResNet(blocks=(1,)).apply(tiny.variables(ResNet(blocks=(1,)), IMAGE), IMAGE)[1] is None


def test_a_frozen_norm_ignores_the_batch():
    net = small("frozen", classes=3)
    variables = tiny.variables(net, IMAGE)
    run = jax.jit(lambda x: net.apply(variables, x, train=True, mutable=["batch_stats"]))
    (stages, logits), changed = run(IMAGE)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, net.apply(variables, IMAGE), (stages, logits))
    other, _ = run(IMAGE.at[1].set(5.0))
    close(other[1][0], logits[0])


def test_batch_norm_learns_from_the_batch_and_group_norm_does_not():
    net = small("batch")
    variables = tiny.variables(net, IMAGE)

    def train(x):  # one device's view of the mapped axis
        return net.apply(variables, x, train=True, mutable=["batch_stats"])

    run = jax.jit(tiny.over_devices(train))
    (stages, _), changed = run(IMAGE[:, None])
    before, after = variables["batch_stats"]["bn1"]["batch"], changed["batch_stats"]["bn1"]["batch"]
    assert np.any(after["mean"][0] != before["mean"])
    # Both rows saw the statistics of both, as one device with both images would.
    np.testing.assert_array_equal(after["mean"][0], after["mean"][1])
    (whole, _), _ = run(IMAGE[None])
    np.testing.assert_allclose(stages[-1][:, 0], whole[-1][0], rtol=1e-4, atol=1e-5)
    # By its running statistics it is the frozen one.
    frozen, _ = small("frozen").apply(variables, IMAGE)
    np.testing.assert_array_equal(net.apply(variables, IMAGE)[0][-1], frozen[-1])
    assert set(jax.eval_shape(small("group").init, jax.random.key(0), IMAGE)) == {"params"}


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"'layer': known are \['batch', 'frozen', 'group'\]"):
        small("layer").init(jax.random.key(0), IMAGE)
