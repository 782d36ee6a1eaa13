"""Optimisers and learning rates, by name."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

OPTIMISERS = {
    # Coupled L2, as PyTorch's Adam has it: the decay enters the moments.
    "adam": lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.adam(lr)),
    "adamw": lambda lr, decay: optax.adamw(lr, weight_decay=decay),
    "sgd": lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.sgd(lr)),
}


def learning_rate(
    *, lr: float, schedule: str, period: int, warmup: int, steps: int
) -> Callable[[jax.Array], jax.Array]:
    """Step -> learning rate: a linear warm-up to `lr`, then the schedule.

    Args:
      schedule: "constant"; "cosine", down to 0 over the run; "wave", a cosine from `lr` to 0 and
        back in every `period` steps (MANIQA's, whose period is 100); "stairs", a tenth of it
        after every `period` steps (VCRNet's).
      period: in steps; 0 where the schedule has none.
    """
    wave = lambda step: lr * 0.5 * (1 + jnp.cos(2 * jnp.pi * step / period))
    known = {
        "constant": lambda: optax.schedules.constant_schedule(lr),
        "cosine": lambda: optax.schedules.cosine_decay_schedule(lr, max(steps - warmup, 1)),
        "wave": lambda: wave,
        "stairs": lambda: lambda step: lr * 0.1 ** (step // period),
    }
    if schedule not in known:
        raise ValueError(f"optim.schedule {schedule!r}: known are {sorted(known)}")
    if (period > 0) != (schedule in ("wave", "stairs")):
        raise ValueError(f"optim.period {period}: 'wave' and 'stairs' need one, others take 0")
    if steps and not 0 <= warmup <= steps:
        raise ValueError(f"optim.warmup {warmup}: must lie in [0, {steps}], the steps of the run")
    rise = optax.schedules.linear_schedule(0.0 if warmup else lr, lr, max(warmup, 1))
    return optax.schedules.join_schedules([rise, known[schedule]()], [warmup])


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
    """The update rule and its learning rate.

    Args:
      name: one of OPTIMISERS.
      weight_decay: coupled L2 for "adam" and "sgd", decoupled for "adamw".
      clip: largest global gradient norm; 0 does not clip.
      rates: (regular expression, factor): parameters whose path matches learn at that many times
        the rate; the first match counts. See `state.check_rates`.
    """
    if name not in OPTIMISERS:
        raise ValueError(f"optim.name {name!r}: known are {sorted(OPTIMISERS)}")
    rate = learning_rate(lr=lr, schedule=schedule, period=period, warmup=warmup, steps=steps)
    chain = [OPTIMISERS[name](rate, weight_decay)]
    if clip:
        chain.insert(0, optax.clip_by_global_norm(clip))
    if rates:
        factor = lambda name: next((f for p, f in rates if re.search(p, name)), 1.0)
        scale = lambda updates, _: {name: factor(name) * u for name, u in updates.items()}
        chain.append(optax.stateless(scale))
    return (optax.chain(*chain) if len(chain) > 1 else chain[0]), rate
