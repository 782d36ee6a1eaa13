"""Random keys, derived from (seed, name, step or image) and never stored.

So a resumed run, or a run on another number of devices, draws the same noise.
"""

import zlib

import jax


def stream(seed: int, name: str, step: int | jax.Array = 0) -> jax.Array:
    """The key of the stream `name` at this step."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)


def per_image(key: jax.Array, number_B: jax.Array) -> jax.Array:
    """A key for each image's number (B,), so that no draw depends on its place in a batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, number_B)


def normal(key_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise of `shape` for each key: (B, *shape)."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(key_B)


def uniform(key_B: jax.Array) -> jax.Array:
    """One uniform number in [0, 1) for each key: (B,)."""
    return jax.vmap(jax.random.uniform)(key_B)


def stream_of(key: jax.Array, name: str) -> jax.Array:
    """The key of the stream `name` within a step's key."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def dropout(key: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """A step's key for dropout. It differs between devices, since they have other examples."""
    return jax.random.fold_in(stream_of(key, "dropout"), batch["draw"][0])
