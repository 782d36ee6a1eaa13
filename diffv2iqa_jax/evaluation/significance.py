"""Whether a difference between two methods is more than luck.

On the same images: a bootstrap that draws whole references for both methods at once, the test of
Meng, Rosenthal and Rubin for two correlations with one variable in common, and VQEG's F-test of
the errors after the fit. Over splits: Wilcoxon's signed ranks. For many pairs: Holm.
An undefined number is None with a reason, never NaN.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from diffv2iqa_jax.evaluation import correlation

LEAST_SPLITS = 6  # with fewer, no outcome of the signed ranks is below .05
NORMAL_KURTOSIS = (2.0, 4.0)  # VQEG: outside, the F-test's residuals are not nearly Gaussian


def resamples(group: ArrayLike, draws: int = 1000) -> Iterator[np.ndarray]:
    """Yields the rows of `draws` resamples of whole groups; always the same ones."""
    names, index = np.unique(np.asarray(group), return_inverse=True)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(0)
    for _ in range(draws):
        yield np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])


def interval(
    score: ArrayLike,
    mos: ArrayLike,
    group: ArrayLike,
    *,
    measure: Callable = correlation.srcc,
    draws: int = 1000,
) -> tuple[float, float] | None:
    """95 % percentile interval of a measure, by a bootstrap that draws whole groups.

    None where the measure is undefined, or there are fewer than 3 groups.
    """
    x, y = np.asarray(score, np.float64), np.asarray(mos, np.float64)
    too_few = len(np.unique(np.asarray(group))) < correlation.LEAST_FOR_CORRELATION
    if too_few or measure(x, y) is None:
        return None
    values = [measure(x[rows], y[rows]) for rows in resamples(group, draws)]
    values = [v for v in values if v is not None]
    return tuple(np.percentile(values, [2.5, 97.5]).tolist()) if values else None


def difference(
    one: ArrayLike, other: ArrayLike, mos: ArrayLike, group: ArrayLike, *, draws: int = 1000
) -> dict:
    """SRCC of one score minus that of another, on the same images.

    Args:
      one, other: (N,), the two scores; or (R, N), of R runs each, whose mean SRCC counts.
      mos: (N,), the opinions of each image.
      group: (N,), the reference of each image; all different where there is none.

    Returns:
      difference; interval (95 %) and p (two-sided) of the bootstrap over groups; z and p_z of
      Meng, Rosenthal and Rubin (1992), for one run each, which takes images as independent;
      reason (why the others are None, else None).
    """
    one_RN, other_RN = (np.atleast_2d(np.asarray(v, np.float64)) for v in (one, other))
    mos_N = np.asarray(mos, np.float64)
    srcc_one, srcc_other = _mean_srcc(one_RN, mos_N), _mean_srcc(other_RN, mos_N)
    undefined = dict.fromkeys(("difference", "interval", "p", "z", "p_z"))
    if srcc_one is None or srcc_other is None:
        which = "first" if srcc_one is None else "second"
        return undefined | {"reason": f"the {which} score has no SRCC"}
    if len(np.unique(np.asarray(group))) < correlation.LEAST_FOR_CORRELATION:
        return undefined | {"reason": f"fewer than {correlation.LEAST_FOR_CORRELATION} groups"}
    pairs = [
        (_mean_srcc(one_RN[:, rows], mos_N[rows]), _mean_srcc(other_RN[:, rows], mos_N[rows]))
        for rows in resamples(group, draws)
    ]
    drawn = np.array([p - q for p, q in pairs if p is not None and q is not None])
    if not len(drawn):
        return undefined | {"reason": "no resample has an SRCC"}
    # Twice the share of the rarer sign; one more in both counts, so that p is never exactly 0.
    rarer = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p = min(1.0, 2 * (rarer + 1) / (len(drawn) + 1))
    z = p_z = None
    if len(one_RN) == len(other_RN) == 1:
        between = correlation.srcc(one_RN[0], other_RN[0])
        z, p_z = _dependent(srcc_one, srcc_other, between, len(mos_N))
    return {
        "difference": srcc_one - srcc_other,
        "interval": np.percentile(drawn, [2.5, 97.5]).tolist(),
        "p": float(p),
        "z": z,
        "p_z": p_z,
        "reason": None,
    }


def _mean_srcc(scores_RN: np.ndarray, mos: np.ndarray) -> float | None:
    """Mean SRCC of R runs; None where one is undefined."""
    values = [correlation.srcc(score, mos) for score in scores_RN]
    return None if None in values else float(np.mean(values))


def _dependent(
    a: float, b: float, between: float | None, n: int
) -> tuple[float | None, float | None]:
    """z and p of Meng, Rosenthal & Rubin for two correlations, a and b, with the same opinions.

    Args:
      between: correlation of the two scores with each other.
      n: number of images.
    """
    if n <= 3 or between is None or between >= 1 - 1e-12 or max(abs(a), abs(b)) >= 1 - 1e-12:
        return None, None
    mean = (a**2 + b**2) / 2
    f = min((1 - between) / (2 * (1 - mean)), 1.0)
    h = (1 - f * mean) / (1 - mean)
    z = float((np.arctanh(a) - np.arctanh(b)) * np.sqrt((n - 3) / (2 * (1 - between) * h)))
    return z, float(2 * stats.norm.sf(abs(z)))


def residual_test(one: ArrayLike, other: ArrayLike, mos: ArrayLike) -> dict:
    """VQEG's F-test: whether the errors after each score's own fit differ in variance.

    Returns:
      f (variance of the first's errors over the second's), p (two-sided), gaussian (whether the
      kurtosis of both allows the test), reason (why f and p are None, else None).
    """
    y = np.asarray(mos, np.float64)
    fits = [correlation.logistic_fit(score, y) for score in (one, other)]
    if any(fit.kind == "none" for fit in fits):
        reason = next(fit.reason for fit in fits if fit.kind == "none")
        return {"f": None, "p": None, "gaussian": None, "reason": reason}
    errors = [fit(score) - y for fit, score in zip(fits, (one, other), strict=True)]
    variances = [float(np.var(e, ddof=1)) for e in errors]
    if min(variances) <= 0 or not np.isfinite(variances).all():
        return {"f": None, "p": None, "gaussian": None, "reason": "a score has no error left"}
    f = variances[0] / variances[1]
    tail = stats.f.sf(max(f, 1 / f), len(y) - 1, len(y) - 1)
    low, high = NORMAL_KURTOSIS
    gaussian = all(low <= stats.kurtosis(e, fisher=False) <= high for e in errors)
    return {"f": f, "p": float(min(1.0, 2 * tail)), "gaussian": bool(gaussian), "reason": None}


def wilcoxon(one: Sequence[float], other: Sequence[float]) -> dict:
    """Signed ranks of paired values, one pair a split: {p (two-sided), pairs, reason}."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pairs of values are needed, one a split; got {a.shape} and {b.shape}")
    finite = np.isfinite(a) & np.isfinite(b)
    differences = (a - b)[finite]
    count = len(differences)
    if count < LEAST_SPLITS:
        return {
            "p": None,
            "pairs": count,
            "reason": f"{count} splits are fewer than {LEAST_SPLITS}",
        }
    if not np.any(differences):
        return {"p": None, "pairs": count, "reason": "no split tells them apart"}
    # Values that agree to rounding are ties, not evidence.
    p = stats.wilcoxon(np.round(differences, 12), zero_method="zsplit", method="auto").pvalue
    return {"p": float(p), "pairs": count, "reason": None}


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979), in the same order; None stays None."""
    defined = [i for i, value in enumerate(p) if value is not None]
    smallest_first = sorted(defined, key=lambda i: p[i])
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, i in enumerate(smallest_first):
        largest = max(largest, min(1.0, (len(smallest_first) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
