"""Agreement of predicted scores with people, on one table of predictions.

Correlations are not means over batches, so everything here takes whole columns: `score`
and `mos`, both (N,), any real scale, on the host. A number that is not defined is None,
never NaN, and comes with a reason; nothing here warns.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

LEAST_FOR_CORRELATION = 3
LEAST_FOR_FIT = 8
LEAST_FOR_FIVE = 12  # of five parameters, which follow noise more readily than four
ROUNDING = 1e-12  # spread below this, relative to the largest value, is rounding noise
SLOPES = (0.05, 20.0)  # of the sigmoid, per standard deviation: nearly a line, nearly a step


class Fit(NamedTuple):
    """A monotone curve from scores to the scale of the opinions.

    Attributes:
      kind: "logistic4", "logistic5", "linear" or "none" (scores stay as they are).
      parameters: logistic4: (b1, b2, b3, b4) of (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2;
        logistic5: (b1, .., b5) of b1 * (1 / 2 - 1 / (1 + exp(b2 * (x - b3)))) + b4 * x + b5;
        linear: (slope, x0, y0) of slope * (x - x0) + y0; none: ().
      monotone: whether the curve never turns, on the images it was fitted to.
      converged: whether the search ended by itself.
      reason: why it is not a converged logistic of the kind asked for; None if it is.
    """

    kind: str
    parameters: tuple[float, ...]
    monotone: bool
    converged: bool
    reason: str | None

    def __call__(self, score) -> np.ndarray:
        """Scores of any shape, on the scale of the opinions; float64."""
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
        if self.kind == "logistic5":  # at the centre, for a curve may turn elsewhere
            b1, b2, _, b4, _ = self.parameters
            return b1 * b2 / 4 + b4 > 0
        return self.kind == "none" or self.parameters[0] > 0


def srcc(score, mos) -> float | None:
    """Spearman's rank correlation, [-1, 1]; None for n < 3, constant or non-finite input."""
    x, y = _columns(score, mos)
    if _undefined(x, y):
        return None
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def krcc(score, mos) -> float | None:
    """Kendall's tau-b, [-1, 1]; None for n < 3, constant or non-finite input."""
    x, y = _columns(score, mos)
    return None if _undefined(x, y) else float(stats.kendalltau(x, y).statistic)


def plcc(score, mos) -> float | None:
    """Pearson's correlation, no fit, [-1, 1]; None for n < 3, constant or non-finite input."""
    x, y = _columns(score, mos)
    return None if _undefined(x, y) else _pearson(x, y)


def rmse(score, mos) -> float | None:
    """Root mean square error, no fit, in the units of `mos`; a constant has one too.

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


def logistic_fit(score, mos, parameters: int = 4) -> Fit:
    """A logistic curve from scores to opinions, by variable projection.

    Given slope and centre, the other parameters are linear least squares; so only slope and
    centre are searched, on standardised columns: first a grid, then Nelder-Mead. The slope is
    bounded. What cannot be the curve asked for becomes a simpler one: five parameters, four, a
    line, nothing; the reason is kept.

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
    x_scale, y_scale = _standard(x), _standard(y)
    if parameters == 5:
        fit = _five(x_scale, y_scale)
        if fit is not None:
            return fit
    fit = _four(x_scale, y_scale)
    if parameters == 5:
        why = "the logistic of five parameters is not defined here"
        return fit._replace(reason=f"{why}; {fit.reason}" if fit.reason else why)
    return fit


def agreement(score, mos, parameters: int = 4) -> dict:
    """All agreement of one score with the opinions; only what JSON can hold, never NaN.

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
      span: how many units of the data set's own scale quality 0 to 1 is.

    Returns:
      {"images": N, "scores": {key: agreement}, "per_type": {type: {key: {images, srcc,
      krcc, plcc, rmse}}}}; per_type is empty where no image has a type. An agreement also
      has rmse_native, the error after the fit on the set's own scale.
    """
    keys = [key for key in table if key.startswith("score")]
    kinds = np.asarray(table["type"]).astype(str)
    per_type = {}
    for kind in sorted(set(kinds.tolist()) - {""}):
        rows = kinds == kind
        mos = np.asarray(table["mos"])[rows]
        per_type[kind] = {key: _raw(np.asarray(table[key])[rows], mos) for key in keys}
    return {
        "images": len(table["mos"]),
        "scores": {key: _native(agreement(table[key], table["mos"]), span) for key in keys},
        "per_type": per_type,
    }


def srcc_interval(score, mos, group, *, draws: int = 1000) -> tuple[float, float] | None:
    """95 % percentile interval of SRCC, by a bootstrap that draws whole groups.

    Images of one reference are no independent evidence, so references are drawn, not images.

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


def _columns(score, mos) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(score, np.float64), np.asarray(mos, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"score and mos must be two columns (N,); got {x.shape} and {y.shape}")
    return x, y


def _undefined(x, y, least: int = LEAST_FOR_CORRELATION) -> str | None:
    """Why no correlation exists; None where one does."""
    if len(x) < least:
        return f"{len(x)} images are fewer than {least}"
    for name, value in (("score", x), ("mos", y)):
        bad = int(np.sum(~np.isfinite(value)))
        if bad:
            return f"{name} of {bad} of {len(value)} images is not finite"
        if _spread(value) <= ROUNDING:
            return f"{name} is constant"
    return None


def _native(found: dict, span: float) -> dict:
    error = found["rmse_fit"]
    return found | {"rmse_native": None if error is None else error * span}


def _raw(score, mos) -> dict:
    measures = {"srcc": srcc, "krcc": krcc, "plcc": plcc, "rmse": rmse}
    return {"images": len(mos)} | {name: f(score, mos) for name, f in measures.items()}


def _spread(x) -> float:
    """Standard deviation relative to the largest absolute value."""
    largest = np.abs(x).max()
    return float(np.std(x / largest)) if largest else 0.0


def _standard(x) -> tuple[np.ndarray, float, float]:
    """x with mean 0 and deviation 1, then both; scaled first, so that no square overflows."""
    largest = np.abs(x).max()
    z = x / largest
    mean, std = z.mean(), z.std()
    return (z - mean) / std, float(mean * largest), float(std * largest)


def _pearson(x, y) -> float:
    return float(np.clip(np.mean(_standard(x)[0] * _standard(y)[0]), -1.0, 1.0))


def _sigmoid(slope, centre, u) -> np.ndarray:
    """Sigmoids of u, less their mean; `slope` and `centre` may be columns of many."""
    g = special.expit(slope * (u - centre))
    return g - g.mean(axis=-1, keepdims=True)


def _gain4(slope, centre, u, v) -> np.ndarray:
    """|correlation| of v with the sigmoid of u: what is left after the linear parameters."""
    g = _sigmoid(slope, centre, u)
    norm = np.sqrt(np.mean(g**2, axis=-1))
    return np.abs(g @ v) / len(v) / np.where(norm > 1e-9, norm, np.inf)


def _gain5(slope, centre, u, v) -> np.ndarray:
    """The same with a line beside the sigmoid."""
    g = _sigmoid(slope, centre, u)
    g = g - (g @ u)[..., None] / len(u) * u
    norm = np.sqrt(np.mean(g**2, axis=-1))
    rest = (g @ v) / len(v) / np.where(norm > 1e-6, norm, np.inf)
    return np.sqrt(np.mean(u * v) ** 2 + rest**2)


def _search(gain, u, v, *also: tuple[float, float]) -> tuple[float, float, float, bool]:
    """(slope, centre, gain, converged), never worse than the best of the grid and of `also`."""
    low, high = np.log(SLOPES)
    centres = np.r_[u.min() - 1, np.quantile(u, np.linspace(0.05, 0.95, 7)), u.max() + 1]
    slopes = np.linspace(low, high, 11)
    grid = np.stack(np.meshgrid(slopes, centres, indexing="ij"), -1).reshape(-1, 2)
    grid = np.concatenate([grid, *([[np.log(s), c]] for s, c in also)])
    gains = np.concatenate(
        [gain(np.exp(p[:, :1]), p[:, 1:], u, v) for p in np.array_split(grid, 9)]
    )
    start = grid[np.argmax(gains)]

    def cost(p):
        return -float(gain(np.exp(p[0]), p[1], u, v))

    bounds = [(low, high), (u.min() - 2, u.max() + 2)]
    # The default simplex is relative to the start and would be flat where a centre is 0.
    step = np.where(start + 0.3 < np.transpose(bounds)[1], 0.3, -0.3)
    corners = start + step * np.array([[0, 0], [1, 0], [0, 1]])
    options = {"xatol": 1e-6, "fatol": 1e-12, "maxiter": 1000, "initial_simplex": corners}
    found = optimize.minimize(cost, start, method="Nelder-Mead", bounds=bounds, options=options)
    best = found.x if found.fun <= cost(start) else start
    return float(np.exp(best[0])), float(best[1]), -cost(best), bool(found.success)


NOT_CONVERGED = "the search for the logistic stopped before it converged"


def _four(x, y) -> Fit:
    """Four parameters, or a line, or nothing; x and y are as `_standard` gives them."""
    (u, x_mean, x_std), (v, y_mean, y_std) = x, y
    line = float(np.mean(u * v))
    slope, centre, gain, converged = _search(_gain4, u, v)
    if gain <= abs(line):
        return _line(line, x[1:], y[1:], "a line fits at least as well as a logistic")
    g = special.expit(slope * (u - centre))
    rise = np.mean((g - g.mean()) * v) / np.mean((g - g.mean()) ** 2)
    low = -rise * g.mean()
    with np.errstate(over="ignore", invalid="ignore"):
        b2 = y_mean + y_std * low
        b1 = y_mean + y_std * (low + rise)
        found = tuple(float(b) for b in (b1, b2, x_mean + x_std * centre, x_std / slope))
    if not (np.isfinite(found).all() and found[3] > 0):
        return _line(line, x[1:], y[1:], "the logistic leaves the range of float64")
    return Fit("logistic4", found, True, converged, None if converged else NOT_CONVERGED)


def _five(x, y) -> Fit | None:
    """Five parameters in the units of the columns; None where they are not defined."""
    (u, x_mean, x_std), (v, y_mean, y_std) = x, y
    slope, centre, gain, converged = _search(_gain5, u, v, _search(_gain4, u, v)[:2])
    if len(u) < LEAST_FOR_FIVE or gain**2 - np.mean(u * v) ** 2 < ROUNDING:
        return None
    half = special.expit(slope * (u - centre)) - 0.5
    design = np.stack([half, u, np.ones_like(u)], axis=1)
    (a, b, c), *_ = np.linalg.lstsq(design, v, rcond=None)
    with np.errstate(all="ignore"):
        b4 = y_std * b / x_std
        found = (y_std * a, slope / x_std, x_mean + x_std * centre, b4)
        found = tuple(map(float, (*found, y_mean + y_std * c - b4 * x_mean)))
    if not (np.isfinite(found).all() and found[1] > 0):
        return None
    # The sigmoid is steepest nearest to its centre, so the slope is extreme there or at an end.
    places = np.array([u.min(), np.clip(centre, u.min(), u.max()), u.max()])
    s = special.expit(slope * (places - centre))
    rises = a * slope * s * (1 - s) + b
    monotone = bool(np.all(rises >= 0) or np.all(rises <= 0))
    return Fit("logistic5", found, monotone, converged, None if converged else NOT_CONVERGED)


def _line(correlation, x_scale, y_scale, reason) -> Fit:
    (x_mean, x_std), (y_mean, y_std) = x_scale, y_scale
    with np.errstate(all="ignore"):
        slope = float(np.float64(correlation) * y_std / x_std)
    if not np.isfinite(slope) or abs(correlation) <= ROUNDING or slope == 0:
        return Fit("none", (), False, False, f"{reason}, and there is no line either")
    return Fit("linear", (slope, x_mean, y_mean), True, True, reason)
