"""Tests of differences: they find what is there, and rarely what is not."""

import json

import numpy as np
import pytest
from scipy import stats

from diffv2iqa_jax.evaluation import correlation, significance


def scores(seed, groups=30, each=5, errors=(0.3, 0.3), shared=0.0):
    """Opinions and two scores whose errors have these deviations, part of them per group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    mos = rng.normal(size=len(group))

    def errors_of(e):
        return (
            e * rng.normal(size=len(group)) * (1 - shared) ** 0.5
            + e * rng.normal(size=groups)[group] * shared**0.5
        )

    return mos + errors_of(errors[0]), mos + errors_of(errors[1]), mos, group


def test_a_real_difference_is_found_with_its_sign():
    one, other, mos, group = scores(0, errors=(0.2, 0.8))
    result = significance.difference(one, other, mos, group, draws=300)
    assert result["difference"] == pytest.approx(
        correlation.srcc(one, mos) - correlation.srcc(other, mos)
    )
    assert result["p"] < 0.01 and result["p_z"] < 0.01 and result["z"] > 0
    low, high = result["interval"]
    assert 0 < low < result["difference"] < high
    back = significance.difference(other, one, mos, group, draws=300)
    assert back["difference"] == pytest.approx(-result["difference"]) and back["p"] == result["p"]
    json.dumps(result, allow_nan=False)


def test_the_same_score_twice_is_no_difference():
    one, _, mos, group = scores(0)
    result = significance.difference(one, one, mos, group, draws=50)
    assert result["difference"] == 0 and result["p"] == 1 and result["z"] is None


def test_errors_shared_by_references_need_the_bootstrap_over_references():
    """With as good as one error a reference, images taken as independent promise too much."""

    def width(result):
        return result["interval"][1] - result["interval"][0]

    ratios = []
    for seed in range(5):
        one, other, mos, group = scores(seed, groups=15, each=12, errors=(1.5, 1.5), shared=0.9)
        references = significance.difference(one, other, mos, group, draws=60)
        images = significance.difference(one, other, mos, np.arange(len(mos)), draws=60)
        ratios.append(width(references) / width(images))
    assert np.mean(ratios) > 1.3


def test_the_mean_of_several_runs_is_compared():
    one, other, mos, group = scores(0, errors=(0.3, 0.9))
    rng = np.random.default_rng(1)
    several = np.stack([one, one + 0.1 * rng.normal(size=one.shape)])
    result = significance.difference(several, other, mos, group, draws=100)
    mean = np.mean([correlation.srcc(s, mos) for s in several])
    assert result["difference"] == pytest.approx(mean - correlation.srcc(other, mos))
    assert result["z"] is None and result["p"] < 0.05


def test_meng_rosenthal_and_rubins_z_by_hand():
    """r = .63 and .34 with .49 between them, n = 15: mean square .25625, f = .34286."""
    z, p = significance._dependent(0.63, 0.34, 0.49, 15)
    h = (1 - 0.34286 * 0.25625) / (1 - 0.25625)
    hand = (0.74142 - 0.35409) * np.sqrt(12 / (2 * (1 - 0.49) * h))
    assert z == pytest.approx(hand, rel=1e-4) and p == pytest.approx(2 * stats.norm.sf(z))
    assert significance._dependent(0.5, 0.5, 1.0, 15) == (None, None)


def test_an_interval_covers_what_it_should():
    one, _, mos, group = scores(1)
    low, high = significance.interval(one, mos, group, draws=300)
    assert low < correlation.srcc(one, mos) < high
    pearson = significance.interval(one, mos, group, measure=correlation.plcc, draws=100)
    assert pearson[0] < correlation.plcc(one, mos) < pearson[1]
    assert significance.interval(one, mos, group * 0) is None
    assert significance.interval(one * 0, mos, group) is None


def test_errors_of_different_size_are_told_apart():
    one, other, mos, _ = scores(0, groups=100, errors=(0.3, 0.6))
    result = significance.residual_test(one, other, mos)
    assert result["f"] < 0.6 and result["p"] < 1e-6 and result["gaussian"] is True
    assert significance.residual_test(other, one, mos)["p"] == pytest.approx(result["p"])
    same = significance.residual_test(one, one, mos)
    assert same["f"] == 1 and same["p"] == 1


def test_signed_ranks_agree_with_scipy_and_say_when_there_are_too_few():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=10), rng.normal(size=10)
    assert significance.wilcoxon(a, b)["p"] == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert significance.wilcoxon(a + 9, b)["p"] == pytest.approx(2 / 2**10)
    few = significance.wilcoxon(a[:5], b[:5])
    assert few == {"p": None, "pairs": 5, "reason": "5 splits are fewer than 6"}
    assert significance.wilcoxon(a, a)["reason"] == "no split tells them apart"
    assert significance.wilcoxon([*a, np.nan], [*b, 1.0])["pairs"] == 10
    with pytest.raises(ValueError, match="one a split"):
        significance.wilcoxon(a, b[:3])


def test_holm_by_hand():
    adjusted = significance.holm([0.01, 0.04, None, 0.03])
    assert adjusted == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0] and significance.holm([]) == []


@pytest.mark.parametrize(
    ("one", "mos", "group", "why"),
    [
        ([1.0] * 9, range(9), range(9), "the first score has no SRCC"),
        ([1.0, 2.0], [1.0, 2.0], [0, 1], "the first score has no SRCC"),
        (range(9), range(9), [0] * 9, "fewer than 3 groups"),
    ],
)
def test_what_is_undefined_is_none_with_a_reason(one, mos, group, why):
    one, mos = np.array(one, float), np.array(mos, float)
    result = significance.difference(one, one + 1, mos, np.array(group))
    assert result["reason"] == why and result["p"] is None and result["difference"] is None
    json.dumps(significance.residual_test(one * 0, one, mos), allow_nan=False)
