"""Visual compensation guidance: transformer features of every view, told which view they are of.

With one view and no noise embedding this is MANIQA.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax import pixels
from diffv2iqa_jax.models import layers
from diffv2iqa_jax.models.swin import ScaleSwin
from diffv2iqa_jax.models.vit import ViT
from diffv2iqa_jax.types import Views


class Guidance(nn.Module):
    """ViT taps of each view + view embedding -> TABs -> Swin -> TABs -> Swin -> score.

    Attributes:
      select: for each view the ViT blocks to use, in the order of `Views`; () leaves it out.
      noise_width: width of the learned vector that marks a view's noise level; it is
        concatenated to the view's features. 0: none.
      reduce: widths of the 1 x 1 convolutions after the first TABs; the last is the first
        Swin's width.
      width: of the second Swin stage and of the heads.
      tabs: transposed attention blocks in each of the two stages.
      normalise: of the ViT's input, one of `pixels.MEAN_STD`.
      tab, swin, vit: settings of these modules.
    """

    select: tuple[tuple[int, ...], ...] = ((6, 7, 8, 9), (6, 7), (8,), (9,))
    noise_width: int = 192
    reduce: tuple[int, ...] = (2304, 768)
    width: int = 384
    tabs: int = 2
    normalise: str = "half"
    positive: bool = True
    dropout: float = 0.1
    tab: dict | None = None
    swin: dict | None = None
    vit: dict | None = None
    dtype: str = "float32"

    def check(self) -> None:
        """Raises ValueError for a normalisation that is not known and for no view at all."""
        if self.normalise not in pixels.MEAN_STD:
            known = list(pixels.MEAN_STD)
            raise ValueError(f"normalise {self.normalise!r}: known are {known}")
        if not any(self.select):
            raise ValueError(f"select {self.select}: must name a block of some view")

    def features(self, views: Views) -> jax.Array:
        """Z: the chosen features of all views, side by side, (B, C, N)."""
        b, v, h, w, c = views.image_BVHWC.shape
        if v < len(self.select):
            raise ValueError(f"select {self.select}: names {len(self.select)} views, there are {v}")
        used = [view for view, chosen in enumerate(self.select) if chosen]
        image = views.image_BVHWC[:, jnp.array(used)].reshape(-1, h, w, c)
        blocks = tuple(sorted({tap for taps in self.select for tap in taps}))
        vit = ViT(**{**(self.vit or {}), "taps": blocks}, dtype=self.dtype, name="vit")
        taps, _, _ = vit(pixels.normalise(image, self.normalise))
        by_block = {
            block: tap.reshape(b, len(used), *tap.shape[1:])
            for block, tap in zip(blocks, taps, strict=True)
        }
        if self.noise_width:
            shape = (len(self.select), self.noise_width)
            embedding = self.param("noise_embedding", nn.initializers.zeros, shape)
        groups = []
        for place, view in enumerate(used):
            groups += [by_block[block][:, place] for block in self.select[view]]
            if self.noise_width:
                wide = (b, groups[-1].shape[1], self.noise_width)
                groups.append(jnp.broadcast_to(embedding[view], wide).astype(groups[-1].dtype))
        return jnp.concatenate(groups, axis=-1).swapaxes(1, 2)

    @nn.compact
    def __call__(self, views: Views, first_tabs=None, *, train: bool = False):
        """Returns (score (B,), patch scores (B, h, w), patch weights (B, h, w)).

        Args:
          first_tabs: the first stage's TABs where another branch shares them.
        """
        conv = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        swin = partial(ScaleSwin, **(self.swin or {}), dtype=self.dtype)
        tab = partial(layers.TransposedAttention, **(self.tab or {}), dtype=self.dtype)
        to_map = lambda x_BCN: layers.to_map(x_BCN.swapaxes(1, 2))
        to_channels = lambda x: x.reshape(x.shape[0], -1, x.shape[-1]).swapaxes(1, 2)

        self.check()
        z_BCN = self.features(views)
        first_tabs = first_tabs or [tab(name=f"tablock1_{i}") for i in range(self.tabs)]
        for attend in first_tabs:
            z_BCN = attend(z_BCN, train=train)
        x = to_map(z_BCN)
        for i, width in enumerate(self.reduce):
            x = conv(width, name=f"conv1_{i}")(x)
        x = swin(name="swin1")(x, train=train)
        x_BCN = to_channels(x)
        for i in range(self.tabs):
            x_BCN = tab(name=f"tablock2_{i}")(x_BCN, train=train)
        x = conv(self.width, name="conv2")(to_map(x_BCN))
        x = swin(name="swin2")(x, train=train)
        head = layers.WeightedScore(
            self.width, self.positive, self.dropout, self.dtype, name="head"
        )
        return head(x, train=train)
