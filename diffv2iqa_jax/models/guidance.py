"""Visual compensation guidance: transformer features of every view, marked by which view it is.

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
      select: for each view, in the order of `Views`, the ViT blocks to use; () leaves it out.
      noise_width: width of the learned vector that marks a view's noise level and is
        concatenated to the view's features; 0 adds none.
      reduce: widths of the 1 x 1 convolutions after the first TABs; the last is the first
        Swin's width.
      width: width of the second Swin stage and of the heads.
      tabs: transposed attention blocks in each of the two stages.
      normalise: how to normalise the ViT's input, one of `pixels.MEAN_STD`.
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
        """Raises ValueError for an unknown normalisation and where no view is used."""
        if self.normalise not in pixels.MEAN_STD:
            allowed = list(pixels.MEAN_STD)
            raise ValueError(f"normalise {self.normalise!r}: known are {allowed}")
        if not any(self.select):
            raise ValueError(f"select {self.select}: must name a block of some view")

    def features(self, views: Views) -> jax.Array:
        """Z: the chosen features of all views, side by side, (B, C, N)."""
        b, v, h, w, c = views.image_BVHWC.shape
        if v < len(self.select):
            raise ValueError(f"select {self.select}: names {len(self.select)} views, there are {v}")
        used_views = [view for view, blocks in enumerate(self.select) if blocks]
        # The views side by side in one batch: the ViT runs once.
        image_NHWC = views.image_BVHWC[:, jnp.array(used_views)].reshape(-1, h, w, c)
        all_blocks = tuple(sorted({block for blocks in self.select for block in blocks}))
        vit = ViT(**{**(self.vit or {}), "taps": all_blocks}, dtype=self.dtype, name="vit")
        taps, _, _ = vit(pixels.normalise(image_NHWC, self.normalise))
        by_block = {
            block: tap.reshape(b, len(used_views), *tap.shape[1:])
            for block, tap in zip(all_blocks, taps, strict=True)
        }
        if self.noise_width:
            shape = (len(self.select), self.noise_width)
            embedding = self.param("noise_embedding", nn.initializers.zeros, shape)
        features = []
        for index, view in enumerate(used_views):
            features += [by_block[block][:, index] for block in self.select[view]]
            if self.noise_width:
                shape = (b, features[-1].shape[1], self.noise_width)
                marks = jnp.broadcast_to(embedding[view], shape)
                features.append(marks.astype(features[-1].dtype))
        return jnp.concatenate(features, axis=-1).swapaxes(1, 2)

    @nn.compact
    def __call__(
        self,
        views: Views,
        first_tabs: list[layers.TransposedAttention] | None = None,
        *,
        train: bool = False,
        drop_key_B: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns (score (B,), patch scores (B, h, w), patch weights (B, h, w)).

        Args:
          first_tabs: the first stage's TABs where another branch shares them.
          train: not used; there are no statistics.
          drop_key_B: a key for each image, of what is dropped; None drops nothing.
        """
        conv = partial(nn.Dense, kernel_init=layers.fan_in_uniform, dtype=self.dtype)
        swin = partial(ScaleSwin, **(self.swin or {}), dtype=self.dtype)
        tab = partial(layers.TransposedAttention, **(self.tab or {}), dtype=self.dtype)

        self.check()
        z_BCN = self.features(views)
        first_tabs = first_tabs or [tab(name=f"tablock1_{i}") for i in range(self.tabs)]
        for attend in first_tabs:
            z_BCN = attend(z_BCN, drop_key_B=drop_key_B)
        x_BHWC = layers.to_map(z_BCN.swapaxes(1, 2))
        for i, width in enumerate(self.reduce):
            x_BHWC = conv(width, name=f"conv1_{i}")(x_BHWC)
        x_BHWC = swin(name="swin1")(x_BHWC, drop_key_B=drop_key_B)
        x_BCN = layers.to_channels(x_BHWC)
        for i in range(self.tabs):
            x_BCN = tab(name=f"tablock2_{i}")(x_BCN, drop_key_B=drop_key_B)
        x_BHWC = conv(self.width, name="conv2")(layers.to_map(x_BCN.swapaxes(1, 2)))
        x_BHWC = swin(name="swin2")(x_BHWC, drop_key_B=drop_key_B)
        head = layers.WeightedScore(
            self.width, self.positive, self.dropout, self.dtype, name="head"
        )
        return head(x_BHWC, drop_key_B=drop_key_B)
