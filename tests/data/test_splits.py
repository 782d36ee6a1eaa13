import os
import subprocess
import sys

import numpy as np
import pytest

from diffv2iqa_jax.data import splits

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
