"""EfficientNet-B0 with tapped feature maps (Tan & Le 2019), as VCRNet uses it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax.models.layers import Norm

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

    The published net pads so at every size, as if it were built for 224 pixels.
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
    def __call__(self, x_BHWC: jax.Array, train: bool):
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, self.dtype, epsilon=1e-3, momentum=0.99)
        dense = partial(nn.Dense, dtype=self.dtype)
        before = x_BHWC.shape[-1]
        wide = before * self.expansion
        h = x_BHWC
        if self.expansion != 1:
            h = nn.swish(norm(name="bn0")(conv(wide, (1, 1), name="expand")(h), train))
        h = conv(
            wide,
            (self.kernel, self.kernel),
            self.stride,
            padding=padding(self.kernel, self.stride),
            feature_group_count=wide,
            name="depthwise",
        )(h)
        h = nn.swish(norm(name="bn1")(h, train))
        squeezed = jnp.mean(h, axis=(1, 2), keepdims=True)
        squeezed = nn.swish(dense(max(1, before // 4), name="squeeze_reduce")(squeezed))
        h = h * nn.sigmoid(dense(wide, name="squeeze_expand")(squeezed))
        h = norm(name="bn2")(conv(self.width, (1, 1), name="project")(h), train)
        if self.stride != 1 or before != self.width:
            return h
        # Drops a whole image's update; broadcast over its positions and channels.
        path = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)
        return x_BHWC + path(h)


class EfficientNet(nn.Module):
    """ImageNet-normalised images (B, H, W, 3) -> feature maps, finest first.

    Attributes:
      stages: see STAGES.
      stem, head: widths of the convolutions before and after them.
      drop_path: of the last block; rises linearly from 0.
    """

    stages: tuple[tuple[int, ...], ...] = STAGES
    stem: int = 32
    head: int = 1280
    drop_path: float = 0.2
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """Returns the last map before each halving of the size, the last block's, the head's."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(Norm, self.norm, self.dtype, epsilon=1e-3, momentum=0.99)
        x = conv(self.stem, (3, 3), 2, padding=padding(3, 2), name="stem")(image_BHWC)
        x = nn.swish(norm(name="stem_bn")(x, train))
        rows = [
            (kernel, stride if first == 0 else 1, expansion, width)
            for count, kernel, stride, expansion, width in self.stages
            for first in range(count)
        ]
        maps = []
        for i, row in enumerate(rows):
            if row[1] > 1:
                maps.append(x)
            rate = self.drop_path * i / len(rows)
            x = Block(*row, rate, self.norm, self.dtype, name=f"blocks_{i}")(x, train)
        top = norm(name="head_bn")(conv(self.head, (1, 1), name="head")(x), train)
        return [*maps, x, nn.swish(top)]
