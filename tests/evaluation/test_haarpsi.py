import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import degrade
from diffv2iqa_jax.evaluation import full_reference, haarpsi

REFERENCE = np.stack([scenes.scene(i, 48) for i in range(4)])
TYPES = ("jpeg", "white_noise", "motion_blur", "brighten")
IMAGE = np.stack([degrade.degrade(x, t, 3, seed=0) for x, t in zip(REFERENCE, TYPES, strict=True)])


@pytest.mark.parametrize("subsample", [True, False])
def test_haarpsi_is_that_of_the_host(subsample):
    of = jax.jit(lambda a, b: haarpsi.haarpsi(a, b, subsample=subsample))
    flat = np.zeros_like(REFERENCE)
    for a, b in ((REFERENCE, IMAGE), (REFERENCE, REFERENCE), (flat, flat), (flat, IMAGE)):
        want = [full_reference.haarpsi(*p, subsample=subsample) for p in zip(a, b, strict=True)]
        np.testing.assert_allclose(of(jnp.asarray(a), jnp.asarray(b)), want, atol=1e-4)
    odd_sized = REFERENCE[:, :37, :41], IMAGE[:, :37, :41]
    want = [full_reference.haarpsi(*p, subsample=subsample) for p in zip(*odd_sized, strict=True)]
    np.testing.assert_allclose(of(*map(jnp.asarray, odd_sized)), want, atol=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((1, 15, 32, 3), (1, 15, 32, 3), "too small"),
        ((1, 32, 32, 3), (1, 32, 31, 3), "of one shape"),
        ((1, 32, 32, 1), (1, 32, 32, 1), "RGB"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        haarpsi.haarpsi(jnp.zeros(a), jnp.zeros(b), subsample=True)
