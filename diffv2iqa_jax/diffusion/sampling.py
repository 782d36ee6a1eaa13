"""The forward process, the training target, and the reverse process as one scan."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.diffusion import schedule as schedules
from diffv2iqa_jax.diffusion.schedule import Schedule

PREDICTIONS = ("eps", "x0", "v")
SAMPLERS = ("ddpm", "ddim", "ddim_net_eps")


def diffuse(y0_BHWC: jax.Array, eps_BHWC: jax.Array, level_B: jax.Array) -> jax.Array:
    """Adds noise to y_0 up to each image's level, sqrt(alpha_bar) in [0, 1]."""
    level_B111 = level_B[:, None, None, None]
    return level_B111 * y0_BHWC + jnp.sqrt(1 - level_B111**2) * eps_BHWC


def target(
    prediction: str, y0_BHWC: jax.Array, eps_BHWC: jax.Array, level_B: jax.Array
) -> jax.Array:
    """What the network should return: eps (SR3), y_0, or v (Salimans & Ho 2022)."""
    level_B111 = level_B[:, None, None, None]
    return {
        "eps": lambda: eps_BHWC,
        "x0": lambda: y0_BHWC,
        "v": lambda: level_B111 * eps_BHWC - jnp.sqrt(1 - level_B111**2) * y0_BHWC,
    }[prediction]()


def continuous_level(schedule: Schedule, step_B: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """A level between two neighbouring steps, as SR3 trains on: (B,) float32.

    Args:
      step_B: int, in [1, T].
      uniform_B: where between the neighbours, in [0, 1): 0 is the cleaner one.
    """
    level = jnp.asarray(schedule.level, jnp.float32)
    cleaner_B, noisier_B = level[step_B - 1], level[step_B]
    return cleaner_B + (noisier_B - cleaner_B) * uniform_B


def tables(schedule: Schedule) -> dict[str, jax.Array]:
    """Coefficients of each reverse step, noisiest first: name -> (S,) float32."""
    buffers = schedules.buffers(schedule)
    t = np.arange(len(schedule), dtype=np.int32)
    std = np.exp(0.5 * buffers["posterior_log_variance_clipped"])
    columns = {
        "level": buffers["sqrt_alphas_cumprod"],
        "noise": buffers["sqrt_one_minus_alphas_cumprod"],
        "recip": buffers["sqrt_recip_alphas_cumprod"],
        "recipm1": buffers["sqrt_recipm1_alphas_cumprod"],
        "level_prev": np.sqrt(buffers["alphas_cumprod_prev"]),
        "noise_prev": np.sqrt(1 - buffers["alphas_cumprod_prev"]),
        "mean_y0": buffers["posterior_mean_coef1"],
        "mean_y": buffers["posterior_mean_coef2"],
        # No noise enters at the last step, t = 0.
        "std": std * (t > 0),
    }
    columns = {name: column.astype(np.float32) for name, column in columns.items()}
    return {
        name: jnp.asarray(np.ascontiguousarray(column[::-1]))
        for name, column in {"t": t, **columns}.items()
    }


def estimate(
    prediction: str, out_BHWC: jax.Array, y_BHWC: jax.Array, row: dict[str, jax.Array]
) -> jax.Array:
    """The network's output at a step -> its estimate of y_0; `row` is the step's of `tables`."""
    return {
        "eps": lambda: row["recip"] * y_BHWC - row["recipm1"] * out_BHWC,
        "x0": lambda: out_BHWC,
        "v": lambda: row["level"] * y_BHWC - row["noise"] * out_BHWC,
    }[prediction]()


def check(*, steps: int, keep: tuple[int, ...], sampler: str, prediction: str) -> None:
    """Raises ValueError, naming the choices, for settings that no chain can have."""
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

    The state stays float32. Memory does not grow with the number of steps: only the current
    state and the kept ones exist.

    Args:
      net: (state y_t, its level (B,)) -> prediction, of y_t's shape.
      schedule: the S steps to take (see `schedule.spaced`).
      start_BHWC: standard normal noise; with "ddim.." it alone decides the result.
      noise: step t -> standard normal noise (B, H, W, C); "ddpm" adds it after step t > 0.
      keep: steps t in [1, S - 1] after which to keep the state. Such a state has the noise of
        the step below, sqrt(1 - alpha_bar_{t-1}), and is not clipped.
      sampler: "ddpm" (ancestral, posterior variance, as SR3), "ddim" (eta = 0) or "ddim_net_eps".
        These two differ where an estimate of y_0 is clipped: "ddim" goes on with the noise that the
        clipped one leaves in y_t (diffusers' `use_clipped_model_output=True`), so that both agree
        with y_t; "ddim_net_eps" with the noise that the net sees (diffusers' default).
      prediction: what `net` returns, one of PREDICTIONS.
      clip: clip each estimate of y_0 to [-1, 1], as SR3 always does.

    Returns:
      y_0 (B, H, W, C), and the kept states (B, K, H, W, C) in the order of `keep`.
    """
    check(steps=len(schedule), keep=keep, sampler=sampler, prediction=prediction)
    keep_K = jnp.asarray(keep, jnp.int32)

    Carry = tuple[jax.Array, jax.Array]

    def step(carry: Carry, row: dict[str, jax.Array]) -> tuple[Carry, None]:
        y_BHWC, kept_KBHWC = carry
        out_BHWC = net(y_BHWC, jnp.full(y_BHWC.shape[0], row["level"])).astype(jnp.float32)
        unclipped_BHWC = estimate(prediction, out_BHWC, y_BHWC, row)
        y0_BHWC = jnp.clip(unclipped_BHWC, -1.0, 1.0) if clip else unclipped_BHWC
        if sampler == "ddpm":
            mean_BHWC = row["mean_y0"] * y0_BHWC + row["mean_y"] * y_BHWC
            y_BHWC = mean_BHWC + row["std"] * noise(row["t"])
        else:
            agreeing_BHWC = y0_BHWC if sampler == "ddim" else unclipped_BHWC
            eps_BHWC = (y_BHWC - row["level"] * agreeing_BHWC) / row["noise"]
            y_BHWC = row["level_prev"] * y0_BHWC + row["noise_prev"] * eps_BHWC
        keep_now = (keep_K == row["t"])[:, None, None, None, None]
        return (y_BHWC, jnp.where(keep_now, y_BHWC[None], kept_KBHWC)), None

    start_BHWC = start_BHWC.astype(jnp.float32)
    kept_KBHWC = jnp.zeros((len(keep), *start_BHWC.shape), jnp.float32)
    (y0_BHWC, kept_KBHWC), _ = jax.lax.scan(step, (start_BHWC, kept_KBHWC), tables(schedule))
    return y0_BHWC, kept_KBHWC.swapaxes(0, 1)
