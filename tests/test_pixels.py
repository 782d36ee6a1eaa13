import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax import pixels

ALL = jnp.arange(256, dtype=jnp.uint8)


def test_every_byte_comes_back():
    x = pixels.to_float(ALL)
    assert x.dtype == jnp.float32 and x[0] == -1 and x[255] == 1
    np.testing.assert_array_equal(pixels.to_uint8(x), ALL)


def test_rounding_to_half_precision_survives_the_compiler():
    """As two casts it would not on a GPU: cached views would differ from computed ones."""

    def there_and_back(x):
        return pixels.to_float(pixels.store(x, "float16"))

    assert "reduce_precision" in str(jax.make_jaxpr(there_and_back)(jnp.float32(0.1)))


def test_bytes_are_rounded_half_to_even_and_clipped():
    value = jnp.array([-9.0, 9.0, 0.0])  # 0 lies half way between 127 and 128
    np.testing.assert_array_equal(pixels.to_uint8(value), [0, 255, 128])


@pytest.mark.parametrize("dtype", pixels.STORED)
def test_what_was_stored_is_stored_again_as_it_is(dtype):
    x = jnp.linspace(-3, 3, 1000)
    once = pixels.store(x, dtype)
    assert once.dtype == jnp.dtype(dtype)
    again = pixels.store(pixels.to_float(once), dtype)
    np.testing.assert_array_equal(once, again)
    inside = jnp.abs(x) <= (1 if dtype == "uint8" else 3)
    error = jnp.abs(pixels.to_float(once) - x)[inside].max()
    assert error <= {"float32": 0, "float16": 2**-10, "uint8": 1.001 / 255}[dtype]


def test_imagenet_values_become_normal_and_come_back():
    mean, std = (np.array(x) for x in pixels.MEAN_STD["imagenet"])
    image = jnp.asarray(2 * (mean + 3 * std) - 1, jnp.float32)[None, None, None]
    np.testing.assert_allclose(pixels.normalise(image, "imagenet"), 3, rtol=1e-5)
    for name in pixels.MEAN_STD:
        back = pixels.denormalise(pixels.normalise(image, name), name)
        np.testing.assert_allclose(back, image, atol=1e-6)
