"""Strips of what a score looked at."""

import numpy as np
import pytest

from diffv2iqa_jax.scoring import maps
from diffv2iqa_jax.scoring.result import Score


def test_what_no_crop_looked_at_is_white_in_every_panel():
    """A crop from the middle leaves a margin, which has neither pixels nor a quality."""
    score = Score(
        score=0.5,
        branches={"guidance": 0.5},
        branch_weights={"guidance": 1.0},
        views=np.full((1, 2, 8, 8, 3), 100.0),
        corners=np.array([[3, 5]]),
        maps={"score_guidance": np.full((1, 2, 2), 0.5)},
    )
    strip = maps.strip(score)
    assert strip.shape == (11, 3 * 13 + 2 * maps.GAP, 3)
    for start in range(0, strip.shape[1], 13 + maps.GAP):
        panel = strip[:, start : start + 13]
        assert (panel[:3] == maps.WHITE).all() and (panel[:, :5] == maps.WHITE).all()
        assert (panel[3:, 5:] != maps.WHITE).any(axis=-1).all()


@pytest.mark.parametrize(("w2", "of_difference"), [(1.0, 0.3), (5.0, 0.1), (5.0, 0.0)])
def test_the_map_adds_the_branches_as_the_score_does(w2, of_difference):
    """Of two patches one has all of the difference: S1 + w2 S2 there, S1 in the other."""
    score = Score(
        score=0.2 + w2 * of_difference,
        branches={"difference": of_difference, "guidance": 0.2},
        branch_weights={"difference": w2, "guidance": 1.0},
        views=np.zeros((1, 2, 8, 8, 3)),
        corners=np.array([[0, 0]]),
        maps={
            "score_difference": np.array([[[0.0, 2 * of_difference]]]),
            "score_guidance": np.full((1, 1, 2), 0.2),
        },
    )
    for column, quality in ((-7, 0.2), (-2, 0.2 + 2 * w2 * of_difference)):
        place = min(quality, 1) * (len(maps.COLOURS) - 1)
        want = [np.interp(place, range(len(maps.COLOURS)), maps.COLOURS[:, c]) for c in range(3)]
        np.testing.assert_allclose(maps.strip(score)[4, column], want, atol=1)
