"""EfficientNet-B0 with tapped feature maps (Tan & Le 2019), as VCRNet uses it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax.models.layers import Dropout, Norm

# (blocks, kernel, stride of the first, expansion, width) of each stage of B0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def padding(kernel: int, stride: int) -> list[tuple[int, int]]:
    """TensorFlow's "SAME" for an even side: the odd pixel goes to the right and below.

    The published net was built for 224 pixels and pads like this at every size.
    """
    total = kernel - stride
    return [(total // 2, total - total // 2)] * 2


class Block(nn.Module):
    """Expand, depthwise convolution, squeeze and excite, project; residual where shapes allow."""

    kernel: int
    stride: int
    expansion: int
    width: int
    drop_path: float
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool, drop_key_B: jax.Array | None) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, self.dtype, epsilon=1e-3, momentum=0.99)
        dense = partial(nn.Dense, dtype=self.dtype)
        channels = x_BHWC.shape[-1]
        expanded = channels * self.expansion
        h = x_BHWC
        if self.expansion != 1:
            h = nn.swish(norm(name="bn0")(conv(expanded, (1, 1), name="expand")(h), train))
        h = conv(
            expanded,
            (self.kernel, self.kernel),
            self.stride,
            padding=padding(self.kernel, self.stride),
            feature_group_count=expanded,
            name="depthwise",
        )(h)
        h = nn.swish(norm(name="bn1")(h, train))
        squeezed = jnp.mean(h, axis=(1, 2), keepdims=True)
        squeezed = nn.swish(dense(max(1, channels // 4), name="squeeze_reduce")(squeezed))
        h = h * nn.sigmoid(dense(expanded, name="squeeze_expand")(squeezed))
        h = norm(name="bn2")(conv(self.width, (1, 1), name="project")(h), train)
        if self.stride != 1 or channels != self.width:
            return h
        return x_BHWC + Dropout(self.drop_path, whole=True)(h, drop_key_B)


class EfficientNet(nn.Module):
    """ImageNet-normalised images (B, H, W, 3) -> feature maps, finest first.

    Attributes:
      stages: see STAGES.
      stem, head: widths of the convolutions before and after the stages.
      drop_path: rate of the last block; rises linearly from 0 at the first.
    """

    stages: tuple[tuple[int, ...], ...] = STAGES
    stem: int = 32
    head: int = 1280
    drop_path: float = 0.2
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        image_BHWC: jax.Array,
        *,
        train: bool = False,
        drop_key_B: jax.Array | None = None,
    ) -> list[jax.Array]:
        """Returns the last map before each halving, then the last block's, then the head's."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, self.dtype, epsilon=1e-3, momentum=0.99)
        x = conv(self.stem, (3, 3), 2, padding=padding(3, 2), name="stem")(image_BHWC)
        x = nn.swish(norm(name="stem_bn")(x, train))
        blocks = [
            (kernel, stride if index == 0 else 1, expansion, width)
            for count, kernel, stride, expansion, width in self.stages
            for index in range(count)
        ]
        maps = []
        for i, (kernel, stride, expansion, width) in enumerate(blocks):
            if stride > 1:
                maps.append(x)
            rate = self.drop_path * i / len(blocks)
            block = Block(
                kernel, stride, expansion, width, rate, self.norm, self.dtype, name=f"blocks_{i}"
            )
            x = block(x, train, drop_key_B)
        head_map = norm(name="head_bn")(conv(self.head, (1, 1), name="head")(x), train)
        return [*maps, x, nn.swish(head_map)]
