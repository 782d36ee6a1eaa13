"""Optimisers and learning rates, by name."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

OPTIMISERS = {
    # Coupled L2, as in PyTorch's Adam: the decay enters the moments.
    "adam": lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.adam(lr)),
    "adamw": lambda lr, decay: optax.adamw(lr, weight_decay=decay),
    "sgd": lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.sgd(lr)),
}


def learning_rate(
    *, lr: float, schedule: str, period: int, warmup: int, steps: int
) -> Callable[[jax.Array], jax.Array]:
    """Step -> learning rate: a linear warm-up to `lr`, then the schedule.

    Args:
      lr: the highest learning rate.
      schedule: "constant"; "cosine", which falls to 0 over the run; "wave", a cosine from `lr`
        to 0 and back in every `period` steps (MANIQA's, whose period is 100); "stairs", which
        falls to a tenth after every `period` steps (VCRNet's).
      period: in steps; 0 where the schedule has none.
      warmup: steps of the warm-up.
      steps: steps of the whole run.

    Raises:
      ValueError: an unknown schedule, or a period or a warm-up that does not fit.
    """

    def wave(step: jax.Array) -> jax.Array:
        return lr * 0.5 * (1 + jnp.cos(2 * jnp.pi * step / period))

    def stairs(step: jax.Array) -> jax.Array:
        return lr * 0.1 ** (step // period)

    schedules = {
        "constant": optax.schedules.constant_schedule(lr),
        "cosine": optax.schedules.cosine_decay_schedule(lr, max(steps - warmup, 1)),
        "wave": wave,
        "stairs": stairs,
    }
    if schedule not in schedules:
        raise ValueError(f"optim.schedule {schedule!r}: known are {sorted(schedules)}")
    if (period > 0) != (schedule in ("wave", "stairs")):
        raise ValueError(f"optim.period {period}: 'wave' and 'stairs' need one, others take 0")
    if steps and not 0 <= warmup <= steps:
        raise ValueError(f"optim.warmup {warmup}: must lie in [0, {steps}], the steps of the run")
    rise = optax.schedules.linear_schedule(0.0 if warmup else lr, lr, max(warmup, 1))
    return optax.schedules.join_schedules([rise, schedules[schedule]], [warmup])


def make(
    *,
    name: str,
    lr: float,
    schedule: str,
    period: int,
    warmup: int,
    steps: int,
    weight_decay: float,
    clip: float,
    rates: tuple[tuple[str, float], ...] = (),
) -> tuple[optax.GradientTransformation, Callable[[jax.Array], jax.Array]]:
    """The update rule and its learning rate, a function of the step.

    Args:
      name: one of OPTIMISERS.
      lr, schedule, period, warmup, steps: see `learning_rate`.
      weight_decay: coupled L2 for "adam" and "sgd", decoupled for "adamw".
      clip: largest global gradient norm; 0 does not clip.
      rates: (regular expression, factor): parameters whose path matches learn at `factor` times
        the rate; the first match counts. See `state.check_rates`.

    Raises:
      ValueError: an unknown name, or as `learning_rate`.
    """
    if name not in OPTIMISERS:
        raise ValueError(f"optim.name {name!r}: known are {sorted(OPTIMISERS)}")
    rate = learning_rate(lr=lr, schedule=schedule, period=period, warmup=warmup, steps=steps)
    chain = [OPTIMISERS[name](rate, weight_decay)]
    if clip:
        chain.insert(0, optax.clip_by_global_norm(clip))
    if rates:
        chain.append(_scaled(rates))
    return (optax.chain(*chain) if len(chain) > 1 else chain[0]), rate


def _scaled(rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies each parameter's update by the factor of the first pattern that matches it."""

    def factor(path: str) -> float:
        return next((factor for pattern, factor in rates if re.search(pattern, path)), 1.0)

    return optax.stateless(
        lambda updates, _: {path: factor(path) * update for path, update in updates.items()}
    )
