import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models.efficientnet import EfficientNet
from diffv2iqa_jax.models.vcr import Restoration, VCRBranch, VCRNet
from diffv2iqa_jax.types import Views
from tests import tiny

STAGES = ((1, 3, 1, 1, 4), (1, 3, 2, 2, 4), (1, 5, 2, 2, 4), (2, 3, 2, 2, 4), (1, 3, 2, 2, 4))
SMALL = VCRNet(width=2, scale_width=2, hidden=8, stages=STAGES, stem=4, head=8)


def parameters(net) -> int:
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def test_parameters_are_those_published():
    assert parameters(Restoration()) == 9_667_044
    classifier = 1000 * 1280 + 1000  # published with EfficientNet, never used
    assert parameters(EfficientNet()) == 5_288_548 - classifier
    assert parameters(VCRNet()) == 16_659_282 - classifier


def shapes(net, image, **settings):
    """Shapes of the output; nothing is compiled."""
    variables = tiny.variables(net, image)
    return jax.eval_shape(lambda x: net.apply(variables, x, **settings), image)


def test_a_restored_image_has_the_size_of_the_image():
    image = tiny.images(0, 2, 32, 48, 3)
    restored, features = shapes(Restoration(width=2), image)
    assert restored.shape == image.shape
    assert [x.shape[1:3] for x in features] == [(4, 6), (8, 12), (16, 24), (32, 48)]
    with pytest.raises(ValueError, match="must divide by 16"):
        shapes(Restoration(width=2), tiny.images(0, 1, 40, 32, 3))


def test_training_moves_the_running_statistics_by_all_devices_images():
    net, image = Restoration(width=1), tiny.images(0, 4, 16, 16, 3)
    variables = tiny.variables(net, image)

    @jax.jit
    def train(image_DBHWC):
        def step(x):
            return net.apply(variables, x, train=True, mutable=["batch_stats"])[1]

        return tiny.over_devices(step)(image_DBHWC)

    def norm(tree):
        return tree["batch_stats"]["unit1"]["bn"]["batch"]

    halves, whole = train(image.reshape(2, 2, 16, 16, 3)), train(image[None])
    for name, moved in norm(halves).items():
        assert not np.allclose(moved[0], norm(variables)[name])
        np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6)
        np.testing.assert_allclose(moved[0], norm(whole)[name][0], rtol=1e-4, atol=1e-6)


def test_frozen_norms_ask_for_no_statistics_in_training():
    image = tiny.images(0, 1, 32, 32, 3)
    score, _ = shapes(SMALL.clone(norm="frozen"), image, train=True)
    assert score.shape == (1,)


def test_an_efficientnet_without_enough_halvings_is_refused():
    with pytest.raises(ValueError, match="4 halvings where 5"):
        shapes(SMALL.clone(stages=STAGES[:-1]), tiny.images(0, 1, 32, 32, 3))


def test_as_a_branch_it_judges_the_image_alone():
    net = {k: getattr(SMALL, k) for k in ("width", "scale_width", "hidden", "stages", "stem")}
    branch = VCRBranch(net={**net, "head": SMALL.head})
    views = Views(tiny.images(1, 2, 3, 64, 64, 3))
    variables = tiny.variables(branch, views)
    run = jax.jit(lambda image: branch.apply(variables, Views(image)))
    score, patches, weights = run(views.image_BVHWC)
    np.testing.assert_array_equal(patches[:, 0, 0], score)
    assert patches.shape == weights.shape == (2, 1, 1) and np.all(weights == 1)
    np.testing.assert_array_equal(run(views.image_BVHWC[:, :1])[0], score)
    assert np.all(run(-views.image_BVHWC)[0] != score)
