"""What a scorer says of one picture."""

import dataclasses
import math

import numpy as np

# Flags that scoring sets; reading sets the others.
SCORING_FLAGS = ("small", "tiled", "out_of_range")


@dataclasses.dataclass(frozen=True)
class Score:
    """The score of one picture, or why it has none.

    Attributes:
      path: the file it was read from; None if pixels were passed.
      score: quality, higher is better. Training aims at [0, 1]; the number is not clipped. None
        if the picture could not be scored.
      branches: each branch's own score by name, before it is weighted.
      branch_weights: each branch's weight in `score` by name: w2 for the difference branch beside
        another one, else 1.
      mos: `score` on the scale of the data set that the model learned from, if that is known.
      spread: standard deviation of the scores over the seeds; None for one seed.
      width, height: of the picture as it was scored, in pixels; 0 if it could not be read.
      crops: how many crops were scored; `score` is their mean.
      status: "ok" or "failed".
      error, reason: code and one line, if it failed; see `errors.ImageError`. E_NOT_FINITE: the
        model's number is infinite or not a number.
      flags: what reading did to the picture (see `pp.decode`), then what scoring did. "small":
        smaller than a crop and continued by reflection; "tiled": restored tile by tile;
        "out_of_range": the score lies outside [0, 1].
      corners: with details, (crops, 2): top and left of each crop, in pixels.
      maps: with details, score_NAME and weight_NAME of each branch, (crops, h, w): the scores of
        a crop's patches, and their weights in the branch's score.
      views: with details, (crops, V, h, w, 3) uint8: the crop, restored, then noisy states.
    """

    path: str | None = None
    score: float | None = None
    branches: dict[str, float] = dataclasses.field(default_factory=dict)
    branch_weights: dict[str, float] = dataclasses.field(default_factory=dict)
    mos: float | None = None
    spread: float | None = None
    width: int = 0
    height: int = 0
    crops: int = 0
    status: str = "ok"
    error: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()
    corners: np.ndarray | None = dataclasses.field(default=None, repr=False)
    maps: dict[str, np.ndarray] | None = dataclasses.field(default=None, repr=False)
    views: np.ndarray | None = dataclasses.field(default=None, repr=False)

    @property
    def contributions(self) -> dict[str, float]:
        """What each branch adds to `score`: its own score times its weight. Their sum is `score`.

        Empty for a model without branches, and for a picture without a score.
        """
        return {name: self.branch_weights[name] * own for name, own in self.branches.items()}

    def __float__(self) -> float:
        """The score; not a number if there is none."""
        return math.nan if self.score is None else self.score
