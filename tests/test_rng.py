import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import rng


def data(key):
    return jax.random.key_data(key).tolist()


def test_streams_differ_by_seed_name_and_step_and_repeat():
    keys = [rng.stream(*a) for a in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2))]
    keys += [rng.stream_of(keys[0], name) for name in ("a", "b")]
    keys += [rng.stream(seed, "a") for seed in (2**32, 2**32 + 1, 2**40, 2**62)]
    assert len({tuple(data(key)) for key in keys}) == len(keys)
    assert data(rng.stream(0, "a", 1)) == data(rng.stream(0, "a", jnp.int32(1)))


def test_a_draw_belongs_to_its_number_not_to_its_place():
    key, number = rng.stream(0, "x"), jnp.array([5, 7, 2**32 - 1], jnp.uint32)
    noise = rng.normal(rng.per_image(key, number), (4, 3))
    turned = rng.normal(rng.per_image(key, number[::-1]), (4, 3))
    assert noise.shape == (3, 4, 3)
    np.testing.assert_array_equal(noise, turned[::-1])
    share = rng.uniform(rng.per_image(key, jnp.arange(500)))
    assert 0 <= share.min() < 0.02 and 0.98 < share.max() < 1


def test_an_images_key_has_streams_of_its_own_by_name_and_number():
    key_B = rng.per_image(rng.stream(0, "x"), jnp.array([5, 7], jnp.uint32))
    keys = [rng.within(key_B, name) for name in ("a", "b", 0, 1)]
    assert len({tuple(row) for key in keys for row in data(key)}) == 8
    assert data(rng.within(key_B[::-1], "a")) == data(keys[0])[::-1]
    assert data(rng.within(key_B, jnp.int32(1))) == data(keys[3])


def test_the_share_that_is_chosen_and_that_each_key_has_its_own():
    key_B = rng.per_image(rng.stream(0, "x"), jnp.arange(3))
    for share in (0.1, 0.8, 1.0):
        chosen = np.asarray(rng.chosen(key_B, share, (10_001,)))
        # Five standard deviations of the mean of that many draws.
        np.testing.assert_allclose(
            chosen.mean(1), share, atol=5 * (share * (1 - share) / 1e4) ** 0.5
        )
        assert share == 1.0 or np.any(chosen[0] != chosen[1])


def test_the_generator_is_ours_whatever_is_the_default():
    """With JAX's "rbg" all of several keys' draws follow the first key."""

    def draws(order):
        return rng.normal(rng.per_image(rng.stream(0, "x", 1), jnp.arange(3)[order]), (4,))

    want = draws(slice(None))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(draws(slice(None)), want)
        np.testing.assert_array_equal(draws(slice(None, None, -1)), want[::-1])
