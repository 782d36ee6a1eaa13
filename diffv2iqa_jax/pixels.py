"""Pixel values: float32 in [-1, 1] inside, uint8 outside; and how views are stored."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

STORED = ("float32", "float16", "uint8")
# Mean and std with which pretrained nets normalise values in [0, 1]: (value - mean) / std.
MEAN_STD = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # [-1, 1], as everywhere inside the package
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def to_float(image: jax.Array) -> jax.Array:
    """uint8 -> float32 in [-1, 1]; floating values are in that range already."""
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image.astype(jnp.float32)
    return image.astype(jnp.float32) / 127.5 - 1.0


def normalise(image: jax.Array, name: str) -> jax.Array:
    """Values in [-1, 1] -> the normalisation `name` of MEAN_STD."""
    return image if name == "half" else standardise(image, *MEAN_STD[name])


def standardise(image: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Values in [-1, 1] -> (value in [0, 1] - mean) / std; mean and std are per channel."""
    mean, std = _channels(image, mean, std)
    return ((image + 1) / 2 - mean) / std


def denormalise(image: jax.Array, name: str) -> jax.Array:
    """The inverse of `normalise`."""
    if name == "half":
        return image
    mean, std = _channels(image, *MEAN_STD[name])
    return (image * std + mean) * 2 - 1


def _channels(image: jax.Array, *values: Sequence[float]) -> list[jax.Array]:
    """Three numbers of each, with as many axes as the image, along its last."""
    return [jnp.array(x, jnp.float32).reshape((1,) * (image.ndim - 1) + (3,)) for x in values]


def to_uint8(image: jax.Array) -> jax.Array:
    """Clips to [-1, 1] and rounds to uint8, half to even (as SR3 writes its images)."""
    return jnp.round((jnp.clip(image, -1.0, 1.0) + 1.0) / 2.0 * 255.0).astype(jnp.uint8)


def store(image: jax.Array, dtype: str) -> jax.Array:
    """Rounds views to the dtype they have on disk, one of STORED.

    "uint8" clips the noisy states to [-1, 1], as 8-bit files do.
    """
    if dtype == "uint8":
        return to_uint8(image)
    if dtype == "float16":
        # On GPUs XLA drops a cast to float16 and back, but keeps this rounding.
        image = jax.lax.reduce_precision(image, exponent_bits=5, mantissa_bits=10)
    return image.astype(dtype)
