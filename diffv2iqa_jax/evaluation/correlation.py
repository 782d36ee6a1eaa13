"""How well predicted scores agree with people's opinions.

Correlations are not means over batches, so everything here takes whole columns: `score`
and `mos`, both (N,), on any real scale, on the host. An undefined number is None, never NaN,
and comes with a reason; nothing here warns.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from diffv2iqa_jax.evaluation import logistic
from diffv2iqa_jax.evaluation.logistic import ROUNDING, Fit, Standard

# Fewest images for a correlation, and for a fit.
LEAST_FOR_CORRELATION = 3
LEAST_FOR_FIT = 8


def srcc(score: ArrayLike, mos: ArrayLike) -> float | None:
    """Spearman's rank correlation, [-1, 1]; None for n < 3, constant or non-finite input."""
    x, y = _columns(score, mos)
    if _undefined(x, y):
        return None
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def krcc(score: ArrayLike, mos: ArrayLike) -> float | None:
    """Kendall's tau-b, [-1, 1]; None for n < 3, constant or non-finite input."""
    x, y = _columns(score, mos)
    return None if _undefined(x, y) else float(stats.kendalltau(x, y).statistic)


def plcc(score: ArrayLike, mos: ArrayLike) -> float | None:
    """Pearson's correlation, no fit, [-1, 1]; None for n < 3, constant or non-finite input."""
    x, y = _columns(score, mos)
    return None if _undefined(x, y) else _pearson(x, y)


def rmse(score: ArrayLike, mos: ArrayLike) -> float | None:
    """Root mean square error, no fit, in the units of `mos`; also of a constant score.

    None for n < 3, non-finite input, or an error beyond float64.
    """
    x, y = _columns(score, mos)
    if len(x) < LEAST_FOR_CORRELATION or not np.isfinite([x, y]).all():
        return None
    with np.errstate(over="ignore"):
        error = np.abs(x - y)
    largest = error.max()
    if largest == 0 or np.isinf(largest):
        return 0.0 if largest == 0 else None
    return float(largest * np.sqrt(np.mean((error / largest) ** 2)))


def logistic_fit(score: ArrayLike, mos: ArrayLike, parameters: int = 4) -> Fit:
    """Fits a logistic curve from scores to opinions, by variable projection.

    Once slope and centre are known, the other parameters follow by linear least squares. So the
    search is over slope and centre alone, on standardised columns: a grid, a climb from its
    best points, then Nelder-Mead from the best of these, within bounds. Where a curve is not
    defined, the next simpler one takes its place (five parameters, four, a line, none), and the
    fit says why.

    Args:
      parameters: 4 (VQEG), or 5 (Sheikh et al. 2006: a logistic plus a line, which may turn).

    Raises:
      ValueError: another number of parameters.
    """
    if parameters not in (4, 5):
        raise ValueError(f"a logistic of {parameters} parameters: known are 4 and 5")
    x, y = _columns(score, mos)
    reason = _undefined(x, y, LEAST_FOR_FIT)
    if reason:
        return Fit("none", (), False, False, reason)
    standard_x, standard_y = _standard(x), _standard(y)
    if parameters == 4:
        return logistic.four(standard_x, standard_y)
    five = logistic.five(standard_x, standard_y)
    if five is not None:
        return five
    four = logistic.four(standard_x, standard_y)
    why = "the logistic of five parameters is not defined here"
    return four._replace(reason=f"{why}; {four.reason}" if four.reason else why)


def agreement(score: ArrayLike, mos: ArrayLike, parameters: int = 4) -> dict:
    """Every measure of one score's agreement with the opinions, as JSON values, never NaN.

    Args:
      parameters: of the fitted curve, see `logistic_fit`.

    Returns:
      images, srcc, krcc, plcc, rmse (raw), plcc_fit, rmse_fit (after `logistic_fit`), fit
      (its fields and `increasing`), reason (why the correlations are None, else None).
    """
    x, y = _columns(score, mos)
    fit = logistic_fit(x, y, parameters)
    fitted = fit.kind != "none"
    return {
        "images": len(x),
        "srcc": srcc(x, y),
        "krcc": krcc(x, y),
        "plcc": plcc(x, y),
        "rmse": rmse(x, y),
        "plcc_fit": plcc(fit(x), y) if fitted else None,
        "rmse_fit": rmse(fit(x), y) if fitted else None,
        "fit": fit._asdict()
        | {"parameters": list(fit.parameters), "increasing": fit.increasing if fitted else None},
        "reason": _undefined(x, y),
    }


