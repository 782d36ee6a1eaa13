"""gMAD: the pairs are those the definition asks for."""

import csv
import json

import numpy as np
import pytest

from diffv2iqa_jax.data import prepare
from diffv2iqa_jax.tools import gmad
from tests import twins


def test_each_level_gives_the_attackers_farthest_pair():
    rng = np.random.default_rng(0)
    d, a = rng.uniform(size=200), rng.normal(size=200)
    pairs = gmad.pairs(d, a, np.arange(200), levels=4)
    assert [p["level"] for p in pairs] == [0, 1, 2, 3]
    width = np.ptp(d) / 4
    for p in pairs:
        low, high = d.min() + p["level"] * width, d.min() + (p["level"] + 1) * width
        rows = np.flatnonzero((d >= low - 1e-12) & (d <= high + 1e-12))
        assert {p["low"], p["high"]} <= set(rows.tolist())
        assert p["gap"] == pytest.approx(np.ptp(a[rows])) and abs(p["defender_gap"]) <= width


def test_a_pair_never_shows_one_reference_twice():
    rng = np.random.default_rng(1)
    for seed in range(50):
        group = rng.integers(0, 3, 12)
        a = np.random.default_rng(seed).normal(size=12)
        for p in gmad.pairs(np.zeros(12), a, group, levels=1):
            i, j = p["low"], p["high"]
            assert group[i] != group[j]
            best = max(a[y] - a[x] for x in range(12) for y in range(12) if group[x] != group[y])
            assert a[j] - a[i] == pytest.approx(best)
    assert gmad.pairs([0.1, 0.2], [1, 2], ["r", "r"], 1) == []
    assert gmad.pairs([], [], [], 3) == []


def test_bad_columns_are_refused():
    with pytest.raises(ValueError, match="one length"):
        gmad.pairs([1, 2], [1], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        gmad.pairs([1, np.nan], [1, 2], [1, 2])


def test_the_command_writes_pairs_and_a_page(tmp_path, capsys):
    for i in range(8):
        twins.picture(tmp_path / "photos" / f"p{i}.png", i, (20, 16))
    data = str(tmp_path / "data")
    make = ["pool", "--name", "mine", "--source", str(tmp_path / "photos"), "--folder", data]
    assert prepare.main(make) == 0
    scores = {"a": range(8), "b": [3, 1, 2, 0, 7, 5, 6, 4]}
    for run, values in scores.items():
        folder = tmp_path / run / "eval" / "pool-mine"
        folder.mkdir(parents=True)
        with (folder / "predictions.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "name", "group", "type", "level", "mos", "score"])
            rows.writerows(
                [i, f"p{i}.png", f"p{i}.png", "", 0, "nan", v] for i, v in enumerate(values)
            )
    argv = [str(tmp_path / "a"), str(tmp_path / "b"), "--on", "pool/mine", "--folder", data]
    out = tmp_path / "out"
    assert gmad.main([*argv, "--levels", "2", "-o", str(out)]) == 0
    pairs = json.loads((out / "pairs.json").read_text())
    assert len(pairs) == 4 and {p["attacker"] for p in pairs} == set(argv[:2])
    assert pairs[0]["high"]["attacker"] > pairs[0]["low"]["attacker"]
    assert (out / "pairs.html").read_text().count("<img") == 8
    assert gmad.main([*argv[:2], "--on", "pool/other", "-o", str(out)]) == 2
    assert "--mode evaluate --on pool/other" in capsys.readouterr().err
