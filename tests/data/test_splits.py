import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from diffv2iqa_jax.data import splits
from diffv2iqa_jax.data.sets import labels

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "labels"

GROUP = np.array([f"image{i:02d}" for i in np.arange(500) % 25])


def test_no_group_is_on_two_sides_and_no_row_is_lost():
    for index in range(10):
        parts = splits.split(GROUP, index)
        groups = [set(GROUP[part]) for part in parts]
        assert [len(g) for g in groups] == [15, 5, 5]
        assert len(set.union(*groups)) == 25
        assert sorted(np.concatenate(parts)) == list(range(500))
    assert splits.digest(*splits.split(GROUP, 0)) != splits.digest(*splits.split(GROUP, 1))
    assert splits.digest(*splits.split(GROUP, 0)) != splits.digest(*splits.split(GROUP, 0, seed=1))


def test_the_order_of_rows_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(500)
    for a, b in zip(splits.split(GROUP, 3), splits.split(GROUP[shuffled], 3), strict=True):
        assert set(GROUP[a]) == set(GROUP[shuffled][b])


def test_hashing_does_not_matter():
    code = (
        "import numpy as np; from diffv2iqa_jax.data import splits;"
        "print(splits.digest(*splits.split(np.array(['b', 'a', 'd', 'c', 'e'] * 9), 7)))"
    )
    run = [sys.executable, "-c", code]
    out = [
        subprocess.run(run, env=os.environ | {"PYTHONHASHSEED": s}, capture_output=True, check=True)
        for s in ("1", "2")
    ]
    want = splits.digest(*splits.split(np.array(["b", "a", "d", "c", "e"] * 9), 7))
    assert [o.stdout.decode().strip() for o in out] == [want, want]


@pytest.mark.parametrize(
    ("groups", "fractions", "sizes"),
    [
        (29, (0.8, 0, 0.2), (23, 0, 6)),
        (81, (0.8, 0, 0.2), (65, 0, 16)),
        (30, (0.8, 0.0, 0.2), (24, 0, 6)),
        (10, (0.65, 0.2, 0.15), (7, 2, 1)),  # halves up: 6.5 -> 7, 8.5 -> 9
        (4, (1.0, 0.0, 0.0), (4, 0, 0)),
    ],
)
def test_rounding(groups, fractions, sizes):
    assert tuple(map(len, splits.split(np.arange(groups), 0, fractions))) == sizes


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.2, 0.2), (0.9, -0.1, 0.2), (0.5, 0.5), (0.8, 0.1, 0.2)]
)
def test_bad_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="three parts of 1"):
        splits.split(GROUP, 0, fractions)


def test_a_part_that_would_be_empty_is_refused():
    with pytest.raises(ValueError, match="2 groups are too few"):
        splits.split(np.array(["a", "b"]), 0)


def names_by_rule():
    """Groups of the sets whose names follow a rule, or are written down."""
    written = splits.committed()
    return {
        "live": written["live"]["names"],
        "csiq": written["csiq"]["names"],
        "tid2013": [f"i{i:02d}" for i in range(1, 26)],
        "kadid10k": [f"I{i:02d}" for i in range(1, 82)],
        "livec": [f"{i}.{'JPG' if 533 <= i <= 1159 else 'bmp'}" for i in range(3, 1165)],
        "spaq": [f"{i:05d}.jpg" for i in range(1, 11126)],
    }


