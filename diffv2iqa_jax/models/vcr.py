"""VCRNet (Pan et al. 2022): a restoration autoencoder whose decoder helps an EfficientNet judge.

Both nets see the same ImageNet-normalised image, also at training time of either.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax import pixels
from diffv2iqa_jax.models.efficientnet import STAGES, EfficientNet
from diffv2iqa_jax.models.layers import Norm
from diffv2iqa_jax.types import Views


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0) with one learned slope."""

    @nn.compact
    def __call__(self, x):
        slope = self.param("slope", nn.initializers.constant(0.25), ())
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Unit(nn.Module):
    """The sum of a 3 x 3, a 3 x 1 and a 1 x 3 convolution, then one BatchNorm."""

    width: int
    stride: int
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x_BHWC, train: bool):
        conv = lambda rows, columns, bias, name: nn.Conv(
            self.width,
            (rows, columns),
            self.stride,
            padding=[(rows // 2,) * 2, (columns // 2,) * 2],
            use_bias=bias,
            dtype=self.dtype,
            name=name,
        )(x_BHWC)
        total = conv(3, 3, True, "square") + conv(3, 1, False, "column") + conv(1, 3, False, "row")
        return Norm(self.norm, self.dtype, name="bn")(total, train)


class Restoration(nn.Module):
    """Image -> restored image, both ImageNet-normalised, and the decoder's features.

    Attributes:
      width: of the finest level, 16 as published; the deepest is 32 times as wide.
      norm: "batch", or "frozen" to use the running statistics in training too.
    """

    width: int = 16
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool = False):
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
        # The published forward pass computes the restored image and throws it away.
        return self._deconv(3, 1, "deconv5", "float32")(x), features

    def _encode(self, image_BHWC, prelu: PReLU, train: bool):
        """The deepest map, and those of the finer levels, each with the image itself at hand."""
        unit = lambda x, width, stride, i: Unit(
            self.width * width, stride, self.norm, self.dtype, name=f"unit{i}"
        )(x, train)
        point = lambda x, width, stride, name: nn.Conv(
            self.width * width, (1, 1), stride, padding=0, dtype=self.dtype, name=name
        )(x)
        pool = lambda side: nn.max_pool(image_BHWC, (side, side), (side, side))
        x = nn.Conv(self.width, (3, 3), padding=1, dtype=self.dtype, name="conv")(image_BHWC)
        x = prelu(x + unit(prelu(unit(x, 1, 1, 1)), 1, 1, 2))
        levels = [jnp.concatenate([point(image_BHWC, 1, 1, "image0"), x], axis=-1)]
        for i, width in enumerate((2, 4, 16, 32), start=1):
            x = levels[-1]
            h = prelu(unit(x, width, 2, 2 * i + 1))
            x = prelu(point(x, width, 2, f"resconv{2 * i}") + unit(h, width, 1, 2 * i + 2))
            if i < 3:
                x = jnp.concatenate([point(pool(2**i), width, 1, f"image{i}"), x], axis=-1)
            levels.append(x)
        return levels.pop(), levels

    def _deconv(self, width: int, stride: int, name: str, dtype: str):
        """Transposed 3 x 3 convolution that multiplies the size by its stride exactly."""
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
    def __call__(self, x_BHWC, train: bool):
        conv = partial(nn.Conv, self.width, dtype=self.dtype)
        square = partial(conv, (3, 3), self.stride, padding=self.pad)
        twice = conv((3, 3), padding=1, name="square3")(square(name="square2")(x_BHWC))
        point = conv((1, 1), self.stride, padding=0, name="point")(x_BHWC)
        x = jnp.concatenate([point, square(name="square1")(x_BHWC), twice], axis=-1)
        return PReLU(name="prelu")(Norm(self.norm, self.dtype, name="bn")(x, train))


class VCRNet(nn.Module):
    """ImageNet-normalised image -> its quality (B,), unbounded, and the restored image.

    Attributes:
      width: of the restoration, see there.
      scale_width: of each part of a multi-scale block.
      hidden: width of the two layers before the score.
      stages, stem, head: of the EfficientNet; it must have the size halved five times.
      always_drop: drop also when not training, as the published code does by a slip; the score
        is then random and needs a "dropout" key.
      norm: "batch" or "frozen", of both nets.
    """

    width: int = 16
    scale_width: int = 24
    hidden: int = 512
    stages: tuple[tuple[int, ...], ...] = STAGES
    stem: int = 32
    head: int = 1280
    dropout: float = 0.5
    always_drop: bool = False
    norm: str = "batch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image_BHWC: jax.Array, *, train: bool = False):
        settings = {"norm": self.norm, "dtype": self.dtype}
        restoration = Restoration(self.width, **settings, name="restoration")
        restored, features = restoration(image_BHWC, train=train)
        efficient = EfficientNet(self.stages, self.stem, self.head, **settings, name="efficient")
        maps = efficient(image_BHWC, train=train)
        if len(maps) != 6:
            raise ValueError(f"stages {self.stages}: {len(maps) - 1} halvings where 5 are needed")
        scales = partial(Scales, self.scale_width, **settings)
        pooled = []
        for i, (y, x) in enumerate(zip((1, 2, 3, 5), (3, 2, 1, 0), strict=True), start=1):
            y = scales(2, 1, name=f"inception{i}_1")(maps[y], train)
            x = scales(8, 0, name=f"inception{i}_11")(features[x], train)
            pooled.append(jnp.mean(jnp.concatenate([y, x], axis=-1), axis=(1, 2)))
        return self._score(jnp.concatenate(pooled, axis=-1), train), restored

    def _score(self, x_BD: jax.Array, train: bool) -> jax.Array:
        prelu = PReLU(name="prelu")
        drop = nn.Dropout(self.dropout, deterministic=not (train or self.always_drop))
        x = drop(prelu(nn.Dense(self.hidden, name="fc1")(x_BD)))
        x = prelu(nn.Dense(self.hidden, name="fc2")(x))
        return nn.Dense(1, name="fc3")(x)[:, 0].astype(jnp.float32)


class VCRBranch(nn.Module):
    """VCRNet as the branch of a quality model: it judges the image by a restoration of its own.

    Attributes:
      net: settings of VCRNet.
    """

    net: dict | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, views: Views, first_tabs=None, *, train: bool = False):
        """Returns (score (B,), the same as a map of one position, its weight 1)."""
        image = pixels.normalise(views.image_BVHWC[:, 0], "imagenet")
        score, _ = VCRNet(**(self.net or {}), dtype=self.dtype, name="net")(image, train=train)
        one = score[:, None, None]
        return score, one, jnp.ones_like(one)
