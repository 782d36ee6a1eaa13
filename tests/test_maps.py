"""Strips of what a score looked at."""

from types import SimpleNamespace

import numpy as np

from diffv2iqa_jax import maps


def test_what_no_crop_looked_at_is_white_in_every_panel():
    """A crop from the middle leaves a margin, which has neither pixels nor a quality."""
    views = np.full((1, 2, 8, 8, 3), 100.0)
    quality = np.full((1, 2, 2), 0.5)
    corners = np.array([[3, 5]])
    score = SimpleNamespace(
        views=views, corners=corners, branches={"guidance": 0.5}, maps={"score_guidance": quality}
    )
    strip = maps.strip(score)
    assert strip.shape == (11, 3 * 13 + 2 * maps.GAP, 3)
    for start in range(0, strip.shape[1], 13 + maps.GAP):
        panel = strip[:, start : start + 13]
        assert (panel[:3] == maps.WHITE).all() and (panel[:, :5] == maps.WHITE).all()
        assert (panel[3:, 5:] != maps.WHITE).any(axis=-1).all()
