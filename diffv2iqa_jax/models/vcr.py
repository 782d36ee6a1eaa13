"""VCRNet (Pan et al. 2022): a restoration autoencoder whose decoder helps an EfficientNet judge.

Both nets see the same ImageNet-normalised image, whichever of them is trained.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax import pixels
from diffv2iqa_jax.models.efficientnet import STAGES, EfficientNet
from diffv2iqa_jax.models.layers import Dropout, Norm, TransposedAttention
from diffv2iqa_jax.types import Views


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0) with one learned slope."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), ())
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Unit(nn.Module):
    """The sum of a 3 x 3, a 3 x 1 and a 1 x 3 convolution, then one BatchNorm."""

    width: int
    stride: int
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, self.width, strides=self.stride, dtype=self.dtype)
        square = conv((3, 3), padding=1, name="square")
        column = conv((3, 1), padding=[(1, 1), (0, 0)], use_bias=False, name="column")
        row = conv((1, 3), padding=[(0, 0), (1, 1)], use_bias=False, name="row")
        total = square(x_BHWC) + column(x_BHWC) + row(x_BHWC)
        return Norm(self.norm, self.dtype, name="bn")(total, train)


class Restoration(nn.Module):
    """Image -> restored image, both ImageNet-normalised, and the decoder's features.

    Attributes:
      width: width of the finest level, 16 as published; the deepest is 32 times as wide.
      norm: "batch", or "frozen" to use the running statistics in training too.
    """

    width: int = 16
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, image_BHWC: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Returns (restored (B, H, W, 3) float32, four decoder maps, coarsest first)."""
        if any(side % 16 for side in image_BHWC.shape[1:3]):
            raise ValueError(f"image {image_BHWC.shape[1:3]}: sides must divide by 16")
        prelu = PReLU(name="prelu")  # one for all places
        x, levels = self._encode(image_BHWC, prelu, train)
        features = []
        for i, width in enumerate((16, 8, 4, 2), start=1):
            x = self._deconv(self.width * width, 2, f"deconv{i}", self.dtype)(x)
            x = prelu(Norm(self.norm, self.dtype, name=f"deconv_bn{i}")(x, train))
            x = jnp.concatenate([x, levels.pop()], axis=-1)
            features.append(x)
        # The published forward pass computes the restored image and drops it; we return it.
        return self._deconv(3, 1, "deconv5", "float32")(x), features

    def _encode(
        self, image_BHWC: jax.Array, prelu: PReLU, train: bool
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Returns the deepest map, and those of the four finer levels, finest first.

        The three finest also hold features of the image itself, pooled to their size.
        """
        unit = partial(Unit, norm=self.norm, dtype=self.dtype)
        point = partial(nn.Conv, kernel_size=(1, 1), padding=0, dtype=self.dtype)

        x = nn.Conv(self.width, (3, 3), padding=1, dtype=self.dtype, name="conv")(image_BHWC)
        h = prelu(unit(self.width, 1, name="unit1")(x, train))
        x = prelu(x + unit(self.width, 1, name="unit2")(h, train))
        levels = [jnp.concatenate([point(self.width, name="image0")(image_BHWC), x], axis=-1)]
        for i, multiplier in enumerate((2, 4, 16, 32), start=1):
            width = self.width * multiplier
            x = levels[-1]
            h = prelu(unit(width, 2, name=f"unit{2 * i + 1}")(x, train))
            h = unit(width, 1, name=f"unit{2 * i + 2}")(h, train)
            x = prelu(point(width, strides=2, name=f"resconv{2 * i}")(x) + h)
            if i < 3:
                pooled = nn.max_pool(image_BHWC, (2**i, 2**i), (2**i, 2**i))
                x = jnp.concatenate([point(width, name=f"image{i}")(pooled), x], axis=-1)
            levels.append(x)
        return levels.pop(), levels

    def _deconv(self, width: int, stride: int, name: str, dtype: str) -> nn.ConvTranspose:
        """Transposed 3 x 3 convolution that multiplies the size by exactly its stride."""
        return nn.ConvTranspose(
            width,
            (3, 3),
            (stride, stride),
            padding=[(1, stride)] * 2,
            dtype=dtype,
            name=name,
        )


class Scales(nn.Module):
    """Three receptive fields side by side: 1 x 1, 3 x 3 and twice 3 x 3, with a stride."""

    width: int
    stride: int
    pad: int
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, self.width, dtype=self.dtype)
        square = partial(conv, (3, 3), self.stride, padding=self.pad)
        twice = conv((3, 3), padding=1, name="square3")(square(name="square2")(x_BHWC))
        point = conv((1, 1), self.stride, padding=0, name="point")(x_BHWC)
        x = jnp.concatenate([point, square(name="square1")(x_BHWC), twice], axis=-1)
        return PReLU(name="prelu")(Norm(self.norm, self.dtype, name="bn")(x, train))


class VCRNet(nn.Module):
    """ImageNet-normalised image -> its quality (B,), unbounded, and the restored image.

    Attributes:
      width: see `Restoration`.
      scale_width: width of each convolution of a multi-scale block.
      hidden: width of the two layers before the score.
      stages, stem, head: see `EfficientNet`, which must halve the size five times.
      norm: "batch" or "frozen", for both nets.
    """

    width: int = 16
    scale_width: int = 24
    hidden: int = 512
    stages: tuple[tuple[int, ...], ...] = STAGES
    stem: int = 32
    head: int = 1280
    dropout: float = 0.5
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        image_BHWC: jax.Array,
        *,
        train: bool = False,
        drop_key_B: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns (quality (B,), restored (B, H, W, 3)), both float32."""
        settings = {"norm": self.norm, "dtype": self.dtype}
        restoration = Restoration(self.width, **settings, name="restoration")
        restored, features = restoration(image_BHWC, train=train)
        efficient = EfficientNet(self.stages, self.stem, self.head, **settings, name="efficient")
        maps = efficient(image_BHWC, train=train, drop_key_B=drop_key_B)
        if len(maps) != 6:
            raise ValueError(f"stages {self.stages}: {len(maps) - 1} halvings where 5 are needed")
        scales = partial(Scales, self.scale_width, **settings)
        pooled = []
        # Each map of the EfficientNet beside a decoder's, from fine to coarse.
        pairs = zip((1, 2, 3, 5), (3, 2, 1, 0), strict=True)
        for i, (map_index, feature_index) in enumerate(pairs, start=1):
            seen = scales(2, 1, name=f"inception{i}_1")(maps[map_index], train)
            decoded = scales(8, 0, name=f"inception{i}_11")(features[feature_index], train)
            pooled.append(jnp.mean(jnp.concatenate([seen, decoded], axis=-1), axis=(1, 2)))
        return self._score(jnp.concatenate(pooled, axis=-1), drop_key_B), restored

    def _score(self, x_BD: jax.Array, drop_key_B: jax.Array | None) -> jax.Array:
        prelu = PReLU(name="prelu")
        x = prelu(nn.Dense(self.hidden, name="fc1")(x_BD))
        x = Dropout(self.dropout)(x, drop_key_B)
        x = prelu(nn.Dense(self.hidden, name="fc2")(x))
        return nn.Dense(1, name="fc3")(x)[:, 0].astype(jnp.float32)


class VCRBranch(nn.Module):
    """VCRNet as a branch of the quality model: it judges the image by its own restoration.

    Attributes:
      net: settings of VCRNet.
    """

    net: dict | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        views: Views,
        first_tabs: list[TransposedAttention] | None = None,
        *,
        train: bool = False,
        drop_key_B: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns (score (B,), the score as a map (B, 1, 1), weights of 1 (B, 1, 1)).

        Args:
          first_tabs: not used; every branch of the quality model takes them.
        """
        image_BHWC = pixels.normalise(views.image_BVHWC[:, 0], "imagenet")
        net = VCRNet(**(self.net or {}), dtype=self.dtype, name="net")
        score_B, _ = net(image_BHWC, train=train, drop_key_B=drop_key_B)
        score_B11 = score_B[:, None, None]
        return score_B, score_B11, jnp.ones_like(score_B11)
