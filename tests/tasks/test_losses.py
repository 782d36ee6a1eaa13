import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.tasks import losses

ERROR = jnp.arange(-200, 201) / 100


def test_losses_are_even_rise_with_the_error_and_vanish_without():
    for name, loss in losses.LOSSES.items():
        value = np.asarray(loss(ERROR))
        np.testing.assert_allclose(value, value[::-1], rtol=1e-6, err_msg=name)
        assert np.all(np.diff(value[200:]) > 0) and value[200] == 0


def test_huber_joins_smoothly_and_ends_with_slope_one():
    slope = jax.vmap(jax.grad(losses.huber))(ERROR)
    np.testing.assert_allclose(slope, np.clip(ERROR / 0.1, -1, 1), atol=1e-5)
    np.testing.assert_allclose(losses.huber(jnp.float32(1.0)), 0.95, rtol=1e-6)


def test_padding_has_no_say_in_the_mean():
    value, mask = jnp.array([1.0, 3.0, 1e9]), jnp.array([1.0, 1.0, 0.0])
    assert losses.masked_mean(value, mask) == 2
    assert losses.masked_mean(value, jnp.zeros(3)) == 0
