"""SR3's conditional U-Net (Saharia et al. 2021): noisy image, its level, condition -> eps."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

orthogonal = nn.initializers.orthogonal()


def level_encoding(level_B: jax.Array, width: int) -> jax.Array:
    """Sines then cosines of the continuous level, (B, width) float32.

    The level is not multiplied by anything, so every angle is at most one radian.
    """
    half = width // 2
    frequency = jnp.exp(-math.log(1e4) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = level_B.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def step_encoding(step_B: jax.Array, width: int) -> jax.Array:
    """Sines then cosines of the integer step, (B, width) float32."""
    # A float32 table as in DDPM's buffer: at step 2000 its last bits are seen in the angle.
    log_period = np.float32(-math.log(1e4) / width)
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * log_period)
    angle = step_B.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


ENCODINGS = {"level": level_encoding, "step": step_encoding}


class UNet(nn.Module):
    """The denoiser. H and W must be divisible by `multiple`.

    A level attends where `image_size`, halved per level, is one of `attn_res`; the size of the
    actual input plays no part (a net built for 128 with 16 attends over 28 x 28 when fed 224).

    Attributes:
      inner: channels of the first level; `multipliers` times that in each level.
      dropout: in the second convolution of each residual block.
      embedding: what the net is told: the continuous "level" (SR3) or the integer "step" (DDPM,
        which also puts a swish before each block's projection).
      affine: let the embedding scale and shift each block's features, not only shift them.
      zero_final: start the last convolution at zero (SR3: orthogonal, as everywhere).
      patch: squares of this side become channels before the first convolution and pixels again
        after the last, so that the first level costs patch^2 times less (SR3: 1; 2 as in FFDNet).
    """

    inner: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    res_blocks: int = 2
    attn_res: tuple[int, ...] = (16,)
    image_size: int = 128
    groups: int = 32
    dropout: float = 0.2
    embedding: str = "level"
    affine: bool = False
    zero_final: bool = False
    patch: int = 1
    dtype: str = "float32"

    @property
    def multiple(self) -> int:
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def sizes(self) -> list[int]:
        """Rows and columns of each level's map for an image of `image_size`."""
        return [self.image_size // self.patch // 2**i for i in range(len(self.multipliers))]

    def check(self) -> None:
        """Raises ValueError for a width no norm divides or an attention size that never occurs."""
        if self.embedding not in ENCODINGS:
            raise ValueError(f"embedding {self.embedding!r}: known are {list(ENCODINGS)}")
        if self.patch < 1:
            raise ValueError(f"patch {self.patch}: must be 1 (pixels as they are) or more")
        lost = [a for a in self.attn_res if a not in self.sizes]
        if lost:
            raise ValueError(
                f"attn_res {lost}: a U-Net for image_size {self.image_size} only has levels "
                f"{self.sizes}"
            )
        odd = [m * self.inner for m in self.multipliers if m * self.inner % self.groups]
        if odd:
            raise ValueError(f"groups {self.groups}: does not divide the width(s) {odd}")

    @nn.compact
    def __call__(self, condition_BHWC, y_BHWC, level_B, *, train: bool = False):
        """Condition (None: unconditional), state and level (B,) -> (B, H, W, 3) float32."""
        self.check()
        if y_BHWC.shape[1] % self.multiple or y_BHWC.shape[2] % self.multiple:
            raise ValueError(f"image {y_BHWC.shape[1:3]}: sides must divide by {self.multiple}")
        parts = [x for x in (condition_BHWC, y_BHWC) if x is not None]
        x = fold(jnp.concatenate(parts, axis=-1), self.patch)
        # In bf16 neighbouring levels would fall together: the embedding is float32.
        e = ENCODINGS[self.embedding](level_B, self.inner)
        e = nn.Dense(4 * self.inner, kernel_init=orthogonal, name="noise_level_mlp_1")(e)
        e = nn.Dense(self.inner, kernel_init=orthogonal, name="noise_level_mlp_3")(nn.swish(e))

        settings = (self.groups, self.dropout, self.embedding, self.affine, self.dtype)
        block = lambda width, attend, name: ResnetBlock(width, attend, *settings, name=name)
        conv = lambda width, stride, name: Conv3(width, stride, self.dtype, name=name)
        levels = list(enumerate(self.multipliers))
        attends = [size in self.attn_res for size in self.sizes]
        x = conv(self.inner, 1, "downs_0")(x)
        skips, n = [x], 1
        for i, m in levels:
            for _ in range(self.res_blocks):
                x = block(self.inner * m, attends[i], f"downs_{n}")(x, e, train)
                skips, n = [*skips, x], n + 1
            if i < len(levels) - 1:
                x = conv(x.shape[-1], 2, f"downs_{n}")(x)
                skips, n = [*skips, x], n + 1

        x = block(x.shape[-1], True, "mid_0")(x, e, train)
        x = block(x.shape[-1], False, "mid_1")(x, e, train)

        n = 0
        for i, m in reversed(levels):
            for _ in range(self.res_blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(self.inner * m, attends[i], f"ups_{n}")(x, e, train)
                n += 1
            if i > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = conv(x.shape[-1], 1, f"ups_{n}")(x)
                n += 1
        start = nn.initializers.zeros if self.zero_final else orthogonal
        width = 3 * self.patch**2
        final = NormConv(width, self.groups, 0.0, self.dtype, "float32", start, name="final_conv")
        return unfold(final(x, train), self.patch).astype(jnp.float32)


def fold(x_BHWC: jax.Array, patch: int) -> jax.Array:
    """Squares of `patch` x `patch` pixels as channels: (B, H/p, W/p, p p C)."""
    b, h, w, c = x_BHWC.shape
    x = x_BHWC.reshape(b, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, patch * patch * c)


def unfold(x_BHWC: jax.Array, patch: int) -> jax.Array:
    """The inverse of `fold`: (B, H, W, p p C) -> (B, p H, p W, C)."""
    b, h, w, c = x_BHWC.shape
    x = x_BHWC.reshape(b, h, w, patch, patch, c // patch**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, c // patch**2)


class Conv3(nn.Module):
    """3 x 3 convolution, one pixel of zeros on every side also at stride 2."""

    width: int
    stride: int = 1
    dtype: str = "float32"
    kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(self, x):
        return nn.Conv(
            self.width,
            (3, 3),
            self.stride,
            padding=1,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x)


class NormConv(nn.Module):
    """GroupNorm, swish, dropout, 3 x 3 convolution."""

    width: int
    groups: int
    dropout: float
    dtype: str
    out_dtype: str | None = None
    kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.swish(nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name="norm")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        dtype = self.out_dtype or self.dtype
        return Conv3(self.width, dtype=dtype, kernel_init=self.kernel_init, name="conv")(x)


def tell(h_BHWC: jax.Array, told_BD: jax.Array) -> jax.Array:
    """Shifts the channels, or, given twice as many numbers, scales and then shifts them."""
    told = told_BD[:, None, None]
    if told.shape[-1] == h_BHWC.shape[-1]:
        return h_BHWC + told
    scale, shift = jnp.split(told, 2, axis=-1)
    return (1 + scale) * h_BHWC + shift


class ResnetBlock(nn.Module):
    """Two NormConvs told the noise level in between, a skip, and attention if asked for."""

    width: int
    attend: bool
    groups: int
    dropout: float
    embedding: str
    affine: bool
    dtype: str

    @nn.compact
    def __call__(self, x, e_BD, train: bool):
        told = self.width * (2 if self.affine else 1)
        dense = nn.Dense(told, kernel_init=orthogonal, name="noise_func")
        h = NormConv(self.width, self.groups, 0.0, self.dtype, name="block1")(x, train)
        told_BD = dense(nn.swish(e_BD) if self.embedding == "step" else e_BD)
        h = tell(h, told_BD.astype(h.dtype))
        h = NormConv(self.width, self.groups, self.dropout, self.dtype, name="block2")(h, train)
        if x.shape[-1] != self.width:
            x = nn.Conv(
                self.width, (1, 1), kernel_init=orthogonal, dtype=self.dtype, name="res_conv"
            )(x)
        x = x + h
        return SelfAttention(self.groups, self.dtype, name="attn")(x) if self.attend else x


class SelfAttention(nn.Module):
    """One head over all positions, its logits scaled by the channels."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC):
        b, h, w, c = x_BHWC.shape
        n = nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name="norm")(x_BHWC)
        conv = lambda width, bias, name: nn.Conv(
            width, (1, 1), use_bias=bias, kernel_init=orthogonal, dtype=self.dtype, name=name
        )
        q, k, v = jnp.split(conv(3 * c, False, "qkv")(n).reshape(b, h * w, 3 * c), 3, axis=-1)
        logits = jnp.einsum("bpc,brc->bpr", q, k, preferred_element_type=jnp.float32)
        attention = nn.softmax(logits * c**-0.5).astype(v.dtype)
        out = jnp.einsum("bpr,brc->bpc", attention, v).reshape(b, h, w, c)
        return x_BHWC + conv(c, True, "out")(out)
