"""Files that users have from before the package was rearranged still load, and score as then.

tests/written_before holds a stage-2 run of the tiny set, of its newest checkpoint only what loading
reads, and the same weights packed into one file. Both were written by commit e58c130, as were the
scores.
"""

import pathlib

import numpy as np
import pytest

from diffv2iqa_jax.scoring import predictor, scorer
from diffv2iqa_jax.training import saved

FOLDER = pathlib.Path(__file__).parents[1] / "written_before"
SCORES = (0.11709078960120678, 0.15867909789085388)


@pytest.mark.parametrize("name", ["run", "packed.safetensors"])
def test_what_was_written_before_scores_as_it_did(name):
    g = np.random.default_rng(0)
    pictures = [g.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((20, 24), (16, 16))]
    scores = [score.score for score in scorer.load(FOLDER / name, jit_cache=None)(pictures)]
    np.testing.assert_allclose(scores, SCORES, rtol=1e-4)


def test_a_run_and_its_packed_file_hold_the_same_weights():
    config, weights, step = saved.load(str(FOLDER / "run"))
    assert (config["task"], config["data"]["name"], step) == ("quality", "builtin/tiny", 4)
    packed = predictor.load(str(FOLDER / "packed.safetensors"))
    np.testing.assert_equal(packed.weights.params, weights.params)
    np.testing.assert_equal(packed.weights.stats, weights.stats)
