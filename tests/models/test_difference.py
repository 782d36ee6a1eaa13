import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models.difference import Difference
from diffv2iqa_jax.models.layers import TransposedAttention
from diffv2iqa_jax.types import Views
from tests import tiny

IMAGE = tiny.images(0, 2, 4, 16, 16, 3)
LOGITS = tiny.difference(form="logits", positions=16, resnet=tiny.resnet(classes=5))


class Stages(nn.Module):
    @nn.compact
    def __call__(self, views):
        return Difference(**tiny.difference(resnet=tiny.resnet(classes=5)))(views)


class Logits(nn.Module):
    """With a TAB as the guidance branch would share it."""

    @nn.compact
    def __call__(self, views):
        return Difference(**LOGITS)(views, [TransposedAttention(dropout=0.0)])


MORE = [
    Difference(**tiny.difference(mix="concat")),
    Difference(**tiny.difference(mix="difference")),
    Difference(**LOGITS, tabs=1),  # of its own
]


@pytest.mark.parametrize("branch", [Stages(), Logits(), *MORE])
def test_every_view_matters_and_images_do_not_meet(branch):
    variables = tiny.variables(branch, Views(IMAGE))
    run = jax.jit(lambda image: branch.apply(variables, Views(image)))
    score, patches, weights = run(IMAGE)
    assert score.shape == (2,)
    # The last stage's 4 x 4 map; the 16 positions that the logits are projected to.
    assert patches.shape == weights.shape == (2, 4, 4)
    for view in range(4):
        assert np.all(np.any(run(IMAGE.at[:, view].multiply(-1))[1] != patches, axis=(1, 2)))
    turned = run(IMAGE[::-1])
    np.testing.assert_allclose(turned[0][::-1], score, rtol=1e-5)


def test_settings_and_views_that_do_not_fit_are_refused():
    def init(branch, views):
        return jax.eval_shape(
            branch.init, jax.random.key(0), Views(jnp.zeros((1, views, 16, 16, 3)))
        )

    with pytest.raises(ValueError, match="there are views 0 to 2 only"):
        init(Difference(**tiny.difference()), 3)
    with pytest.raises(ValueError, match=r"form 'map': known are \['stages', 'logits'\]"):
        init(Difference(**tiny.difference(form="map")), 4)
    with pytest.raises(ValueError, match="normalise 'mean': known are"):
        init(Difference(**tiny.difference(normalise="mean")), 4)
    with pytest.raises(ValueError, match=r"mix 'sum': known are \['rtab', 'concat', 'differ"):
        init(Difference(**tiny.difference(mix="sum")), 4)
    with pytest.raises(ValueError, match="three views from 1"):
        init(Difference(**tiny.difference(compare=(0, 1, 2))), 4)
    with pytest.raises(ValueError, match="three views from 1"):
        init(Difference(**LOGITS | {"compare": ()}), 4)


def test_only_the_compared_views_are_looked_at():
    branch = Difference(**tiny.difference(compare=(1, 1, 3)))
    variables = tiny.variables(branch, Views(IMAGE))
    run = jax.jit(lambda image: branch.apply(variables, Views(image))[0])
    changed = [bool(np.any(run(IMAGE.at[:, v].multiply(-1)) != run(IMAGE))) for v in range(4)]
    assert changed == [True, True, False, True]


def test_comparing_nothing_looks_at_the_image_alone():
    """The same features and head as with comparisons, and what they score without a restorer."""
    branch = Difference(**tiny.difference(compare=()))
    variables = tiny.variables(branch, Views(IMAGE))
    assert set(variables["params"]) == {"resnet", "head"}
    run = jax.jit(lambda image: branch.apply(variables, Views(image))[0])
    np.testing.assert_array_equal(run(IMAGE[:, :1]), run(IMAGE))
    assert np.all(run(IMAGE.at[:, 0].multiply(-1)) != run(IMAGE))


def test_normed_features_do_not_depend_on_their_size():
    """Where the ResNet's last layers put out three times as much, only unnormed scores move."""
    settings = {"normalise": "half", "resnet": tiny.resnet(norm="frozen")}

    def variables(branch):
        return jax.tree.map(jnp.asarray, tiny.variables(branch, Views(IMAGE)))

    for normed in (True, False):
        branch = Difference(**tiny.difference(layer_norm=normed, **settings))
        v = variables(branch)
        score = branch.apply(v, Views(IMAGE))[0]
        resnet = v["params"]["resnet"]
        for name in ("bn3", "downsample_1"):  # the last layers before the features
            for leaf in ("scale", "bias"):
                resnet["layer1_0"][name]["batch"][leaf] *= 3.0
        close = np.allclose(branch.apply(v, Views(IMAGE))[0], score, rtol=1e-3)
        assert close == normed


@pytest.mark.parametrize("absolute", [True, False])
def test_absolute_differences_forget_their_sign(absolute):
    """With the mean difference alone, an image and its restoration may change places."""
    settings = tiny.difference(mix="difference", compare=(1, 1, 1), absolute=absolute)
    branch = Difference(**settings)
    variables = tiny.variables(branch, Views(IMAGE))
    score = jax.jit(lambda image: branch.apply(variables, Views(image))[0])
    swapped = IMAGE[:, jnp.array([1, 0, 2, 3])]
    assert np.allclose(score(swapped), score(IMAGE), rtol=1e-5) == absolute
