"""Noise schedules of the diffusion: tables in float64, cast once where they are used.

A schedule is its betas. With alpha_t = 1 - beta_t and alpha_bar_t = prod_{s<=t} alpha_s,

    y_t = sqrt(alpha_bar_t) y_0 + sqrt(1 - alpha_bar_t) eps,     t = 0 .. T-1.

The *level* of a state is sqrt(alpha_bar): 1 is the clean image, 0 is noise alone. The network
sees the level, not the step, so that after training on T steps it can sample with any number.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Attributes: beta_T (T,) float64, the share of variance that each step adds."""

    beta_T: np.ndarray

    def __len__(self) -> int:
        return len(self.beta_T)

    @property
    def alpha_bar_T(self) -> np.ndarray:
        """The share of the image's variance left after each step, (T,) float64."""
        return np.cumprod(1.0 - self.beta_T)

    @property
    def level(self) -> np.ndarray:
        """sqrt of [1, alpha_bar_0, ..., alpha_bar_{T-1}]: (T + 1,) float64, falling."""
        return np.sqrt(np.append(1.0, self.alpha_bar_T))


def _linear(steps: int, start: float, end: float) -> np.ndarray:
    return np.linspace(start, end, steps)


def _quad(steps: int, start: float, end: float) -> np.ndarray:
    return np.linspace(start**0.5, end**0.5, steps) ** 2


def _const(steps: int, start: float, end: float) -> np.ndarray:
    return np.full(steps, end)


def _warmup(steps: int, start: float, end: float, share: float) -> np.ndarray:
    beta = np.full(steps, end)
    rising_steps = int(steps * share)
    beta[:rising_steps] = np.linspace(start, end, rising_steps)
    return beta


def _jsd(steps: int, start: float, end: float) -> np.ndarray:
    """beta_t = 1 / (T - t): alpha_bar falls linearly to 0."""
    return 1.0 / np.linspace(steps, 1, steps)


def _cosine(steps: int, start: float, end: float, offset: float = 0.008) -> np.ndarray:
    """Nichol & Dhariwal 2021, equation 17; betas end at 0.999."""
    t = (np.arange(steps + 1) / steps + offset) / (1 + offset)
    alpha_bar = np.cos(t * np.pi / 2) ** 2
    alpha_bar = alpha_bar / alpha_bar[0]
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


SCHEDULES: dict[str, Callable[[int, float, float], np.ndarray]] = {
    "linear": _linear,
    "quad": _quad,
    "const": _const,
    "warmup10": lambda steps, start, end: _warmup(steps, start, end, 0.1),
    "warmup50": lambda steps, start, end: _warmup(steps, start, end, 0.5),
    "jsd": _jsd,
    "cosine": _cosine,
}


def make(name: str, steps: int, start: float = 1e-4, end: float = 2e-2) -> Schedule:
    """The named schedule with `steps` steps; `jsd` and `cosine` ignore `start` and `end`.

    Raises:
      ValueError: the name is unknown, or there is not a single step.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r}: known are {sorted(SCHEDULES)}")
    if steps < 1:
        raise ValueError(f"a schedule of {steps} steps: at least 1 is needed")
    return Schedule(SCHEDULES[name](steps, start, end))


def buffers(schedule: Schedule) -> dict[str, np.ndarray]:
    """Every derived table of the reverse process, float64, by SR3's names.

    Posterior q(y_{t-1} | y_t, y_0) of Ho et al. 2020, equations 6 and 7.
    """
    beta, alpha_bar = schedule.beta_T, schedule.alpha_bar_T
    previous = np.append(1.0, alpha_bar[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):  # jsd ends with beta 1
        variance = beta * (1 - previous) / (1 - alpha_bar)
        return {
            "betas": beta,
            "alphas_cumprod": alpha_bar,
            "alphas_cumprod_prev": previous,
            "sqrt_alphas_cumprod": np.sqrt(alpha_bar),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - alpha_bar),
            "log_one_minus_alphas_cumprod": np.log(1 - alpha_bar),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / alpha_bar),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / alpha_bar - 1),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": beta * np.sqrt(previous) / (1 - alpha_bar),
            "posterior_mean_coef2": (1 - previous) * np.sqrt(1 - beta) / (1 - alpha_bar),
        }


def spaced(schedule: dict, steps: int, spacing: str) -> Schedule:
    """The schedule to sample with: `steps` steps of the training schedule.

    Args:
      schedule: the training schedule, as arguments of `make`.
      steps: how many steps the sampler takes.
      spacing: "tabulate" makes the same kind of schedule anew with that many steps; "uniform"
        and "quad" visit that many of the training steps, evenly or denser near the image.

    Raises:
      ValueError: the spacing is unknown, or asks for more steps than there are.
    """
    if spacing == "tabulate":
        return make(**{**schedule, "steps": steps})
    powers = {"uniform": 1.0, "quad": 2.0}
    if spacing not in powers:
        raise ValueError(f"spacing {spacing!r}: known are {sorted([*powers, 'tabulate'])}")
    trained = make(**schedule)
    count = len(trained)
    if not 1 <= steps <= count:
        raise ValueError(f"{steps} sampling steps: must lie in [1, {count}], the trained steps")
    share = (np.arange(1, steps + 1) / steps) ** powers[spacing]
    # The maximum keeps the visited steps distinct where "quad" would visit one twice.
    visited = np.maximum((share * count).round().astype(int) - 1, np.arange(steps))
    alpha_bar = trained.alpha_bar_T[visited]
    return Schedule(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]))
