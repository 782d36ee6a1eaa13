"""HaarPSI of whole batches on the accelerator: labels images that a training step distorts.

The same measure as `full_reference.haarpsi`, in float32.
"""

import jax
import jax.numpy as jnp

from diffv2iqa_jax.evaluation.full_reference import HAARPSI_ALPHA, HAARPSI_C, YIQ

SMALLEST = 16  # pixels each way


def haarpsi(reference_BHWC: jax.Array, image_BHWC: jax.Array, *, subsample: bool) -> jax.Array:
    """Perceptual similarity of each pair (B,), in [0, 1], 1 = identical.

    Args:
      reference_BHWC: RGB in [0, 255].
      image_BHWC: the same shape.
      subsample: first average 2 x 2 pixels into one, as the paper does. Small pictures, which
        people look at enlarged, do not need it.

    Raises:
      ValueError: not RGB, different shapes, or less than 16 pixels wide or high.
    """
    shape = reference_BHWC.shape
    if shape != image_BHWC.shape or len(shape) != 4 or shape[-1] != 3:
        raise ValueError(f"pairs must be RGB of one shape; got {shape} and {image_BHWC.shape}")
    if min(shape[1:3]) < SMALLEST:
        raise ValueError(f"pictures of {shape[1:3]} are too small: at least {SMALLEST} pixels")
    return jax.vmap(lambda a, b: _pair(a, b, subsample))(reference_BHWC, image_BHWC)


def _pair(a_HWC: jax.Array, b_HWC: jax.Array, subsample: bool) -> jax.Array:
    """HaarPSI of one pair of images."""
    a_3HW, b_3HW = (_yiq(x.astype(jnp.float32)) for x in (a_HWC, b_HWC))
    if subsample:
        a_3HW, b_3HW = (_box(x)[:, ::2, ::2] for x in (a_3HW, b_3HW))
    haar_a, haar_b = _haar(a_3HW[0]), _haar(b_3HW[0])
    weight_2HW = jnp.maximum(haar_a[2], haar_b[2])
    local_2HW = jnp.mean(_similarity(haar_a[:2], haar_b[:2]), axis=0)
    chroma = _similarity(jnp.abs(_box(a_3HW[1:])), jnp.abs(_box(b_3HW[1:])))
    local_3HW = jnp.concatenate([local_2HW, jnp.mean(chroma, axis=0, keepdims=True)])
    weight_3HW = jnp.concatenate([weight_2HW, jnp.mean(weight_2HW, axis=0, keepdims=True)])
    # Where neither picture has any structure, all positions weigh the same.
    weight_3HW = jnp.where(jnp.any(weight_3HW > 0), weight_3HW, 1.0)
    squashed_3HW = jax.nn.sigmoid(HAARPSI_ALPHA * local_3HW)
    mean = jnp.sum(squashed_3HW * weight_3HW) / jnp.sum(weight_3HW)
    return jnp.clip(jnp.log(mean / (1 - mean)) / HAARPSI_ALPHA, 0.0, 1.0) ** 2


def _yiq(x_HWC: jax.Array) -> jax.Array:
    """Y, I, Q as planes. Not a matrix product: an accelerator may round its inputs."""
    r, g, b = (x_HWC[..., i] for i in range(3))
    return jnp.stack([m[0] * r + m[1] * g + m[2] * b for m in YIQ.tolist()])


def _convolved(x: jax.Array, weights: list[float], axis: int) -> jax.Array:
    """Convolution along an axis with a filter of even length, which reaches one further right."""
    taps, length = len(weights), x.shape[axis]
    pad = [(0, 0)] * x.ndim
    pad[axis] = (taps // 2 - 1, taps // 2)
    padded = jnp.pad(x, pad)
    shifted = [
        jax.lax.slice_in_dim(padded, start, start + length, axis=axis)
        for start in reversed(range(taps))
    ]
    return sum(weight * taken for weight, taken in zip(weights, shifted, strict=True))


def _box(x: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels over the last two axes; zeros lie beyond the border."""
    return _convolved(_convolved(x, [0.5, 0.5], x.ndim - 2), [0.5, 0.5], x.ndim - 1)


def _haar(y_HW: jax.Array) -> jax.Array:
    """Size of the horizontal and vertical Haar coefficients at three scales: (3, 2, H, W)."""
    coefficients = []
    for scale in (1, 2, 3):
        flat, half = [2.0**-scale] * 2**scale, 2 ** (scale - 1)
        edge = [1.0] * half + [-1.0] * half
        coefficients.append(_convolved(_convolved(y_HW, edge, 0), flat, 1))
        coefficients.append(_convolved(_convolved(y_HW, flat, 0), edge, 1))
    return jnp.abs(jnp.stack(coefficients)).reshape(3, 2, *y_HW.shape)


def _similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    return (2 * a * b + HAARPSI_C) / (a**2 + b**2 + HAARPSI_C)
