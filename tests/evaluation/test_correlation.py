import json

import numpy as np
import pytest
from scipy import optimize, special, stats

from diffv2iqa_jax.evaluation import correlation, logistic

MEASURES = [correlation.srcc, correlation.krcc, correlation.plcc, correlation.rmse]


def random_case(seed):
    """Scores of a random shape, scale, offset, sign and noise, with ties now and then."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rng.integers(8, 200))
    y = 1 / (1 + np.exp(-rng.uniform(0.2, 8) * (x - rng.normal()))) + rng.exponential(0.2) * (
        rng.normal(size=x.shape)
    )
    if seed % 5 == 0:
        x = x.round(1)
    sign = -1 if seed % 7 == 0 else 1
    scale, offset = 10.0 ** rng.uniform(-9, 9), rng.normal() * 10.0 ** rng.uniform(-3, 3)
    return sign * scale * (x + offset), 10.0 ** rng.uniform(-6, 6) * y


@pytest.mark.parametrize("seed", range(10))
def test_correlations_are_those_of_scipy(seed):
    x, y = random_case(seed)
    assert correlation.srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert correlation.krcc(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    assert correlation.plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)


def test_hand_made_values():
    assert correlation.srcc([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation.krcc([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert correlation.krcc([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / np.sqrt(6))  # tau-b: one tie
    assert correlation.plcc([0, 1, 2], [5, 3, 1]) == pytest.approx(-1)
    assert correlation.rmse([0, 0, 0], [1, 1, 2]) == pytest.approx(np.sqrt(2))
    assert correlation.rmse([1e200, 0, 0], [0, 0, 0]) == pytest.approx(1e200 / np.sqrt(3))


@pytest.mark.parametrize(
    ("score", "mos", "why"),
    [
        ([], [], "0 images are fewer than 3"),
        ([1, 2], [1, 2], "2 images are fewer than 3"),
        ([0.7] * 9, np.arange(9), "score is constant"),
        (0.7 + 1e-15 * np.arange(9), np.arange(9), "score is constant"),
        (np.arange(9), [0.5] * 9, "mos is constant"),
        ([np.nan, *range(8)], np.arange(9), "score of 1 of 9 images is not finite"),
        (np.arange(9), [np.inf, -np.inf, *range(7)], "mos of 2 of 9 images is not finite"),
    ],
)
def test_what_is_undefined_is_none_with_a_reason(score, mos, why):
    out = correlation.agreement(score, mos)
    assert out["reason"] == why
    assert [out[k] for k in ("srcc", "krcc", "plcc", "plcc_fit", "rmse_fit")] == [None] * 5
    assert out["fit"]["kind"] == "none" and out["fit"]["reason"]
    json.dumps(out, allow_nan=False)


def test_a_constant_score_has_an_error_yet_no_correlation():
    assert correlation.rmse([0.5] * 4, [0.0, 1.0, 0.0, 1.0]) == pytest.approx(0.5)
    assert correlation.rmse([1e308] * 3, [-1e308] * 3) is None


@pytest.mark.parametrize("measure", [*MEASURES, correlation.logistic_fit], ids=lambda f: f.__name__)
def test_columns_of_different_length_are_refused(measure):
    with pytest.raises(ValueError, match=r"two columns \(N,\); got \(3,\) and \(4,\)"):
        measure([1, 2, 3], [1, 2, 3, 4])


def test_the_fit_never_fails_and_never_loses_to_a_line():
    for seed in range(0, 1000, 3):
        x, y = random_case(seed)
        fit = correlation.logistic_fit(x, y)
        assert fit.kind in ("logistic4", "linear") and fit.monotone and fit.converged, seed
        assert correlation.plcc(fit(x), y) >= abs(correlation.plcc(x, y)) - 1e-9, seed
        assert correlation.rmse(fit(x), y) <= y.std() * (1 + 1e-9), seed
        step = np.diff(fit(np.sort(x))) * (1 if fit.increasing else -1)
        assert np.all(step >= -1e-9 * np.ptp(y)), seed


# (cases, parameters) -> some seeds on which one start was not enough, and others.
SEEDS = {
    ("rated", 4): (0, 1),
    ("rated", 5): (89, 99),
    ("unrelated", 4): (2, 6),
    ("unrelated", 5): (5, 18, 28),
}


def rated(seed):
    """Scores as a model's, opinions as people's: few or many images, ties, little or much noise."""
    g = np.random.default_rng(seed)
    quality = g.beta(*g.uniform(0.7, 4, 2), size=int(g.integers(20, 800)))
    mos = special.expit(g.uniform(2, 9) * (quality - g.uniform(0.2, 0.8)))
    mos += g.normal(size=len(mos)) * g.uniform(0.03, 0.25) * mos.std()
    score = quality + g.normal(size=len(mos)) * g.uniform(0.05, 0.6) * quality.std()
    return (score.round(1) if g.random() < 0.2 else score), mos


def unrelated(seed):
    """Scores that say next to nothing; their curves have many optima."""
    g = np.random.default_rng(seed)
    score = g.standard_t(2 if g.random() < 0.5 else 50, size=int(g.integers(12, 200)))
    return score, g.uniform(0, 0.5) * np.tanh(score) + g.normal(size=len(score))


def best_of_many(x, y, parameters):
    """The largest correlation of a curve within the bounds: optima of a fine grid, polished."""
    u, v = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()

    def gain(log_slope, centre):
        rest = special.expit(np.exp(log_slope) * (u - centre))
        rest = rest - rest.mean(axis=-1, keepdims=True)
        line = 0.0
        if parameters == 5:
            rest = rest - (rest @ u)[..., None] / len(u) * u
            line = np.mean(u * v) ** 2
        norm = np.sqrt(np.mean(rest**2, axis=-1))
        return np.sqrt(line + (rest @ v / len(v) / np.where(norm > 1e-6, norm, np.inf)) ** 2)

    low, high = np.log(logistic.SLOPES)
    slopes = np.linspace(low, high, 30)
    at = np.unique(np.r_[u, np.linspace(u.min() - 2, u.max() + 2, 100)])
    at = at[np.linspace(0, len(at) - 1, min(len(at), 400)).astype(int)]
    gains = np.stack([gain(slope, at[:, None]) for slope in slopes])
    near = np.pad(gains, 1, constant_values=-1)
    peak = (gains >= near[:-2, 1:-1]) & (gains >= near[2:, 1:-1])
    peak &= (gains >= near[1:-1, :-2]) & (gains >= near[1:-1, 2:])
    found, bounds = [np.abs(np.mean(u * v))], [(low, high), (u.min() - 2, u.max() + 2)]
    for i, j in sorted(zip(*np.nonzero(peak), strict=True), key=lambda ij: -gains[ij])[:12]:
        start = np.array([slopes[i], at[j]])
        step = np.where(start + 0.1 < np.transpose(bounds)[1], 0.1, -0.1)
        simplex = start + step * np.array([[0, 0], [1, 0], [0, 1]])
        options = {"xatol": 1e-6, "fatol": 1e-12, "initial_simplex": simplex}
        polish = {"method": "Nelder-Mead", "bounds": bounds, "options": options}
        found.append(-optimize.minimize(lambda p: -float(gain(*p)), start, **polish).fun)
    return max(found)


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("make", [rated, unrelated], ids=lambda f: f.__name__)
def test_no_other_start_finds_a_better_curve(make, parameters):
    """Nor on 120 rated and 60 unrelated cases of each kind, when the search was chosen."""
    for seed in SEEDS[make.__name__, parameters]:
        x, y = make(seed)
        fit = correlation.logistic_fit(x, y, parameters)
        got = correlation.plcc(fit(x), y)
        assert got >= best_of_many(x, y, parameters) - 1e-6, seed
        assert got >= abs(correlation.plcc(x, y)) - 1e-9, seed


def test_five_parameters_never_fail_and_never_lose_to_four():
    turning = 0
    for seed in range(0, 1000, 10):
        x, y = random_case(seed)
        four, five = correlation.logistic_fit(x, y), correlation.logistic_fit(x, y, 5)
        assert five.kind != "none" and five.converged, seed
        assert correlation.rmse(five(x), y) <= correlation.rmse(four(x), y) * (1 + 1e-6), seed
        rises = np.diff(five(np.linspace(x.min(), x.max(), 400)))
        tiny = 1e-9 * np.ptp(y)
        assert five.monotone == bool(np.all(rises >= -tiny) or np.all(rises <= tiny)), seed
        turning += not five.monotone
        if len(x) < logistic.LEAST_FOR_FIVE:
            assert five.kind == four.kind and "five parameters" in five.reason
    assert turning > 10  # which is why four are the default


def test_five_parameters_find_their_curve():
    x = np.linspace(-3, 5, 80)
    y = correlation.Fit("logistic5", (6.0, 2.0, 1.0, 1.5, -4.0), True, True, None)(x)
    fit = correlation.logistic_fit(100 * x, y, 5)
    assert fit.kind == "logistic5" and fit.increasing and fit.monotone and fit.reason is None
    np.testing.assert_allclose(fit.parameters, (6, 0.02, 100, 0.015, -4), rtol=1e-3)
    assert correlation.agreement(x, y, 5)["fit"]["kind"] == "logistic5"
    with pytest.raises(ValueError, match="known are 4 and 5"):
        correlation.logistic_fit(x, y, 3)


def test_the_fit_finds_the_curve_that_made_the_data():
    x = np.linspace(-3, 5, 60)
    y = correlation.Fit("logistic4", (80.0, 20.0, 1.5, 0.7), True, True, None)(x)
    fit = correlation.logistic_fit(1e4 * x, y)
    assert fit.kind == "logistic4" and fit.increasing and fit.reason is None
    np.testing.assert_allclose(fit.parameters, (80, 20, 1.5e4, 0.7e4), rtol=1e-3)
    assert not correlation.logistic_fit(-x, y).increasing


def test_what_is_no_logistic_becomes_a_line_then_nothing():
    x = np.arange(9.0)
    line = correlation.logistic_fit(x, 3 * x - 2)
    assert line.kind == "linear" and "line fits" in line.reason
    np.testing.assert_allclose(line([0.0, 10.0]), [-2, 28], atol=1e-9)
    nothing = correlation.logistic_fit(x[:7], x[:7])
    assert nothing.kind == "none" and nothing.reason == "7 images are fewer than 8"
    np.testing.assert_array_equal(nothing(x), x)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e150, 1e300])
def test_extreme_scales_neither_overflow_nor_warn(scale):
    x, y = random_case(3)
    out = correlation.agreement(scale * (x / np.abs(x).max()), y)
    assert out["srcc"] == pytest.approx(correlation.srcc(x, y))
    assert out["plcc_fit"] == pytest.approx(correlation.agreement(x, y)["plcc_fit"], abs=1e-6)
    assert np.isfinite(correlation.logistic_fit(x, y)([-1e308, 1e308])).all()
    json.dumps(out, allow_nan=False)


def test_a_summary_covers_every_score_and_every_type():
    rng = np.random.default_rng(0)
    mos = rng.uniform(size=40)
    table = {
        "mos": mos,
        "score": mos**2,
        "score_guidance": -mos,
        "type": np.array(["blur", "jpeg"] * 19 + ["", "rare"]),
        "id": np.arange(40),
    }
    out = correlation.summary(table)
    assert out["images"] == 40 and list(out["scores"]) == ["score", "score_guidance"]
    assert out["scores"]["score"]["srcc"] == pytest.approx(1)
    assert out["scores"]["score_guidance"]["fit"]["increasing"] is False
    assert sorted(out["per_type"]) == ["blur", "jpeg", "rare"]
    assert out["per_type"]["blur"]["score_guidance"]["krcc"] == pytest.approx(-1)
    assert out["per_type"]["rare"]["score"] == {
        "images": 1, "srcc": None, "krcc": None, "plcc": None, "rmse": None,
    }  # fmt: skip
    json.dumps(out, allow_nan=False)
    assert correlation.summary(table | {"type": np.array([""] * 40)})["per_type"] == {}
    native = correlation.summary(table, span=100.0)["scores"]["score"]
    assert native["rmse_native"] == pytest.approx(100 * native["rmse_fit"])


def test_the_interval_is_wider_when_images_share_references():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 20)
    mos = rng.uniform(size=240)
    score = mos + rng.normal(size=12)[group]  # each reference has an error of its own
    one = correlation.srcc_interval(score, mos, np.arange(240))
    shared = correlation.srcc_interval(score, mos, group)
    assert one[0] < correlation.srcc(score, mos) < one[1]
    assert shared[1] - shared[0] > one[1] - one[0]
    assert correlation.srcc_interval(score, mos, group) == shared
    assert correlation.srcc_interval(score, mos, np.zeros(240)) is None
