"""ResNet50 and its smaller kin, with tapped stages (He et al. 2016; stride on the 3 x 3)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax.models.layers import Norm


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride), 1 x 1 to four times the width; projected skip if needed."""

    width: int
    stride: int
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, self.dtype)
        h = nn.relu(norm(name="bn1")(conv(self.width, (1, 1), name="conv1")(x), train))
        h = conv(self.width, (3, 3), self.stride, padding=1, name="conv2")(h)
        h = nn.relu(norm(name="bn2")(h, train))
        h = norm(name="bn3")(conv(4 * self.width, (1, 1), name="conv3")(h), train)
        if x.shape != h.shape:
            x = conv(4 * self.width, (1, 1), self.stride, name="downsample_0")(x)
            x = norm(name="downsample_1")(x, train)
        return nn.relu(x + h)


class ResNet(nn.Module):
    """Normalised images -> the output of every stage, and logits if it has a head.

    Attributes:
      blocks: bottlenecks in each stage; (3, 4, 6, 3) is ResNet50.
      width: width of the first stage, doubled in each; a stage returns four times its width.
      classes: width of the classification layer; 0 builds none.
      stem_stride: stride of the first convolution.
      pool: whether a pooling follows it. For small images a stride of 1 without pooling keeps
        every pixel, as is usual.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 0
    norm: str = "frozen"
    stem_stride: int = 2
    pool: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, image_BHWC: jax.Array, *, train: bool = False
    ) -> tuple[list[jax.Array], jax.Array | None]:
        """Returns (stages: list of (B, h, w, C), logits (B, classes) or None)."""
        stem = partial(nn.Conv, use_bias=False, dtype=self.dtype, name="conv1")
        x = stem(self.width, (7, 7), self.stem_stride, padding=3)(image_BHWC)
        x = nn.relu(Norm(self.norm, self.dtype, name="bn1")(x, train))
        if self.pool:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        stages = []
        for i, count in enumerate(self.blocks):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                block = Bottleneck(
                    self.width * 2**i, stride, self.norm, self.dtype, name=f"layer{i + 1}_{j}"
                )
                x = block(x, train)
            stages.append(x)
        if not self.classes:
            return stages, None
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return stages, nn.Dense(self.classes, name="fc")(pooled)
