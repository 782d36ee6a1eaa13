import json

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.tools import monotone


@pytest.fixture(autouse=True)
def quick_types(monkeypatch):
    """All 25 types compile for long; that levels are in order is what is tested here."""

    def greyer(key, x, level):
        return x + (0.5 - x) * level / 6

    monkeypatch.setattr(kadid, "FUNCTIONS", dict.fromkeys(kadid.TYPES, greyer))


@pytest.fixture
def folder(tmp_path):
    for number in range(2):
        Image.fromarray(scenes.scene(number, 24)).save(tmp_path / f"{number}.png")
    return tmp_path


class Judge:
    """Scores pictures by their contrast, which `greyer` takes away."""

    def __init__(self, sign=1.0):
        self.sign = sign

    def __call__(self, pictures):
        return [self.sign * float(x.std()) for x in pictures]


def test_contrast_falls_as_the_pictures_turn_grey(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(monotone.scorer, "load", lambda name: Judge())
    file = tmp_path / "found.json"
    assert monotone.main([str(folder), "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["photos"] == 2 and found["ordered"] == found["original_above"] == 1.0
    assert all(np.all(np.diff(row["means"]) < 0) for row in found["types"].values())
    out = capsys.readouterr().out
    assert "2 photos: 100.0% of level pairs in order, 100.0% of originals above" in out
    monkeypatch.setattr(monotone.scorer, "load", lambda name: Judge(-1.0))
    assert monotone.main([str(folder), "--limit", "1"]) == 0
    assert "1 photos: 0.0% of level pairs in order, 0.0%" in capsys.readouterr().out


def test_a_pair_counts_once_and_ties_are_not_in_order():
    scores = np.zeros((1, len(kadid.TYPES), len(kadid.LEVELS)))
    scores[0, 0] = [5, 4, 3, 2, 1, 1]
    found = monotone.summary(scores)
    assert found["types"][kadid.TYPES[0]]["ordered"] == pytest.approx(14 / 15)
    assert found["types"][kadid.TYPES[0]]["original_above"] == 1.0
    assert found["ordered_all_types"] == pytest.approx(14 / 15 / len(kadid.TYPES))


def test_what_cannot_be_scored_is_one_line(folder, tmp_path, capsys):
    for arguments in ([str(tmp_path / "none")], [str(folder), "--weights", str(tmp_path / "none")]):
        assert monotone.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
