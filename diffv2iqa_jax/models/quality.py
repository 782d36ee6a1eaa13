"""The quality model: the weighted sum of its branches' scores."""

from collections.abc import Collection

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax.models.difference import Difference
from diffv2iqa_jax.models.guidance import Guidance
from diffv2iqa_jax.models.layers import TransposedAttention
from diffv2iqa_jax.models.vcr import VCRBranch
from diffv2iqa_jax.types import Views

BRANCHES = {"guidance": Guidance, "difference": Difference, "vcrnet": VCRBranch}


def weight_of(name: str, branches: Collection[str], w2: float | jax.Array) -> float | jax.Array:
    """Of this branch's score: w2 if it is the difference branch and not the only one."""
    return w2 if name == "difference" and len(branches) > 1 else 1.0


class QualityModel(nn.Module):
    """Views of an image -> its quality S1 + w2 S2, and each branch's part of it.

    Attributes:
      branches: settings of each branch by name; a branch left out is not built.
      w2: weight of the difference branch (paper 1, release 5), or "learned", starting at 1.
      share_tabs: let the difference branch use the guidance branch's first TABs (release).
    """

    branches: dict[str, dict]
    w2: float | str = 1.0
    share_tabs: bool = False
    dtype: str = "float32"

    def check(self) -> None:
        unknown = sorted(set(self.branches) - set(BRANCHES))
        if unknown or not self.branches:
            raise ValueError(f"branches {unknown or 'none'}: known are {sorted(BRANCHES)}")
        if self.share_tabs and "guidance" not in self.branches:
            raise ValueError("share_tabs: there is no guidance branch to share them with")
        if isinstance(self.w2, str) and self.w2 != "learned":
            raise ValueError(f"w2 {self.w2!r}: must be a number or 'learned'")

    @nn.compact
    def __call__(self, views: Views, *, train: bool = False) -> dict[str, jax.Array]:
        """Scores the images, and says what each branch contributed.

        Returns:
          score (B,); for each branch score_NAME (B,), its own score, weight_NAME (B,), its weight
          in the sum, map_score_NAME and map_weight_NAME (B, h, w), its patches' scores and
          weights; and parts (B, branches), the weighted scores, whose sum is score.
        """
        self.check()
        tabs = None
        if self.share_tabs:
            guidance = self.branches["guidance"]
            settings = {**(guidance.get("tab") or {}), "dtype": self.dtype}
            count = guidance.get("tabs", Guidance.tabs)
            tabs = [TransposedAttention(**settings, name=f"tablock1_{i}") for i in range(count)]
        out = {}
        for name, settings in self.branches.items():
            branch = BRANCHES[name](**{"dtype": self.dtype, **settings}, name=name)
            score, patches, weights = branch(views, tabs, train=train)
            out |= {f"score_{name}": score, f"map_score_{name}": patches}
            out |= {f"map_weight_{name}": weights}
        w2 = self.param("w2", nn.initializers.ones, ()) if self.w2 == "learned" else self.w2
        parts = []
        for name in self.branches:
            score, weight = out[f"score_{name}"], weight_of(name, self.branches, w2)
            parts.append(weight * score)
            out[f"weight_{name}"] = jnp.full_like(score, weight)
        out["parts"] = jnp.stack(parts, axis=1)
        return out | {"score": out["parts"].sum(1)}
