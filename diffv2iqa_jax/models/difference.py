"""Visual difference analysis: what the restoration changed, as a convolutional net sees it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax.models import layers
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.types import Views

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet(image: jax.Array) -> jax.Array:
    """Pixels in [-1, 1] -> the normalisation that torchvision's and timm's ResNets expect."""
    mean, std = (jnp.array(x)[None, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image + 1) / 2 - mean) / std


NORMALISE = {"imagenet": imagenet, "none": lambda image: image}


class Difference(nn.Module):
    """ResNet features of the views -> differences as query, key, value -> attention -> score.

    form "stages" (the paper's figure): features are the last stage's map; the attention is
    between channels (RTAB). form "logits" (the authors' code): features are the class logits,
    projected to `positions`, the attention is between these, and the result passes through
    the guidance branch's first TABs.

    Attributes:
      absolute: take |g_dis - g_m| instead of g_dis - g_m.
      positions: of the "logits" form, a square number: what the shared TABs attend over.
      width: hidden width of the heads; None takes the features' channels.
      normalise: of the ResNet's input, one of NORMALISE.
    """

    form: str = "stages"
    absolute: bool = False
    positions: int = 784
    width: int | None = None
    normalise: str = "imagenet"
    positive: bool = True
    dropout: float = 0.1
    tab: dict | None = None
    resnet: dict | None = None
    dtype: str = "float32"

    def check(self) -> None:
        for name, known in (("form", ("stages", "logits")), ("normalise", tuple(NORMALISE))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {list(known)}")

    @nn.compact
    def __call__(self, views: Views, first_tabs=None, *, train: bool = False):
        """Returns (score (B,), patch scores (B, h, w), patch weights (B, h, w))."""
        self.check()
        b, v, h, w, c = views.image_BVHWC.shape
        if v != 4:
            raise ValueError(
                f"the difference branch compares 4 views, there are {v}: keep 2 states"
            )
        images = NORMALISE[self.normalise](views.image_BVHWC.reshape(b * v, h, w, c))
        resnet = ResNet(**(self.resnet or {}), dtype=self.dtype, name="resnet")
        stages, logits = resnet(images, train=train)
        if self.form == "stages":
            x = self._channels(stages[-1].reshape(b, v, *stages[-1].shape[1:]), train)
        else:
            x = self._logits(logits.reshape(b, v, -1), first_tabs, train)
        width = self.width or x.shape[-1]
        head = layers.WeightedScore(width, self.positive, self.dropout, self.dtype, name="head")
        return head(x, train=train)

    def _differences(self, g_BV: jax.Array) -> list[jax.Array]:
        differences = [g_BV[:, 0] - g_BV[:, m] for m in (1, 2, 3)]
        return [jnp.abs(d) for d in differences] if self.absolute else differences

    def _channels(self, g_BVHWC: jax.Array, train: bool) -> jax.Array:
        """RTAB: transposed attention over the differences, added to g_dis."""
        b, _, h, w, c = g_BVHWC.shape
        flat = lambda x: x.reshape(b, h * w, c).swapaxes(1, 2)
        rtab = layers.TransposedAttention(**(self.tab or {}), dtype=self.dtype, name="rtab")
        differences = [flat(d) for d in self._differences(g_BVHWC)]
        out_BCN = rtab(*differences, residual_BCN=flat(g_BVHWC[:, 0]), train=train)
        return out_BCN.swapaxes(1, 2).reshape(b, h, w, c)

    def _logits(self, g_BVD: jax.Array, first_tabs, train: bool) -> jax.Array:
        if not first_tabs:
            raise ValueError("form 'logits' passes through the guidance branch's TABs: share them")
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        project = lambda name, x: dense(self.positions, name=name)(x)
        named = zip(("c_q", "c_k", "c_v"), self._differences(g_BVD), strict=True)
        q, k, v = (project(name, x)[:, :, None] for name, x in named)
        out_BN1 = layers.attend_channels(q, k, v, scale=g_BVD.shape[-1] ** -0.5)
        x_B1N = (out_BN1[:, :, 0] + project("residual", g_BVD[:, 0]))[:, None]
        for attend in first_tabs:
            x_B1N = attend(x_B1N, train=train)
        return dense(32, name="conv")(layers.to_map(x_B1N.swapaxes(1, 2)))
