"""The quality model: the weighted sum of its branches' scores."""

from collections.abc import Collection

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax import rng
from diffv2iqa_jax.models.difference import Difference
from diffv2iqa_jax.models.guidance import Guidance
from diffv2iqa_jax.models.layers import TransposedAttention
from diffv2iqa_jax.models.vcr import VCRBranch
from diffv2iqa_jax.types import Views

BRANCHES = {"guidance": Guidance, "difference": Difference, "vcrnet": VCRBranch}


def weight_of(name: str, branches: Collection[str], w2: float | jax.Array) -> float | jax.Array:
    """Weight of a branch's score: w2 for the difference branch beside others, else 1."""
    return w2 if name == "difference" and len(branches) > 1 else 1.0


class QualityModel(nn.Module):
    """Views of an image -> its quality S1 + w2 S2, and what each branch adds to it.

    Attributes:
      branches: settings of each branch to build, by name.
      w2: weight of the difference branch (paper 1, release 5), or "learned", starting at 1.
      share_tabs: let the difference branch use the guidance branch's first TABs (release).
    """

    branches: dict[str, dict]
    w2: float | str = 1.0
    share_tabs: bool = False
    dtype: str = "float32"

    def check(self) -> None:
        """Raises ValueError for an unknown branch and for settings that do not go together."""
        unknown = sorted(set(self.branches) - set(BRANCHES))
        if unknown or not self.branches:
            raise ValueError(f"branches {unknown or 'none'}: known are {sorted(BRANCHES)}")
        if self.share_tabs and "guidance" not in self.branches:
            raise ValueError("share_tabs: there is no guidance branch to share them with")
        if isinstance(self.w2, str) and self.w2 != "learned":
            raise ValueError(f"w2 {self.w2!r}: must be a number or 'learned'")

    @nn.compact
    def __call__(
        self, views: Views, *, train: bool = False, drop_key_B: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Scores the images, and says what each branch contributed.

        Args:
          train: normalise by the batch's statistics.
          drop_key_B: a key for each image, of what is dropped; None drops nothing.

        Returns:
          score (B,); for each branch score_NAME (B,), its own score, weight_NAME (B,), its weight
          in the sum, map_score_NAME and map_weight_NAME (B, h, w), its patches' scores and
          weights; and parts (B, branches), the weighted scores, whose sum is score.
        """
        self.check()
        shared_tabs = None
        if self.share_tabs:
            guidance = self.branches["guidance"]
            settings = {**(guidance.get("tab") or {}), "dtype": self.dtype}
            count = guidance.get("tabs", Guidance.tabs)
            names = [f"tablock1_{i}" for i in range(count)]
            shared_tabs = [TransposedAttention(**settings, name=name) for name in names]
        outputs = {}
        for name, settings in self.branches.items():
            branch = BRANCHES[name](**{"dtype": self.dtype, **settings}, name=name)
            # By branch, since a shared module would else drop the same of each.
            own_key_B = None if drop_key_B is None else rng.within(drop_key_B, name)
            score_B, patch_score_Bhw, patch_weight_Bhw = branch(
                views, shared_tabs, train=train, drop_key_B=own_key_B
            )
            outputs[f"score_{name}"] = score_B
            outputs[f"map_score_{name}"] = patch_score_Bhw
            outputs[f"map_weight_{name}"] = patch_weight_Bhw
        w2 = self.param("w2", nn.initializers.ones, ()) if self.w2 == "learned" else self.w2
        contributions = []
        for name in self.branches:
            score_B, weight = outputs[f"score_{name}"], weight_of(name, self.branches, w2)
            contributions.append(weight * score_B)
            outputs[f"weight_{name}"] = jnp.full_like(score_B, weight)
        outputs["parts"] = jnp.stack(contributions, axis=1)
        return outputs | {"score": outputs["parts"].sum(1)}
