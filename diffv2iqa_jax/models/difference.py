"""Visual difference analysis: what the restoration changed, as a convolutional net sees it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax import pixels
from diffv2iqa_jax.models import layers
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.types import Views

FORMS = ("stages", "logits")
MIXES = ("rtab", "concat", "difference")


class Difference(nn.Module):
    """ResNet features of the views -> differences as query, key, value -> attention -> score.

    form "stages" (the paper's figure): features are the last stage's map; the attention is
    between channels (RTAB). form "logits" (the authors' code): features are the class logits,
    projected to `positions`, the attention is between these, and the result passes through
    the guidance branch's first TABs, or through TABs of its own.

    Attributes:
      layer_norm: bring every position's features to mean 0 and variance 1 first, then by one
        learned scale and offset per channel for all views: those of a ResNet are of very
        different sizes, which a head on frozen ones hardly overcomes. The paper has none.
      absolute: take |g_dis - g_m| instead of g_dis - g_m.
      compare: the views m whose differences are query, key and value; () compares nothing: the
        head of the "stages" form sees g_dis as it is.
      mix: of the "stages" form: "rtab" (attention, added to g_dis), "concat" (g_dis and the
        differences side by side, then a 1 x 1 convolution) or "difference" (their mean alone).
      positions: of the "logits" form, a square number: what its TABs attend over.
      width: hidden width of the heads; None takes the features' channels.
      normalise: of the ResNet's input, one of `pixels.MEAN_STD`.
      tabs: of the "logits" form, how many TABs of its own where none are shared.
    """

    form: str = "stages"
    layer_norm: bool = False
    absolute: bool = False
    compare: tuple[int, ...] = (1, 2, 3)
    mix: str = "rtab"
    positions: int = 784
    width: int | None = None
    normalise: str = "imagenet"
    positive: bool = True
    dropout: float = 0.1
    tabs: int = 2
    tab: dict | None = None
    resnet: dict | None = None
    dtype: str = "float32"

    def check(self) -> None:
        """Raises ValueError for a name that is not known and for views that cannot be."""
        named = {"form": FORMS, "mix": MIXES, "normalise": tuple(pixels.MEAN_STD)}
        for name, known in named.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {list(known)}")
        alone = not self.compare and self.form == "stages"
        if not alone and (len(self.compare) != 3 or min(self.compare) < 1):
            raise ValueError(f"compare {self.compare}: three views from 1, 0 is the image itself")

    @nn.compact
    def __call__(self, views: Views, first_tabs=None, *, train: bool = False):
        """Returns (score (B,), patch scores (B, h, w), patch weights (B, h, w))."""
        self.check()
        b, v, h, w, c = views.image_BVHWC.shape
        if v <= max(self.compare, default=0):
            raise ValueError(f"compare {self.compare}: there are views 0 to {v - 1} only")
        used = sorted({0, *self.compare})
        image = views.image_BVHWC[:, jnp.array(used)].reshape(-1, h, w, c)
        resnet = ResNet(**(self.resnet or {}), dtype=self.dtype, name="resnet")
        stages, logits = resnet(pixels.normalise(image, self.normalise), train=train)
        g = stages[-1] if self.form == "stages" else logits
        if self.layer_norm:
            g = nn.LayerNorm(dtype=self.dtype, name="norm")(g)
        g = dict(zip(used, g.reshape(b, len(used), *g.shape[1:]).swapaxes(0, 1), strict=True))
        signed = [g[0] - g[m] for m in self.compare]
        differences = [jnp.abs(d) for d in signed] if self.absolute else signed
        if not self.compare:
            x = g[0]
        elif self.form == "stages":
            x = getattr(self, f"_{self.mix}")(g[0], differences, train)
        else:
            x = self._logits(g[0], differences, first_tabs, train)
        width = self.width or x.shape[-1]
        head = layers.WeightedScore(width, self.positive, self.dropout, self.dtype, name="head")
        return head(x, train=train)

    def _rtab(self, g_BHWC: jax.Array, differences: list[jax.Array], train: bool) -> jax.Array:
        """Transposed attention over the differences, added to g_dis."""
        b, h, w, c = g_BHWC.shape
        flat = lambda x: x.reshape(b, h * w, c).swapaxes(1, 2)
        rtab = layers.TransposedAttention(**(self.tab or {}), dtype=self.dtype, name="rtab")
        out_BCN = rtab(*map(flat, differences), residual_BCN=flat(g_BHWC), train=train)
        return out_BCN.swapaxes(1, 2).reshape(b, h, w, c)

    def _concat(self, g_BHWC: jax.Array, differences: list[jax.Array], train: bool) -> jax.Array:
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        beside = jnp.concatenate([g_BHWC, *differences], axis=-1)
        return dense(g_BHWC.shape[-1], name="concat")(beside)

    def _difference(self, g_BHWC: jax.Array, differences: list[jax.Array], train: bool):
        return sum(differences) / len(differences)

    def _logits(self, g_BD: jax.Array, differences: list[jax.Array], first_tabs, train: bool):
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        project = lambda name, x: dense(self.positions, name=name)(x)
        named = zip(("c_q", "c_k", "c_v"), differences, strict=True)
        q, k, v = (project(name, x)[:, :, None] for name, x in named)
        out_BN1 = layers.attend_channels(q, k, v, scale=g_BD.shape[-1] ** -0.5)
        x_B1N = (out_BN1[:, :, 0] + project("residual", g_BD))[:, None]
        tab = partial(layers.TransposedAttention, **(self.tab or {}), dtype=self.dtype)
        for attend in first_tabs or [tab(name=f"tablock1_{i}") for i in range(self.tabs)]:
            x_B1N = attend(x_B1N, train=train)
        return dense(32, name="conv")(layers.to_map(x_B1N.swapaxes(1, 2)))
