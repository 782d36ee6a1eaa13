"""Whether a difference between two methods is more than luck.

On the same images: a bootstrap that draws whole references for both at once, the test of Meng,
Rosenthal and Rubin for two correlations with one variable in common, and VQEG's F-test of the
errors left after the fit. Over splits: Wilcoxon's signed ranks. For many pairs: Holm.
What is not defined is None with a reason, never NaN.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from diffv2iqa_jax.evaluation import correlation

LEAST_SPLITS = 6  # with fewer, no outcome of the signed ranks is below .05
NORMAL_KURTOSIS = (2.0, 4.0)  # VQEG: outside, the F-test's residuals are not nearly Gaussian


def resamples(group, draws: int = 1000):
    """Rows of `draws` resamples of whole groups; always the same ones."""
    names, index = np.unique(np.asarray(group), return_inverse=True)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(0)
    for _ in range(draws):
        yield np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])


def interval(
    score, mos, group, *, measure: Callable = correlation.srcc, draws: int = 1000
) -> tuple[float, float] | None:
    """95 % percentile interval of a measure by a bootstrap over groups, see `metrics`.

    None where the measure is undefined, or there are fewer than 3 groups.
    """
    x, y = np.asarray(score, np.float64), np.asarray(mos, np.float64)
    few = len(np.unique(np.asarray(group))) < correlation.LEAST_FOR_CORRELATION
    if few or measure(x, y) is None:
        return None
    values = [measure(x[rows], y[rows]) for rows in resamples(group, draws)]
    values = [v for v in values if v is not None]
    return tuple(np.percentile(values, [2.5, 97.5]).tolist()) if values else None


def difference(one, other, mos, group, *, draws: int = 1000) -> dict:
    """SRCC of one score less that of another, on the same images.

    Args:
      one, other: (N,), the two scores; or (R, N), of R runs each, whose mean SRCC counts.
      mos: (N,), the opinions of each image.
      group: (N,), the reference of each image; all different where there is none.

    Returns:
      difference; interval (95 %) and p (two-sided) of the bootstrap over groups; z and p_z of
      Meng, Rosenthal and Rubin (1992), for one run each, which takes images as independent;
      reason (why all that is None, else None).
    """
    x, y = (np.atleast_2d(np.asarray(v, np.float64)) for v in (one, other))
    m = np.asarray(mos, np.float64)
    a, b = _mean_srcc(x, m), _mean_srcc(y, m)
    none = dict.fromkeys(("difference", "interval", "p", "z", "p_z"))
    if a is None or b is None:
        which = "first" if a is None else "second"
        return none | {"reason": f"the {which} score has no SRCC"}
    if len(np.unique(np.asarray(group))) < correlation.LEAST_FOR_CORRELATION:
        return none | {"reason": f"fewer than {correlation.LEAST_FOR_CORRELATION} groups"}
    pairs = [
        (_mean_srcc(x[:, r], m[r]), _mean_srcc(y[:, r], m[r])) for r in resamples(group, draws)
    ]
    drawn = np.array([p - q for p, q in pairs if p is not None and q is not None])
    if not len(drawn):
        return none | {"reason": "no resample has an SRCC"}
    # As often on the other side of zero as the less frequent sign; never exactly 0.
    side = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p = min(1.0, 2 * (side + 1) / (len(drawn) + 1))
    z = p_z = None
    if len(x) == len(y) == 1:
        z, p_z = _dependent(a, b, correlation.srcc(x[0], y[0]), len(m))
    low_high = np.percentile(drawn, [2.5, 97.5]).tolist()
    found = {"difference": a - b, "interval": low_high, "p": float(p), "z": z, "p_z": p_z}
    return found | {"reason": None}


def _mean_srcc(scores_RN, mos) -> float | None:
    values = [correlation.srcc(score, mos) for score in scores_RN]
    return None if None in values else float(np.mean(values))


def _dependent(
    a: float, b: float, between: float | None, n: int
) -> tuple[float | None, float | None]:
    """Meng, Rosenthal & Rubin's z of two correlations that share the opinions."""
    if n <= 3 or between is None or between >= 1 - 1e-12 or max(abs(a), abs(b)) >= 1 - 1e-12:
        return None, None
    mean = (a**2 + b**2) / 2
    f = min((1 - between) / (2 * (1 - mean)), 1.0)
    h = (1 - f * mean) / (1 - mean)
    z = float((np.arctanh(a) - np.arctanh(b)) * np.sqrt((n - 3) / (2 * (1 - between) * h)))
    return z, float(2 * stats.norm.sf(abs(z)))


def residual_test(one, other, mos) -> dict:
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
    spread = [float(np.var(e, ddof=1)) for e in errors]
    if min(spread) <= 0 or not np.isfinite(spread).all():
        return {"f": None, "p": None, "gaussian": None, "reason": "a score has no error left"}
    f = spread[0] / spread[1]
    tail = stats.f.sf(max(f, 1 / f), len(y) - 1, len(y) - 1)
    low, high = NORMAL_KURTOSIS
    gaussian = all(low <= stats.kurtosis(e, fisher=False) <= high for e in errors)
    return {"f": f, "p": float(min(1.0, 2 * tail)), "gaussian": bool(gaussian), "reason": None}


def wilcoxon(one: Sequence[float], other: Sequence[float]) -> dict:
    """Signed ranks of paired values, one pair a split: {p (two-sided), pairs, reason}."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"pairs of values are needed, one a split; got {a.shape} and {b.shape}")
    kept = np.isfinite(a) & np.isfinite(b)
    off = (a - b)[kept]
    if len(off) < LEAST_SPLITS:
        reason = f"{len(off)} splits are fewer than {LEAST_SPLITS}"
    elif not np.any(off):
        reason = "no split tells them apart"
    else:
        # Values that agree to rounding are ties, not evidence.
        p = stats.wilcoxon(np.round(off, 12), zero_method="zsplit", method="auto").pvalue
        return {"p": float(p), "pairs": len(off), "reason": None}
    return {"p": None, "pairs": len(off), "reason": reason}


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979), in the same order; None stays None."""
    known = [i for i, value in enumerate(p) if value is not None]
    order = sorted(known, key=lambda i: p[i])
    out: list[float | None] = [None] * len(p)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p[i]))
        out[i] = largest
    return out
