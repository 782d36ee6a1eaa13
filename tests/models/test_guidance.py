import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models.guidance import Guidance
from diffv2iqa_jax.types import Views
from tests import tiny

VIEWS = Views(tiny.images(0, 2, 4, 16, 16, 3))
BRANCH = Guidance(**tiny.guidance(select=((0, 1), (0,), (1,), (1,)), vit=tiny.vit(depth=2)))


VARIABLES = tiny.variables(BRANCH, VIEWS)


@jax.jit
def run(image_BVHWC):
    """What the branch returns, and Z."""

    def capture(module, method):
        return method == "features"

    out, seen = BRANCH.apply(VARIABLES, Views(image_BVHWC), capture_intermediates=capture)
    return out, seen["intermediates"]["features"][0]


def test_a_group_of_channels_shows_its_view_and_its_mark():
    """Blocks 0 and 1 of the image, 0 of the restored one, 1 of either noisy state."""
    (score, patches, weights), z = run(VIEWS.image_BVHWC)
    assert score.shape == (2,) and patches.shape == weights.shape == (2, 4, 4)
    ends = np.cumsum([0, 2 * 16 + 4, 16 + 4, 16 + 4, 16 + 4])
    assert z.shape == (2, ends[-1], 16)
    for view, (start, end) in enumerate(itertools.pairwise(ends)):
        (_, other_patches, _), other = run(VIEWS.image_BVHWC.at[:, view].multiply(-1))
        assert np.any(other_patches != patches)
        changed = np.flatnonzero(np.any(other != z, axis=(0, 2)))
        np.testing.assert_array_equal(changed, range(start, end - 4))
        mark = np.broadcast_to(VARIABLES["params"]["noise_embedding"][view][:, None], (4, 16))
        np.testing.assert_array_equal(z[:, end - 4 : end], [mark, mark])


def test_one_view_without_a_mark_has_no_parameter_for_it():
    branch = Guidance(**tiny.guidance(select=((0,),), noise_width=0))
    params = jax.eval_shape(branch.init, jax.random.key(0), Views(jnp.zeros((1, 1, 16, 16, 3))))
    assert "noise_embedding" not in params["params"]
    assert all(leaf.size for leaf in jax.tree.leaves(params))


def test_too_few_views_are_refused():
    with pytest.raises(ValueError, match="names 4 views, there are 2"):
        BRANCH.apply(VARIABLES, Views(VIEWS.image_BVHWC[:, :2]))


def test_a_view_without_blocks_is_left_out():
    branch = Guidance(**tiny.guidance(select=((0,), (), (0,), ())))
    variables = tiny.variables(branch, VIEWS)
    run = jax.jit(lambda image: branch.apply(variables, Views(image))[0])
    image = VIEWS.image_BVHWC
    changed = [bool(np.any(run(image.at[:, v].multiply(-1)) != run(image))) for v in range(4)]
    assert changed == [True, False, True, False]
    with pytest.raises(ValueError, match="must name a block of some view"):
        Guidance(**tiny.guidance(select=((), ()))).apply(variables, VIEWS)
