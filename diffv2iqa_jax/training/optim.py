"""Optimisers and learning rates, by name."""

from collections.abc import Callable

import jax
import optax

OPTIMISERS = {
    # Coupled L2, as PyTorch's Adam has it: the decay enters the moments.
    "adam": lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.adam(lr)),
    "adamw": lambda lr, decay: optax.adamw(lr, weight_decay=decay),
    "sgd": lambda lr, decay: optax.chain(optax.add_decayed_weights(decay), optax.sgd(lr)),
}


def learning_rate(
    *, lr: float, schedule: str, warmup: int, steps: int
) -> Callable[[jax.Array], jax.Array]:
    """Step -> learning rate: a linear warm-up, then "constant" or "cosine" down to 0."""
    known = {
        "constant": lambda: optax.schedules.constant_schedule(lr),
        "cosine": lambda: optax.schedules.cosine_decay_schedule(lr, max(steps - warmup, 1)),
    }
    if schedule not in known:
        raise ValueError(f"optim.schedule {schedule!r}: known are {sorted(known)}")
    if not 0 <= warmup <= steps:
        raise ValueError(f"optim.warmup {warmup}: must lie in [0, {steps}], the steps of the run")
    rise = optax.schedules.linear_schedule(0.0 if warmup else lr, lr, max(warmup, 1))
    return optax.schedules.join_schedules([rise, known[schedule]()], [warmup])


def make(
    *,
    name: str,
    lr: float,
    schedule: str,
    warmup: int,
    steps: int,
    weight_decay: float,
    clip: float,
) -> tuple[optax.GradientTransformation, Callable[[jax.Array], jax.Array]]:
    """The update rule and its learning rate.

    Args:
      name: one of OPTIMISERS.
      weight_decay: coupled L2 for "adam" and "sgd", decoupled for "adamw".
      clip: largest global gradient norm; 0 does not clip.
    """
    if name not in OPTIMISERS:
        raise ValueError(f"optim.name {name!r}: known are {sorted(OPTIMISERS)}")
    rate = learning_rate(lr=lr, schedule=schedule, warmup=warmup, steps=steps)
    tx = OPTIMISERS[name](rate, weight_decay)
    return (optax.chain(optax.clip_by_global_norm(clip), tx) if clip else tx), rate
