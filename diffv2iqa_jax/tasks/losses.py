"""Losses of one prediction each, and the one way to average them."""

import jax
import jax.numpy as jnp


def l1(error: jax.Array) -> jax.Array:
    return jnp.abs(error)


def mse(error: jax.Array) -> jax.Array:
    return error**2


def huber(error: jax.Array, delta: float = 0.1) -> jax.Array:
    """Quadratic within `delta`, linear beyond; divided by delta so that its slope ends at 1."""
    size = jnp.abs(error)
    return jnp.where(size < delta, 0.5 * size**2 / delta, size - 0.5 * delta)


LOSSES = {"l1": l1, "mse": mse, "huber": huber}


def masked_mean(value_B: jax.Array, mask_B: jax.Array) -> jax.Array:
    """Mean over the images that are not padding; 0 if there is none."""
    return jnp.sum(value_B * mask_B) / jnp.maximum(jnp.sum(mask_B), 1.0)