def names_from_files():
    """Groups of the sets whose names only their label files tell."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: the real label files are not here")
    koniq = labels.table(SHARED / "koniq10k" / "koniq10k_distributions_sets.csv")
    flive = labels.table(SHARED / "flive" / "labels_image.csv")
    listed = labels.pairs(SHARED / "csiq" / "csiq_label.txt")
    return {
        "koniq10k": [r["image_name"] for r in koniq],
        "flive": [r["name"] for r in flive],
        "live": sorted(set(labels.mat(SHARED / "live" / "refnames_all.mat", "refnames_all")[0])),
        "csiq": sorted({re.fullmatch(r"(.+)\.\w+\.\d\.png", n)[1] for n, _ in listed}),
    }


@pytest.mark.parametrize("names", [names_by_rule, names_from_files])
def test_the_committed_splits_are_those_of_the_rule(names):
    for name, groups in names().items():
        written = splits.committed()[name]
        assert written["groups"] == len(groups) == len(set(groups)), name
        for key, fractions in (("60/20/20", (0.6, 0.2, 0.2)), ("80/0/20", (0.8, 0.0, 0.2))):
            found = splits.digests(groups, fractions)
            assert written[key] == found and len(set(found)) == 10, (name, key)
            assert all(splits.is_committed(f"{name}@512", digest) for digest in found)
    assert not splits.is_committed("tid2013", splits.names_digest(GROUP, splits.split(GROUP, 0)))


def table(groups=30, each=4, **columns):
    """A set of 30 references, its rows in the order of the labels."""
    group = np.repeat([f"r{i:02d}" for i in range(groups)], each)
    name = np.array([f"{g}_{i}" for i, g in enumerate(group)])
    numbers = {"order": np.arange(len(group)), "content": np.arange(len(group), dtype=np.uint32)}
    return {"group": group, "name": name, **numbers, **columns}


THREE = (0.6, 0.2, 0.2)


def test_all_is_for_training():
    train, val, test = splits.choose(table(), "all", 0, THREE)
    assert len(train) == 120 and len(val) == len(test) == 0


def test_an_official_split_is_taken_as_it_is():
    part = np.repeat(["train", "val", "test"], [60, 20, 40])
    parts = splits.choose(table(part=part), "official", 5, THREE)
    assert [p.tolist() for p in parts] == [[*range(60)], [*range(60, 80)], [*range(80, 120)]]


def test_an_official_split_of_two_lends_validation_from_training():
    part = np.repeat(["train", "test"], [80, 40])
    t = table(part=part)
    train, val, test = splits.choose(t, "official", 0, THREE)
    assert test.tolist() == [*range(80, 120)] and len(train) == 60 and len(val) == 20
    assert sorted([*train, *val]) == [*range(80)] and not set(t["group"][train]) & set(
        t["group"][val]
    )
    train, val, _ = splits.choose(t, "official", 0, (0.8, 0.0, 0.2))
    assert len(train) == 80 and len(val) == 0


@pytest.mark.parametrize(
    ("way", "columns", "message"),
    [
        ("offical", {}, "'offical': known are"),
        ("official", {}, "no such split"),
        ("official", {"part": np.array(["train"] * 120)}, r"it names \['train'\]"),
    ],
)
def test_a_split_a_set_does_not_have_is_refused(way, columns, message):
    with pytest.raises(ValueError, match=message):
        splits.choose(table(**columns), way, 0, THREE)
    with pytest.raises(ValueError, match="file of labels"):
        splits.choose({"group": GROUP}, "legacy_maniqa", 0, THREE)


def test_maniqas_split_of_kadid_is_reproduced():
    """The 17 references of its validation part, as its authors' code has them."""
    t = table(81, 2)
    t["group"] = np.repeat([f"{i:02d}" for i in range(1, 82)], 2)
    train, val, test = splits.choose(t, "legacy_maniqa", 0, THREE)
    want = "07 08 10 14 16 17 21 23 27 29 35 41 63 71 72 75 76".split()
    assert sorted(set(t["group"][test])) == want and len(train) == 128 and len(val) == 0


def test_maniqas_split_of_koniq_is_reproduced():
    path = SHARED / "koniq10k" / "koniq10k_distributions_sets.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    name = np.array([r["image_name"] for r in labels.table(path)])
    t = {"group": name, "name": name, "order": np.arange(len(name))}
    train, _, test = splits.choose(t, "legacy_maniqa", 0, THREE)
    assert (len(train), len(test)) == (8058, 2015)
    assert {"10680715605.jpg", "5047082376.jpg", "8073658473.jpg"} <= set(name[train])
    assert {"7693237184.jpg", "9910216783.jpg", "2194214783.jpg"} <= set(name[test])


def test_the_releases_split_tears_references_and_the_checker_sees_it():
    t = table()
    clean = splits.check(t, splits.choose(t, "reference", 0, THREE))
    assert clean == {"groups": [], "twins": []}
    torn = splits.check(t, splits.choose(t, "legacy_release", 0, THREE))
    assert len(torn["groups"]) > 10 and torn["twins"] == []


def test_the_checker_sees_the_same_pixels_under_two_names():
    t = table()
    parts = splits.choose(t, "reference", 0, THREE)
    t["content"][parts[2][3]] = t["content"][parts[0][0]]
    assert splits.check(t, parts)["twins"] == [t["name"][parts[2][3]]]
    t = table()
    t["content"][parts[2][3]] = t["content"][parts[2][4]]  # twice in one part is no leak
    assert splits.check(t, parts)["twins"] == []
