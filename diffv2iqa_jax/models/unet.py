"""SR3's conditional U-Net (Saharia et al. 2021): noisy image, its level, condition -> eps."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.models.layers import Dropout

orthogonal = nn.initializers.orthogonal()


def level_encoding(level_B: jax.Array, width: int) -> jax.Array:
    """Sines then cosines of the continuous level, (B, width) float32.

    SR3 does not scale the level, so no angle exceeds one radian.
    """
    half = width // 2
    frequency = jnp.exp(-math.log(1e4) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = level_B.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def step_encoding(step_B: jax.Array, width: int) -> jax.Array:
    """Sines then cosines of the integer step, (B, width) float32."""
    # Float32 as in DDPM's buffer: at step 2000 the last bits of a frequency show in the angle.
    log_period = np.float32(-math.log(1e4) / width)
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * log_period)
    angle = step_B.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


ENCODINGS = {"level": level_encoding, "step": step_encoding}


class UNet(nn.Module):
    """The denoiser. H and W must be divisible by `multiple`.

    A level attends where `image_size`, halved per level, is one of `attn_res`. The size of the
    actual input plays no part: a net with attn_res 16 for image_size 128 attends over 28 x 28
    positions when its input has 224 pixels.

    Attributes:
      inner: channels of the first level; level i has `multipliers[i]` times as many.
      dropout: rate in the second convolution of each residual block.
      embedding: what the net sees of the noise: the continuous "level" (SR3) or the integer
        "step" (DDPM, which also puts a swish before each block's projection).
      affine: let the embedding scale and shift each block's features, not only shift them.
      zero_final: start the last convolution at zero (SR3 starts it orthogonal, as all others).
      patch: turn squares of this side into channels before the first convolution and back
        after the last, so that the first level costs patch^2 times less (SR3: 1; FFDNet: 2).
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
        """What the sides of an image must divide by."""
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
        missing = [size for size in self.attn_res if size not in self.sizes]
        if missing:
            raise ValueError(
                f"attn_res {missing}: a U-Net for image_size {self.image_size} only has levels "
                f"{self.sizes}"
            )
        unfit = [m * self.inner for m in self.multipliers if m * self.inner % self.groups]
        if unfit:
            raise ValueError(f"groups {self.groups}: does not divide the width(s) {unfit}")

    @nn.compact
    def __call__(
        self,
        condition_BHWC: jax.Array | None,
        y_BHWC: jax.Array,
        level_B: jax.Array,
        *,
        drop_key_B: jax.Array | None = None,
    ) -> jax.Array:
        """Condition (None: unconditional), state and level (B,) -> (B, H, W, 3) float32.

        Args:
          drop_key_B: a key for each image, of what is dropped; None drops nothing.
        """
        self.check()
        if y_BHWC.shape[1] % self.multiple or y_BHWC.shape[2] % self.multiple:
            raise ValueError(f"image {y_BHWC.shape[1:3]}: sides must divide by {self.multiple}")
        inputs = [x for x in (condition_BHWC, y_BHWC) if x is not None]
        x = fold(jnp.concatenate(inputs, axis=-1), self.patch)
        e_BD = self._embedding(level_B)
        block = partial(
            ResnetBlock,
            groups=self.groups,
            dropout=self.dropout,
            embedding=self.embedding,
            affine=self.affine,
            dtype=self.dtype,
        )
        conv = partial(Conv3, dtype=self.dtype)
        levels = list(enumerate(self.multipliers))
        attends = [size in self.attn_res for size in self.sizes]

        # Down. The modules are numbered through, as in the published code.
        x = conv(self.inner, name="downs_0")(x)
        skips = [x]
        for i, multiplier in levels:
            for _ in range(self.res_blocks):
                name = f"downs_{len(skips)}"
                x = block(self.inner * multiplier, attends[i], name=name)(x, e_BD, drop_key_B)
                skips.append(x)
            if i < len(levels) - 1:
                x = conv(x.shape[-1], stride=2, name=f"downs_{len(skips)}")(x)
                skips.append(x)

        x = block(x.shape[-1], True, name="mid_0")(x, e_BD, drop_key_B)
        x = block(x.shape[-1], False, name="mid_1")(x, e_BD, drop_key_B)

        # Up.
        numbers = itertools.count()
        for i, multiplier in reversed(levels):
            for _ in range(self.res_blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                name = f"ups_{next(numbers)}"
                x = block(self.inner * multiplier, attends[i], name=name)(x, e_BD, drop_key_B)
            if i > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = conv(x.shape[-1], name=f"ups_{next(numbers)}")(x)
        init = nn.initializers.zeros if self.zero_final else orthogonal
        width = 3 * self.patch**2
        final = NormConv(width, self.groups, 0.0, self.dtype, "float32", init, name="final_conv")
        return unfold(final(x, drop_key_B), self.patch).astype(jnp.float32)

    def _embedding(self, level_B: jax.Array) -> jax.Array:
        """The noise level as (B, inner) numbers, which every residual block reads."""
        # In bf16 neighbouring levels would fall together: the embedding is float32.
        e_BD = ENCODINGS[self.embedding](level_B, self.inner)
        e_BD = nn.Dense(4 * self.inner, kernel_init=orthogonal, name="noise_level_mlp_1")(e_BD)
        e_BD = nn.swish(e_BD)
        return nn.Dense(self.inner, kernel_init=orthogonal, name="noise_level_mlp_3")(e_BD)


def fold(x_BHWC: jax.Array, patch: int) -> jax.Array:
    """Turns squares of p x p pixels, p = `patch`, into channels: (B, H/p, W/p, p p C)."""
    b, h, w, c = x_BHWC.shape
    x = x_BHWC.reshape(b, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, patch * patch * c)


def unfold(x_BHWC: jax.Array, patch: int) -> jax.Array:
    """The inverse of `fold`: (B, H, W, p p C) -> (B, p H, p W, C)."""
    b, h, w, c = x_BHWC.shape
    x = x_BHWC.reshape(b, h, w, patch, patch, c // patch**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, c // patch**2)


class Conv3(nn.Module):
    """3 x 3 convolution; pads one pixel of zeros on every side, also at stride 2."""

    width: int
    stride: int = 1
    dtype: str = "float32"
    kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        return nn.Conv(
            self.width,
            (3, 3),
            self.stride,
            padding=1,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x_BHWC)


class NormConv(nn.Module):
    """GroupNorm, swish, dropout, 3 x 3 convolution."""

    width: int
    groups: int
    dropout: float
    dtype: str
    out_dtype: str | None = None
    kernel_init: Callable = orthogonal

    @nn.compact
    def __call__(self, x: jax.Array, drop_key_B: jax.Array | None) -> jax.Array:
        x = nn.swish(nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name="norm")(x))
        x = Dropout(self.dropout)(x, drop_key_B)
        dtype = self.out_dtype or self.dtype
        return Conv3(self.width, dtype=dtype, kernel_init=self.kernel_init, name="conv")(x)


def modulate(h_BHWC: jax.Array, modulation_BD: jax.Array) -> jax.Array:
    """Shifts the C channels by D = C numbers, or scales and then shifts them by D = 2 C."""
    modulation_B11D = modulation_BD[:, None, None]
    if modulation_B11D.shape[-1] == h_BHWC.shape[-1]:
        return h_BHWC + modulation_B11D
    scale, shift = jnp.split(modulation_B11D, 2, axis=-1)
    return (1 + scale) * h_BHWC + shift


class ResnetBlock(nn.Module):
    """Two NormConvs with the noise level added in between, a skip, and attention if `attend`."""

    width: int
    attend: bool
    groups: int
    dropout: float
    embedding: str
    affine: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, e_BD: jax.Array, drop_key_B: jax.Array | None) -> jax.Array:
        numbers = self.width * (2 if self.affine else 1)
        dense = nn.Dense(numbers, kernel_init=orthogonal, name="noise_func")
        h = NormConv(self.width, self.groups, 0.0, self.dtype, name="block1")(x, drop_key_B)
        modulation_BD = dense(nn.swish(e_BD) if self.embedding == "step" else e_BD)
        h = modulate(h, modulation_BD.astype(h.dtype))
        h = NormConv(self.width, self.groups, self.dropout, self.dtype, name="block2")(
            h, drop_key_B
        )
        if x.shape[-1] != self.width:
            x = nn.Conv(
                self.width, (1, 1), kernel_init=orthogonal, dtype=self.dtype, name="res_conv"
            )(x)
        x = x + h
        return SelfAttention(self.groups, self.dtype, name="attn")(x) if self.attend else x


class SelfAttention(nn.Module):
    """One attention head over all positions; 1 / sqrt(C) scales its logits."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        b, h, w, c = x_BHWC.shape
        conv = partial(nn.Conv, kernel_size=(1, 1), kernel_init=orthogonal, dtype=self.dtype)
        normed = nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name="norm")(x_BHWC)
        qkv = conv(3 * c, use_bias=False, name="qkv")(normed).reshape(b, h * w, 3 * c)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        logits = jnp.einsum("bpc,brc->bpr", q, k, preferred_element_type=jnp.float32)
        attention = nn.softmax(logits * c**-0.5).astype(v.dtype)
        out = jnp.einsum("bpr,brc->bpc", attention, v).reshape(b, h, w, c)
        return x_BHWC + conv(c, name="out")(out)