def summary(table: dict[str, np.ndarray], *, span: float = 1.0) -> dict:
    """Agreement of every score in a table of predictions, over all images and per type.

    Args:
      table: columns (N,): mos, type (str; "" where the data set has none), and one or more
        whose name starts with "score".
      span: length of the data set's own scale: quality 0 to 1 covers so many of its units.

    Returns:
      {"images": N, "scores": {key: agreement}, "per_type": {type: {key: {images, srcc,
      krcc, plcc, rmse}}}}; per_type is empty where no image has a type. An agreement also
      has rmse_native, the error after the fit on the set's own scale.
    """
    keys = [key for key in table if key.startswith("score")]
    types = np.asarray(table["type"]).astype(str)
    per_type = {}
    for type in sorted(set(types.tolist()) - {""}):
        rows = types == type
        mos = np.asarray(table["mos"])[rows]
        per_type[type] = {key: _raw(np.asarray(table[key])[rows], mos) for key in keys}
    return {
        "images": len(table["mos"]),
        "scores": {key: _native(agreement(table[key], table["mos"]), span) for key in keys},
        "per_type": per_type,
    }


def srcc_interval(
    score: ArrayLike, mos: ArrayLike, group: ArrayLike, *, draws: int = 1000
) -> tuple[float, float] | None:
    """95 % percentile interval of SRCC, by a bootstrap that draws whole groups.

    Images of one reference are no independent evidence, so it draws references, not images.

    Args:
      group: (N,), the reference of each image; all different where there is none.
      draws: how many resamples; always the same ones.

    Returns:
      (low, high), or None where SRCC is undefined or there are fewer than 3 groups.
    """
    x, y = _columns(score, mos)
    names, index = np.unique(np.asarray(group), return_inverse=True)
    if _undefined(x, y) or len(names) < LEAST_FOR_CORRELATION:
        return None
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        values.append(srcc(x[rows], y[rows]))
    values = [v for v in values if v is not None]
    return tuple(np.percentile(values, [2.5, 97.5]).tolist()) if values else None


def _columns(score: ArrayLike, mos: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises ValueError for anything but two columns of one length."""
    x, y = np.asarray(score, np.float64), np.asarray(mos, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"score and mos must be two columns (N,); got {x.shape} and {y.shape}")
    return x, y


def _undefined(x: np.ndarray, y: np.ndarray, least: int = LEAST_FOR_CORRELATION) -> str | None:
    """Why these columns have no correlation; None where they have one."""
    if len(x) < least:
        return f"{len(x)} images are fewer than {least}"
    for name, value in (("score", x), ("mos", y)):
        not_finite = int(np.sum(~np.isfinite(value)))
        if not_finite:
            return f"{name} of {not_finite} of {len(value)} images is not finite"
        if _spread(value) <= ROUNDING:
            return f"{name} is constant"
    return None


def _native(agreement: dict, span: float) -> dict:
    """An agreement, with the error on the data set's own scale beside it."""
    error = agreement["rmse_fit"]
    return agreement | {"rmse_native": None if error is None else error * span}


def _raw(score: np.ndarray, mos: np.ndarray) -> dict:
    """The measures that need no fit."""
    measures = {"srcc": srcc, "krcc": krcc, "plcc": plcc, "rmse": rmse}
    return {"images": len(mos)} | {name: f(score, mos) for name, f in measures.items()}


def _spread(x: np.ndarray) -> float:
    """Standard deviation relative to the largest absolute value."""
    largest = np.abs(x).max()
    return float(np.std(x / largest)) if largest else 0.0


def _standard(x: np.ndarray) -> Standard:
    """Returns x with mean 0 and deviation 1, the mean and the deviation."""
    # Scaled to [-1, 1] first, so that no square overflows.
    largest = np.abs(x).max()
    z = x / largest
    mean, std = z.mean(), z.std()
    return (z - mean) / std, float(mean * largest), float(std * largest)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.clip(np.mean(_standard(x)[0] * _standard(y)[0]), -1.0, 1.0))
