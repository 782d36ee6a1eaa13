"""MANIQA's scale-Swin: window attention layers, each ending in a convolution, scaled residual."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.models import layers


def relative_index(window: int) -> np.ndarray:
    """Row of the bias table for each pair of positions in a window: (w*w, w*w) int."""
    row, column = np.divmod(np.arange(window**2), window)
    down = row[:, None] - row[None] + window - 1
    right = column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """-100 between positions of a window that the roll made neighbours, else 0: (n, w*w, w*w)."""

    def bands(size: int) -> np.ndarray:
        """2 for each row (or column) that the roll brought around, 1 for their window's others."""
        return np.digitize(np.arange(size), [size - window, size - shift])

    region_HW = 3 * bands(height)[:, None] + bands(width)[None]
    region_nL = _windows(region_HW[None, :, :, None], window)[..., 0]
    same_region = region_nL[:, :, None] == region_nL[:, None]
    return np.where(same_region, 0.0, -100.0).astype(np.float32)


def _windows(x_BHWC: jax.Array, window: int) -> jax.Array:
    """(B, H, W, C) -> (B * windows, w*w, C), windows in row-major order."""
    b, h, w, c = x_BHWC.shape
    x = x_BHWC.reshape(b, h // window, window, w // window, window, c)
    return x.swapaxes(2, 3).reshape(-1, window * window, c)


def _unwindows(x_BLD: jax.Array, shape: tuple[int, ...], window: int) -> jax.Array:
    """The inverse of `_windows`; `shape` is that of its input."""
    b, h, w, c = shape
    x = x_BLD.reshape(b, h // window, w // window, window, window, c)
    return x.swapaxes(2, 3).reshape(b, h, w, c)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned relative position bias."""

    heads: int
    window: int
    dtype: str

    @nn.compact
    def __call__(self, x_BLD: jax.Array, mask_nLL: jax.Array | None = None) -> jax.Array:
        """Windows as rows of the batch -> same; the mask is added to the n windows' logits."""
        b, length, d = x_BLD.shape
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        qkv = dense(3 * d, name="qkv")(x_BLD).reshape(b, length, 3, self.heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        bias_table = self.param(
            "relative_position_bias_table",
            nn.initializers.truncated_normal(0.02),
            ((2 * self.window - 1) ** 2, self.heads),
        )
        bias_LLN = bias_table[relative_index(self.window)]
        logits = jnp.einsum("bihd,bjhd->bhij", q, k, preferred_element_type=jnp.float32)
        logits = logits * (d // self.heads) ** -0.5 + bias_LLN.transpose(2, 0, 1)[None]
        if mask_nLL is not None:
            n = mask_nLL.shape[0]
            logits = logits.reshape(b // n, n, self.heads, length, length)
            logits = (logits + mask_nLL[None, :, None]).reshape(b, self.heads, length, length)
        out = jnp.einsum("bhij,bjhd->bihd", nn.softmax(logits).astype(v.dtype), v)
        return dense(d, name="proj")(out.reshape(b, length, d))


class SwinBlock(nn.Module):
    """Window attention and MLP, both pre-norm (epsilon 1e-5) with drop-path."""

    heads: int
    window: int
    shift: int
    mlp: int
    drop_path: float
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, *, drop_key_B: jax.Array | None = None) -> jax.Array:
        _, h, w, d = x_BHWC.shape
        one_window = min(h, w) <= self.window
        window, shift = (min(h, w), 0) if one_window else (self.window, self.shift)
        if h % window or w % window:
            raise ValueError(f"window {window}: does not divide the {h} x {w} positions")
        norm = partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        drop_path = partial(layers.Dropout, self.drop_path, whole=True)  # of an image's update
        y = jnp.roll(norm(name="norm1")(x_BHWC), (-shift, -shift), (1, 2))
        mask = jnp.asarray(shift_mask(h, w, window, shift)) if shift else None
        y = WindowAttention(self.heads, window, self.dtype, name="attn")(_windows(y, window), mask)
        y = jnp.roll(_unwindows(y, x_BHWC.shape, window), (shift, shift), (1, 2))
        x = x_BHWC + drop_path()(y, drop_key_B)
        y = nn.gelu(dense(self.mlp, name="fc1")(norm(name="norm2")(x)), approximate=False)
        return x + drop_path()(dense(d, name="fc2")(y), drop_key_B)


class ScaleSwin(nn.Module):
    """Layers of Swin blocks and a convolution, x = scale * layer(x) + x: (B, H, W, C) -> same.

    Attributes:
      scale: 0.8 in MANIQA's KADID and KonIQ code, 0.13 in its PIPAL code.
      drop_path: rate of the last block; rises linearly from 0 at the first.
    """

    depths: tuple[int, ...] = (2, 2)
    heads: tuple[int, ...] = (4, 4)
    window: int = 4
    mlp: int = 768
    scale: float = 0.8
    drop_path: float = 0.1
    dropout: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, *, drop_key_B: jax.Array | None = None) -> jax.Array:
        width = x_BHWC.shape[-1]
        unfit = [heads for heads in self.heads if width % heads]
        if unfit:
            raise ValueError(f"heads {unfit}: do not divide the width {width}")
        x = layers.Dropout(self.dropout)(x_BHWC, drop_key_B)
        rates = iter(np.linspace(0.0, self.drop_path, sum(self.depths)).tolist())
        for i, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            y = x
            for j in range(depth):
                y = SwinBlock(
                    heads=heads,
                    window=self.window,
                    shift=0 if j % 2 == 0 else self.window // 2,
                    mlp=self.mlp,
                    drop_path=next(rates),
                    dtype=self.dtype,
                    name=f"layers_{i}_blocks_{j}",
                )(y, drop_key_B=drop_key_B)
            conv = nn.Conv(
                width,
                (3, 3),
                padding=1,
                kernel_init=layers.fan_in_uniform,
                dtype=self.dtype,
                name=f"layers_{i}_conv",
            )
            x = x + self.scale * nn.relu(conv(y))
        return x
