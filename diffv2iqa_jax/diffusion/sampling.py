"""The forward process, the training target, and the reverse process as one scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.diffusion import schedule as schedules
from diffv2iqa_jax.diffusion.schedule import Schedule

PREDICTIONS = ("eps", "x0", "v")
SAMPLERS = ("ddpm", "ddim")


def diffuse(y0_BHWC: jax.Array, eps_BHWC: jax.Array, level_B: jax.Array) -> jax.Array:
    """y_0 with noise added up to each image's level, sqrt(alpha_bar) in [0, 1]."""
    a = level_B[:, None, None, None]
    return a * y0_BHWC + jnp.sqrt(1 - a**2) * eps_BHWC


def target(prediction: str, y0_BHWC: jax.Array, eps_BHWC: jax.Array, level_B: jax.Array):
    """What the network should put out: eps (SR3), y_0, or v (Salimans & Ho 2022)."""
    a = level_B[:, None, None, None]
    return {
        "eps": lambda: eps_BHWC,
        "x0": lambda: y0_BHWC,
        "v": lambda: a * eps_BHWC - jnp.sqrt(1 - a**2) * y0_BHWC,
    }[prediction]()


def continuous_level(schedule: Schedule, step_B: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """A level between two neighbouring steps, as SR3 trains on: (B,) float32.

    Args:
      step_B: int, in [1, T].
      uniform_B: where between the neighbours, in [0, 1): 0 is the cleaner one.
    """
    level = jnp.asarray(schedule.level, jnp.float32)
    low, high = level[step_B - 1], level[step_B]
    return low + (high - low) * uniform_B


def tables(schedule: Schedule) -> dict[str, jax.Array]:
    """Coefficients of each reverse step, noisiest first: name -> (S,) float32."""
    b = schedules.buffers(schedule)
    columns = {
        "t": np.arange(len(schedule), dtype=np.int32),
        "level": b["sqrt_alphas_cumprod"],
        "noise": b["sqrt_one_minus_alphas_cumprod"],
        "recip": b["sqrt_recip_alphas_cumprod"],
        "recipm1": b["sqrt_recipm1_alphas_cumprod"],
        "level_prev": np.sqrt(b["alphas_cumprod_prev"]),
        "noise_prev": np.sqrt(1 - b["alphas_cumprod_prev"]),
        "mean_y0": b["posterior_mean_coef1"],
        "mean_y": b["posterior_mean_coef2"],
        # No noise enters at the last step, t = 0.
        "std": np.exp(0.5 * b["posterior_log_variance_clipped"]) * (np.arange(len(schedule)) > 0),
    }
    cast = lambda x: jnp.asarray(x if x.dtype == np.int32 else x.astype(np.float32))
    return {name: cast(np.ascontiguousarray(column[::-1])) for name, column in columns.items()}


def estimate(prediction: str, out_BHWC: jax.Array, y_BHWC: jax.Array, row: dict) -> jax.Array:
    """The network's output at a step of `tables` -> its estimate of y_0."""
    return {
        "eps": lambda: row["recip"] * y_BHWC - row["recipm1"] * out_BHWC,
        "x0": lambda: out_BHWC,
        "v": lambda: row["level"] * y_BHWC - row["noise"] * out_BHWC,
    }[prediction]()


def check(*, steps: int, keep: tuple[int, ...], sampler: str, prediction: str) -> None:
    """Refuses settings that no chain has.

    Raises:
      ValueError: names the value, the rule and the choices.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r}: known are {list(SAMPLERS)}")
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction {prediction!r}: known are {list(PREDICTIONS)}")
    if len(set(keep)) != len(keep) or not all(0 < t < steps for t in keep):
        raise ValueError(f"keep {tuple(keep)}: steps must differ and lie in [1, {steps - 1}]")


def sample(
    net: Callable[[jax.Array, jax.Array], jax.Array],
    schedule: Schedule,
    start_BHWC: jax.Array,
    noise: Callable[[jax.Array], jax.Array],
    *,
    keep: tuple[int, ...] = (),
    sampler: str = "ddpm",
    prediction: str = "eps",
    clip: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Runs the reverse chain from noise to y_0, keeping some states on the way.

    The chain's state stays float32, the chain itself is never stored.

    Args:
      net: (state y_t, its level (B,)) -> prediction, of y_t's shape.
      schedule: of the S steps to take (see `schedule.spaced`).
      start_BHWC: standard normal noise; with "ddim" the result is a function of it.
      noise: step t -> standard normal noise of that shape; "ddpm" adds it after step t > 0.
      keep: steps t in [1, S - 1] after which to keep the state. It carries the noise of the
        step below, sqrt(1 - alpha_bar_{t-1}), and is not clipped.
      sampler: "ddpm" (ancestral, posterior variance, as SR3) or "ddim" (eta = 0).
      prediction: what `net` puts out, one of PREDICTIONS.
      clip: clip each estimate of y_0 to [-1, 1], as SR3 always does.

    Returns:
      y_0 (B, H, W, C), and the kept states (B, K, H, W, C) in the order of `keep`.
    """
    check(steps=len(schedule), keep=keep, sampler=sampler, prediction=prediction)
    keep_K = jnp.asarray(keep, jnp.int32)

    def step(carry, row):
        y, kept_KBHWC = carry
        out = net(y, jnp.full(y.shape[0], row["level"])).astype(jnp.float32)
        y0 = estimate(prediction, out, y, row)
        y0 = jnp.clip(y0, -1.0, 1.0) if clip else y0
        if sampler == "ddpm":
            y = row["mean_y0"] * y0 + row["mean_y"] * y + row["std"] * noise(row["t"])
        else:
            eps = (y - row["level"] * y0) / row["noise"]
            y = row["level_prev"] * y0 + row["noise_prev"] * eps
        here = (keep_K == row["t"])[:, None, None, None, None]
        return (y, jnp.where(here, y[None], kept_KBHWC)), None

    start_BHWC = start_BHWC.astype(jnp.float32)
    kept = jnp.zeros((len(keep), *start_BHWC.shape), jnp.float32)
    (y0_BHWC, kept_KBHWC), _ = jax.lax.scan(step, (start_BHWC, kept), tables(schedule))
    return y0_BHWC, kept_KBHWC.swapaxes(0, 1)
