"""Fits a logistic curve to standardised columns; `correlation.logistic_fit` is the way in."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

LEAST_FOR_FIVE = 12  # images: five parameters follow noise more readily than four
ROUNDING = 1e-12  # spread below this, relative to the largest value, is rounding noise
SLOPES = (0.05, 20.0)  # of the sigmoid, per standard deviation: nearly a line, nearly a step
# The search for a logistic. Chosen on 960 fits, of which a search by a hundred times as many starts
# found a better curve for none; a third fewer rounds of climbing miss some.
THINNED = 400  # images to choose starts by; of more, means of neighbours
CELL = 1.0  # between centres, in lengths of 1 / slope
NEAR = 4.1  # half-steps of the grid: nearer starts climb to the same optimum
STARTS = 16
CACHED = 2**15  # numbers at a time, which stay in a core's cache
CLIMBS = 8
NOT_CONVERGED = "the search for the logistic stopped before it converged"

Standard = tuple[np.ndarray, float, float]  # of mean 0 and deviation 1; mean and deviation before


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


def _centred_sigmoid(slope: np.ndarray, centre: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The sigmoid of u, less its mean; a column of slopes and centres gives a row for each."""
    with np.errstate(over="ignore"):  # far outside, the sigmoid is exactly 0
        sigmoid = 1 / (1 + np.exp(slope * (centre - u)))  # a third of special.expit's time
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
    """Searches the (slope, centre) of the largest gain: a grid, its best points, the best of these.

    Args:
      gain: `_gain4` or `_gain5`.
      also: further (slope, centre) to start from, beside the grid.

    Returns:
      (slope, centre, gain, converged), never worse than the best start.
    """
    bounds = np.array([np.log(SLOPES), (u.min() - 2, u.max() + 2)])
    few = _thinned(u, v)
    starts, step = _grid(few[0], bounds)
    best = _apart(_gains(gain, starts, *few), starts, step)
    climbed = _climbed(partial(_gains, gain, u=few[0], v=few[1]), starts[best], step[best], bounds)
    candidates = [*starts[best[:1]], *climbed, *([np.log(slope), at] for slope, at in also)]
    candidates = np.array(candidates)
    start = candidates[np.argmax(_gains(gain, candidates, u, v))]

    def cost(point: np.ndarray) -> float:
        return -float(gain(np.exp(point[0]), point[1], u, v))

    # The default simplex is relative to the start and would be flat where a centre is 0.
    step = np.array([0.1, 0.1 / max(np.exp(start[0]), 1.0)])
    step = np.where(start + step < bounds[:, 1], step, -step)
    corners = start + step * np.array([[0, 0], [1, 0], [0, 1]])
    options = {"xatol": 1e-6, "fatol": 1e-12, "maxiter": 1000, "initial_simplex": corners}
    result = optimize.minimize(cost, start, method="Nelder-Mead", bounds=bounds, options=options)
    best = result.x if result.fun <= cost(start) else start
    return float(np.exp(best[0])), float(best[1]), -cost(best), bool(result.success)


def _gains(gain: Callable, point_P2: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The gain at each (log slope, centre): (P,)."""
    rows = max(CACHED // len(u), 1)
    parts = [point_P2[i : i + rows] for i in range(0, len(point_P2), rows)]
    return np.concatenate([gain(np.exp(p[:, :1]), p[:, 1:], u, v) for p in parts])


def _thinned(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours, so that a search for starts costs no more for many images."""
    each = max(len(u) // THINNED, 1)
    order = np.argsort(u, kind="stable")[: len(u) // each * each]
    return u[order].reshape(-1, each).mean(axis=1), v[order].reshape(-1, each).mean(axis=1)


def _grid(u: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log slope, centre) to start from, and half the way to its neighbours: (P, 2) each.

    A steep sigmoid has many optima, between the scores: its centres lie closer, where scores are.
    """
    starts, steps = [], []
    slopes = np.linspace(*bounds[0], 11)
    for slope in slopes:
        width = min(0.5, CELL / np.exp(slope))
        centres = np.unique(np.r_[np.rint(u / width) * width, bounds[1], u.min() - 1, u.max() + 1])
        starts += [(slope, centre) for centre in np.clip(centres, *bounds[1])]
        steps += [((slopes[1] - slopes[0]) / 2, width / 2)] * len(centres)
    return np.array(starts), np.array(steps)


def _apart(gain_P: np.ndarray, start_P2: np.ndarray, step_P2: np.ndarray) -> np.ndarray:
    """The best points that are no neighbours of better ones: indices."""
    left_P, chosen = gain_P.copy(), []
    for _ in range(STARTS):
        best = int(np.argmax(left_P))
        chosen.append(best)
        near = np.abs(start_P2 - start_P2[best]) <= NEAR * np.maximum(step_P2, step_P2[best])
        left_P[near.all(axis=1)] = -1.0
    return np.array(chosen)


def _climbed(
    gains: Callable, start_P2: np.ndarray, step_P2: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """A compass search's best points, (P, 2): each moves to its best neighbour or halves its steps.

    After half of the rounds the better half goes on.
    """
    around = np.array([(a, b) for a in (0, -1, 1) for b in (0, -1, 1)])
    for number in range(CLIMBS):
        near_P92 = np.clip(start_P2[:, None] + step_P2[:, None] * around, *bounds.T)
        gain_P9 = gains(near_P92.reshape(-1, 2)).reshape(-1, 9)
        best_P = np.argmax(gain_P9, axis=1)
        start_P2 = near_P92[np.arange(len(best_P)), best_P]
        step_P2 = np.where(best_P[:, None] == 0, step_P2 / 2, step_P2)
        if number == CLIMBS // 2 - 1:
            better = np.argsort(-gain_P9.max(axis=1), kind="stable")[: len(best_P) // 2]
            start_P2, step_P2 = start_P2[better], step_P2[better]
    return start_P2


def four(x: Standard, y: Standard) -> Fit:
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


def five(x: Standard, y: Standard) -> Fit | None:
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
