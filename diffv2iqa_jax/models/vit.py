"""Vision transformer whose raw block outputs can be tapped (Dosovitskiy et al. 2021)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nn.Module):
    """Pre-norm block: x + MSA(LN(x)), then x + MLP(LN(x)) with the exact GELU."""

    heads: int
    mlp: int
    attention: str | None
    dtype: str

    @nn.compact
    def __call__(self, x_BND: jax.Array) -> jax.Array:
        b, n, d = x_BND.shape
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        # One projection, its outputs in the order [q k v][head][channel], as timm stores it.
        qkv = dense(3 * d, name="qkv")(norm(name="norm1")(x_BND)).reshape(b, n, 3, self.heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        out = jax.nn.dot_product_attention(q, k, v, implementation=self.attention)
        x_BND = x_BND + dense(d, name="proj")(out.reshape(b, n, d))
        h = nn.gelu(dense(self.mlp, name="fc1")(norm(name="norm2")(x_BND)), approximate=False)
        return x_BND + dense(d, name="fc2")(h)


class ViT(nn.Module):
    """Images in [-1, 1] of exactly `image_size` -> tapped block outputs, without the class token.

    Attributes:
      taps: indices (from 0) of the blocks whose raw outputs to return; blocks after the last
        tap are only built if `final`.
      final: also run to the end and return the normed tokens.
      classes: width of the classification head on the class token; 0 builds none.
      attention: "xla", "cudnn" (bf16 on a GPU) or None to let JAX choose.
    """

    image_size: int = 224
    patch: int = 8
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 3072
    taps: tuple[int, ...] = (6, 7, 8, 9)
    final: bool = False
    classes: int = 0
    attention: str | None = None
    dtype: str = "float32"

    def check(self) -> None:
        """Raises ValueError for a tap that does not exist and a patch that does not fit."""
        if any(not 0 <= t < self.depth for t in self.taps):
            raise ValueError(f"taps {self.taps}: this ViT has blocks 0 to {self.depth - 1}")
        if self.image_size % self.patch:
            raise ValueError(f"patch {self.patch}: does not divide image_size {self.image_size}")

    @nn.compact
    def __call__(
        self, image_BHWC: jax.Array
    ) -> tuple[list[jax.Array], jax.Array | None, jax.Array | None]:
        """Returns (taps: list of (B, N, D), logits, normed tokens or None)."""
        self.check()
        b, h, w, _ = image_BHWC.shape
        if (h, w) != (self.image_size, self.image_size):
            raise ValueError(f"image {h} x {w}: this ViT was built for {self.image_size} pixels")
        p = self.patch
        x = nn.Conv(
            self.width, (p, p), (p, p), padding="VALID", dtype=self.dtype, name="patch_embed"
        )(image_BHWC)
        x = x.reshape(b, -1, self.width)
        normal = nn.initializers.truncated_normal(0.02)
        class_token = self.param("cls_token", normal, (1, 1, self.width))
        positions = self.param("pos_embed", normal, (1, x.shape[1] + 1, self.width))
        class_token = jnp.broadcast_to(class_token, (b, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([class_token, x], axis=1) + positions.astype(x.dtype)
        taps = {}  # what each block returns, without the class token
        for i in range(self.depth if self.final else max(self.taps) + 1):
            block = Block(self.heads, self.mlp, self.attention, self.dtype, name=f"blocks_{i}")
            x = block(x)
            taps[i] = x[:, 1:]
        tapped = [taps[i] for i in self.taps]
        if not self.final:
            return tapped, None, None
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        logits = nn.Dense(self.classes, name="head")(x[:, 0]) if self.classes else None
        return tapped, logits, x[:, 1:]
