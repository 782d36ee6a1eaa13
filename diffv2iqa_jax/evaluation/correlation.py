"""How well predicted scores agree with people's opinions.

Correlations are not means over batches, so everything here takes whole columns: `score`
and `mos`, both (N,), on any real scale, on the host. An undefined number is None, never NaN,
and comes with a reason; nothing here warns.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

# Fewest images for a correlation, for a fit, and for one of five parameters, which follows
# noise more readily than one of four.
LEAST_FOR_CORRELATION = 3
LEAST_FOR_FIT = 8
LEAST_FOR_FIVE = 12
ROUNDING = 1e-12  # spread below this, relative to the largest value, is rounding noise
SLOPES = (0.05, 20.0)  # of the sigmoid, per standard deviation: nearly a line, nearly a step
NOT_CONVERGED = "the search for the logistic stopped before it converged"


class Fit(NamedTuple):
    """A monotone curve from scores to the scale of the opinions.

    Attributes:
      kind: "logistic4", "logistic5", "linear" or "none" (scores stay as they are).
      parameters: logistic4: (b1, b2, b3, b4) of (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2;
        logistic5: (b1, .., b5) of b1 * (1 / 2 - 1 / (1 + exp(b2 * (x - b3)))) + b4 * x + b5;
        linear: (slope, x0, y0) of slope * (x - x0) + y0; none: ().
      monotone: whether the curve never turns within the range of the fitted scores.
      converged: whether the search ended by itself.
      reason: why this is no converged logistic of the requested kind; None if it is one.
    """

    kind: str
    parameters: tuple[float, ...]
    monotone: bool
    converged: bool
    reason: str | None

    def __call__(self, score: ArrayLike) -> np.ndarray:
        """Scores of any shape -> the scale of the opinions, float64."""
        x = np.asarray(score, np.float64)
        if self.kind == "logistic4":
            b1, b2, b3, b4 = self.parameters
            with np.errstate(over="ignore"):  # far outside, the sigmoid is exactly 0 or 1
                return (b1 - b2) * special.expit((x - b3) / b4) + b2
        if self.kind == "logistic5":
            b1, b2, b3, b4, b5 = self.parameters
            with np.errstate(over="ignore"):
                return b1 * (special.expit(b2 * (x - b3)) - 0.5) + b4 * x + b5
        if self.kind == "linear":
            slope, x0, y0 = self.parameters
            return slope * (x - x0) + y0
        return x.copy()

    @property
    def increasing(self) -> bool:
        """Whether a higher score means higher quality on the fitted images."""
        if self.kind == "logistic4":
            return (self.parameters[0] > self.parameters[1]) == (self.parameters[3] > 0)
        if self.kind == "logistic5":  # the slope at the centre; the curve may turn elsewhere
            b1, b2, _, b4, _ = self.parameters
            return b1 * b2 / 4 + b4 > 0
        return self.kind == "none" or self.parameters[0] > 0


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
    search is over slope and centre alone, on standardised columns: first a grid, then
    Nelder-Mead, within bounds. Where a curve is not defined, the next simpler one takes its
    place (five parameters, four, a line, none), and the fit says why.

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
        return _four(standard_x, standard_y)
    five = _five(standard_x, standard_y)
    if five is not None:
        return five
    four = _four(standard_x, standard_y)
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


Standard = tuple[np.ndarray, float, float]


def _standard(x: np.ndarray) -> Standard:
    """Returns x with mean 0 and deviation 1, the mean and the deviation."""
    # Scaled to [-1, 1] first, so that no square overflows.
    largest = np.abs(x).max()
    z = x / largest
    mean, std = z.mean(), z.std()
    return (z - mean) / std, float(mean * largest), float(std * largest)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.clip(np.mean(_standard(x)[0] * _standard(y)[0]), -1.0, 1.0))


def _centred_sigmoid(slope: np.ndarray, centre: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The sigmoid of u, less its mean; a column of slopes and centres gives a row for each."""
    sigmoid = special.expit(slope * (u - centre))
    return sigmoid - sigmoid.mean(axis=-1, keepdims=True)


def _gain4(slope: np.ndarray, centre: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """|correlation| of v with the best logistic of this slope and centre."""
    sigmoid = _centred_sigmoid(slope, centre, u)
    norm = np.sqrt(np.mean(sigmoid**2, axis=-1))
    return np.abs(sigmoid @ v) / len(v) / np.where(norm > 1e-9, norm, np.inf)


def _gain5(slope: np.ndarray, centre: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """As `_gain4`, with a line added to the logistic."""
    sigmoid = _centred_sigmoid(slope, centre, u)
    beside_line = sigmoid - (sigmoid @ u)[..., None] / len(u) * u
    norm = np.sqrt(np.mean(beside_line**2, axis=-1))
    rest = (beside_line @ v) / len(v) / np.where(norm > 1e-6, norm, np.inf)
    return np.sqrt(np.mean(u * v) ** 2 + rest**2)


def _search(
    gain: Callable, u: np.ndarray, v: np.ndarray, *also: tuple[float, float]
) -> tuple[float, float, float, bool]:
    """Searches the (slope, centre) of the largest gain.

    Args:
      gain: `_gain4` or `_gain5`.
      also: further (slope, centre) to start from, beside the grid.

    Returns:
      (slope, centre, gain, converged), never worse than the best start.
    """
    low, high = np.log(SLOPES)
    centres = np.r_[u.min() - 1, np.quantile(u, np.linspace(0.05, 0.95, 7)), u.max() + 1]
    slopes = np.linspace(low, high, 11)
    starts = np.stack(np.meshgrid(slopes, centres, indexing="ij"), -1).reshape(-1, 2)
    starts = np.concatenate([starts, *([[np.log(slope), centre]] for slope, centre in also)])
    gains = np.concatenate(
        [gain(np.exp(p[:, :1]), p[:, 1:], u, v) for p in np.array_split(starts, 9)]
    )
    start = starts[np.argmax(gains)]

    def cost(point: np.ndarray) -> float:
        log_slope, centre = point
        return -float(gain(np.exp(log_slope), centre, u, v))

    bounds = [(low, high), (u.min() - 2, u.max() + 2)]
    # The default simplex is relative to the start and would be flat where a centre is 0.
    step = np.where(start + 0.3 < np.transpose(bounds)[1], 0.3, -0.3)
    corners = start + step * np.array([[0, 0], [1, 0], [0, 1]])
    options = {"xatol": 1e-6, "fatol": 1e-12, "maxiter": 1000, "initial_simplex": corners}
    result = optimize.minimize(cost, start, method="Nelder-Mead", bounds=bounds, options=options)
    best = result.x if result.fun <= cost(start) else start
    return float(np.exp(best[0])), float(best[1]), -cost(best), bool(result.success)


def _four(x: Standard, y: Standard) -> Fit:
    """Fits four parameters, or a line, or nothing."""
    (u, x_mean, x_std), (v, y_mean, y_std) = x, y
    line = float(np.mean(u * v))
    slope, centre, gain, converged = _search(_gain4, u, v)
    if gain <= abs(line):
        return _line(line, x[1:], y[1:], "a line fits at least as well as a logistic")
    sigmoid = special.expit(slope * (u - centre))
    centred = sigmoid - sigmoid.mean()
    rise = np.mean(centred * v) / np.mean(centred**2)
    low = -rise * sigmoid.mean()
    with np.errstate(over="ignore", invalid="ignore"):
        b2 = y_mean + y_std * low
        b1 = y_mean + y_std * (low + rise)
        b3, b4 = x_mean + x_std * centre, x_std / slope
    parameters = tuple(float(b) for b in (b1, b2, b3, b4))
    if not (np.isfinite(parameters).all() and b4 > 0):
        return _line(line, x[1:], y[1:], "the logistic leaves the range of float64")
    return Fit("logistic4", parameters, True, converged, None if converged else NOT_CONVERGED)


def _five(x: Standard, y: Standard) -> Fit | None:
    """Fits five parameters; None where they are not defined."""
    (u, x_mean, x_std), (v, y_mean, y_std) = x, y
    slope, centre, gain, converged = _search(_gain5, u, v, _search(_gain4, u, v)[:2])
    if len(u) < LEAST_FOR_FIVE or gain**2 - np.mean(u * v) ** 2 < ROUNDING:
        return None
    half = special.expit(slope * (u - centre)) - 0.5
    design = np.stack([half, u, np.ones_like(u)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(design, v, rcond=None)
    with np.errstate(all="ignore"):
        b1, b2, b3 = y_std * a, slope / x_std, x_mean + x_std * centre
        b4 = y_std * b / x_std
        b5 = y_mean + y_std * c - b4 * x_mean
    parameters = tuple(float(b) for b in (b1, b2, b3, b4, b5))
    if not (np.isfinite(parameters).all() and b2 > 0):
        return None
    # The sigmoid is steepest nearest to its centre, so the slope is extreme there or at an end.
    extremes = np.array([u.min(), np.clip(centre, u.min(), u.max()), u.max()])
    sigmoid = special.expit(slope * (extremes - centre))
    rises = a * slope * sigmoid * (1 - sigmoid) + b
    monotone = bool(np.all(rises >= 0) or np.all(rises <= 0))
    return Fit("logistic5", parameters, monotone, converged, None if converged else NOT_CONVERGED)


def _line(
    correlation: float, x_scale: tuple[float, float], y_scale: tuple[float, float], reason: str
) -> Fit:
    """The line of this correlation, or no fit; a scale is (mean, deviation) of a column."""
    (x_mean, x_std), (y_mean, y_std) = x_scale, y_scale
    with np.errstate(all="ignore"):
        slope = float(np.float64(correlation) * y_std / x_std)
    if not np.isfinite(slope) or abs(correlation) <= ROUNDING or slope == 0:
        return Fit("none", (), False, False, f"{reason}, and there is no line either")
    return Fit("linear", (slope, x_mean, y_mean), True, True, reason)
