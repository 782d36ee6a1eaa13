"""The weights in the package: what a new user sees first."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

import diffv2iqa_jax
from diffv2iqa_jax.scoring import predictor

# What its card has to say beside the numbers.
SAID = ("data", "recipe", "command", "seed", "numbers", "failures", "licence", "scale")


@pytest.fixture(scope="module")
def scorer():
    return diffv2iqa_jax.load("starter")


def test_its_card_says_where_it_comes_from_and_what_it_is_worth(scorer):
    card = json.loads(predictor.STARTER.with_suffix(".json").read_text())
    assert not [key for key in SAID if not card.get(key)]
    low, high = card["numbers"]["srcc_95"]
    assert low < card["numbers"]["srcc"] < high
    assert card["settings"]["restorer"]["sampling"]["steps"] <= 8
    assert set(card["settings"]["model"]["branches"]) == {"guidance", "difference"}
    assert predictor.STARTER.stat().st_size <= 30e6
    assert scorer.info.range == (0.0, 1.0) and scorer.info.sha256 == card["sha256"]


def test_a_photo_is_better_than_what_is_done_to_it(scorer):
    photo = Image.fromarray(data.astronaut())
    noise = np.random.default_rng(0).normal(0, 40, (512, 512, 3))
    noisy = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    blurred = photo.filter(ImageFilter.GaussianBlur(4))
    small = photo.resize((64, 64)).resize((512, 512), Image.Resampling.NEAREST)
    scores = [one.score for one in scorer([photo, blurred, noisy, small])]
    assert 0.5 < scores[0] < 1 and max(scores[1:]) < scores[0] - 0.05, scores
