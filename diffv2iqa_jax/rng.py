"""Random keys, derived from (seed, name, step or image) and never stored.

So a resumed run, or a run on another number of devices, draws the same noise.
"""

import zlib

import jax

# Named, whatever JAX_DEFAULT_PRNG_IMPL says: rbg's draws for several keys follow the first of them.
IMPLEMENTATION = "threefry2x32"


def stream(seed: int, name: str, step: int | jax.Array = 0) -> jax.Array:
    """The key of the stream `name` at this step."""
    key = jax.random.key(seed, impl=IMPLEMENTATION)
    if seed >= 2**32:  # of which JAX, in 32 bits, drops all others without a word
        key = jax.random.fold_in(key, seed >> 32)
    return jax.random.fold_in(stream_of(key, name), step)


def stream_of(key: jax.Array, name: str) -> jax.Array:
    """The key of the stream `name` within a step's key."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def per_image(key: jax.Array, number_B: jax.Array) -> jax.Array:
    """A key for each image's number (B,), so that no draw depends on its place in a batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, number_B)


def within(key_B: jax.Array, name: str | int | jax.Array) -> jax.Array:
    """Each image's key of the stream of this name or number within its own key: (B,)."""
    number = zlib.crc32(name.encode()) if isinstance(name, str) else name
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key_B, number)


def normal(key_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise of `shape` for each key: (B, *shape)."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(key_B)


def uniform(key_B: jax.Array) -> jax.Array:
    """One uniform number in [0, 1) for each key: (B,)."""
    return jax.vmap(jax.random.uniform)(key_B)


def chosen(key_B: jax.Array, share: float, shape: tuple[int, ...]) -> jax.Array:
    """For each key, `shape` truth values of which this share is true: (B, *shape) bool."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, share, shape))(key_B)
