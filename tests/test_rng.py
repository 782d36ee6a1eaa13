import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import rng


def data(key):
    return jax.random.key_data(key).tolist()


def test_streams_differ_by_seed_name_and_step_and_repeat():
    keys = [rng.stream(*a) for a in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2))]
    keys += [rng.stream_of(keys[0], name) for name in ("a", "b")]
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


def test_dropout_differs_between_devices():
    key = rng.stream(0, "train")
    draws = [{"draw": jnp.array(first, jnp.uint32)} for first in ([0, 1], [2, 3])]
    one, two = (rng.dropout(key, batch) for batch in draws)
    assert data(one) != data(two)
