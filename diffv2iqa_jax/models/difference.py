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

    form "stages" (the paper's figure) takes the last stage's map and attends between its
    channels (RTAB). form "logits" (the authors' code) takes the class logits, projects them to
    `positions`, attends between these, and passes the result through the guidance branch's
    first TABs, or through TABs of its own.

    Attributes:
      layer_norm: normalise every position's features first, with one learned scale and offset
        per channel for all views. A ResNet's features differ so much in size that a head on
        frozen ones hardly overcomes it. The paper has no such norm.
      absolute: take |g_dis - g_m| instead of g_dis - g_m.
      compare: the views m whose differences are query, key and value; () compares nothing, so
        that the head of the "stages" form sees g_dis as it is.
      mix: how the "stages" form joins g_dis and the differences: "rtab" (attention, added to
        g_dis), "concat" (side by side, then a 1 x 1 convolution) or "difference" (only the
        mean of the differences).
      positions: how many positions the TABs of the "logits" form attend over, a square number.
      width: hidden width of the heads; None takes the features' channels.
      normalise: how to normalise the ResNet's input, one of `pixels.MEAN_STD`.
      tabs: how many TABs the "logits" form builds where it shares none.
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
        """Raises ValueError for an unknown name and for views that it cannot compare."""
        choices = {"form": FORMS, "mix": MIXES, "normalise": tuple(pixels.MEAN_STD)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {list(allowed)}")
        compares_nothing = not self.compare and self.form == "stages"
        if not compares_nothing and (len(self.compare) != 3 or min(self.compare) < 1):
            raise ValueError(f"compare {self.compare}: three views from 1, 0 is the image itself")

    @nn.compact
    def __call__(
        self,
        views: Views,
        first_tabs: list[layers.TransposedAttention] | None = None,
        *,
        train: bool = False,
        drop_key_B: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns (score (B,), patch scores (B, h, w), patch weights (B, h, w))."""
        self.check()
        b, v, h, w, c = views.image_BVHWC.shape
        if v <= max(self.compare, default=0):
            raise ValueError(f"compare {self.compare}: there are views 0 to {v - 1} only")
        used_views = sorted({0, *self.compare})
        # The views side by side in one batch: the net runs once.
        image_NHWC = views.image_BVHWC[:, jnp.array(used_views)].reshape(-1, h, w, c)
        resnet = ResNet(**(self.resnet or {}), dtype=self.dtype, name="resnet")
        stages, logits = resnet(pixels.normalise(image_NHWC, self.normalise), train=train)
        g = stages[-1] if self.form == "stages" else logits
        if self.layer_norm:
            g = nn.LayerNorm(dtype=self.dtype, name="norm")(g)
        by_view = g.reshape(b, len(used_views), *g.shape[1:]).swapaxes(0, 1)
        g_of = dict(zip(used_views, by_view, strict=True))
        signed = [g_of[0] - g_of[m] for m in self.compare]
        differences = [jnp.abs(d) for d in signed] if self.absolute else signed
        if not self.compare:
            mixed_BHWC = g_of[0]
        elif self.form == "stages":
            mixed_BHWC = getattr(self, f"_{self.mix}")(g_of[0], differences, drop_key_B)
        else:
            mixed_BHWC = self._logits(g_of[0], differences, first_tabs, drop_key_B)
        width = self.width or mixed_BHWC.shape[-1]
        head = layers.WeightedScore(width, self.positive, self.dropout, self.dtype, name="head")
        return head(mixed_BHWC, drop_key_B=drop_key_B)

    def _rtab(
        self, g_BHWC: jax.Array, differences: list[jax.Array], drop_key_B: jax.Array | None
    ) -> jax.Array:
        """Adds to g_dis the transposed attention over the differences."""
        b, h, w, c = g_BHWC.shape
        rtab = layers.TransposedAttention(**(self.tab or {}), dtype=self.dtype, name="rtab")
        inputs = [layers.to_channels(difference_BHWC) for difference_BHWC in differences]
        out_BCN = rtab(*inputs, residual_BCN=layers.to_channels(g_BHWC), drop_key_B=drop_key_B)
        return out_BCN.swapaxes(1, 2).reshape(b, h, w, c)

    def _concat(
        self, g_BHWC: jax.Array, differences: list[jax.Array], drop_key_B: jax.Array | None
    ) -> jax.Array:
        """Puts g_dis and the differences side by side and convolves 1 x 1."""
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        concatenated = jnp.concatenate([g_BHWC, *differences], axis=-1)
        return dense(g_BHWC.shape[-1], name="concat")(concatenated)

    def _difference(
        self, g_BHWC: jax.Array, differences: list[jax.Array], train: bool
    ) -> jax.Array:
        """The mean of the differences, without g_dis."""
        return sum(differences) / len(differences)

    def _logits(
        self,
        g_BD: jax.Array,
        differences: list[jax.Array],
        first_tabs: list[layers.TransposedAttention] | None,
        drop_key_B: jax.Array | None,
    ) -> jax.Array:
        """The "logits" form: attends between `positions`, then the TABs, then a 32-wide map."""
        dense = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        inputs = zip(("c_q", "c_k", "c_v"), differences, strict=True)
        q, k, v = (dense(self.positions, name=name)(x_BD)[:, :, None] for name, x_BD in inputs)
        out_BN1 = layers.attend_channels(q, k, v, scale=g_BD.shape[-1] ** -0.5)
        x_B1N = (out_BN1[:, :, 0] + dense(self.positions, name="residual")(g_BD))[:, None]
        tab = partial(layers.TransposedAttention, **(self.tab or {}), dtype=self.dtype)
        for attend in first_tabs or [tab(name=f"tablock1_{i}") for i in range(self.tabs)]:
            x_B1N = attend(x_B1N, drop_key_B=drop_key_B)
        return dense(32, name="conv")(layers.to_map(x_B1N.swapaxes(1, 2)))
