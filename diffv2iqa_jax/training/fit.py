"""The loop over training steps, and nothing else."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from diffv2iqa_jax.data.interface import Data
from diffv2iqa_jax.evaluation import predictions
from diffv2iqa_jax.training import processes
from diffv2iqa_jax.training.checkpoint import Checkpoints
from diffv2iqa_jax.training.evaluate import measure
from diffv2iqa_jax.training.logs import Log
from diffv2iqa_jax.training.profiling import Profile
from diffv2iqa_jax.training.setup import Programs
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.training.stopping import Preempted


def fit(
    programs: Programs,
    state: TrainState,
    data: Data,
    checkpoints: Checkpoints,
    resolved: dict[str, Any],
    workdir: str,
    *,
    stop: Callable[[], bool],
    stop_at: int | None,
    profile: Profile,
) -> TrainState | None:
    """Trains from the state's step to the last one, logs, saves and validates on the way.

    Args:
      state: where the devices want it; it is donated.
      resolved: the resolved configuration, which every checkpoint holds.
      stop, stop_at, profile: see `run.run`.

    Returns:
      The last state; None if it left at `stop_at`.

    Raises:
      Preempted, FloatingPointError: see `run.run`.
    """
    devices, every = programs.devices, resolved["every"]
    start, total = int(devices.single(state.step)), resolved["optim"]["steps"]
    log = _log(workdir, resolved, start)

    validate = functools.partial(_validate, programs, data, log, stop, every["evaluate"])
    try:
        # A run that ended between its save and its validation makes up for that.
        if start and not processes.exchange("validated", "yes" if log.validated else "")[0]:
            validate(state, start)
        batches: Iterator = log.watch(data.train(start)) if start < total else iter(())
        for step in range(start + 1, total + 1):
            if step == stop_at:
                return None
            if stop():
                raise Preempted("in training")
            with profile.step(step):
                state, metrics = programs.train_step(state, devices.put(next(batches)))
            log.sent(metrics)
            profile.sent(step, metrics)
            if step % every["log"] == 0 or step == total:
                log.train(step, _finite(step, devices.single(metrics)))
            if step % every["save"] == 0 or step == total:
                checkpoints.save(devices.single(state), resolved)
            validate(state, step)
    except Preempted as error:
        checkpoints.save(devices.single(state), resolved)
        checkpoints.close()
        step = int(devices.single(state.step))
        raise Preempted(f"{error}, saved at step {step} of {total}") from None
    if total == 0:  # weights from elsewhere become a run
        checkpoints.save(devices.single(state), resolved)
    log.close()
    return state


def _validate(
    programs: Programs,
    data: Data,
    log: Log,
    stop: Callable[[], bool],
    every: int,
    state: TrainState,
    step: int,
) -> None:
    """Measures the validation part, where it is due at this step."""
    if step % every == 0 and len(data.val_ids):
        log.pause()
        _, summary = measure(programs, state.weights(), data, data.val_ids, stop)
        log.write(step, predictions.curve(programs.kind, summary))
        log.resume()


def _log(workdir: str, resolved: dict[str, Any], start: int) -> Log:
    return Log(
        workdir,
        start=start,
        steps=resolved["optim"]["steps"],
        batch=resolved["data"]["batch"],
        tensorboard=resolved["tensorboard"],
        quiet=processes.index() != 0,
    )


def _finite(step: int, metrics: dict[str, jax.Array]) -> dict[str, float]:
    values = {key: float(value) for key, value in jax.device_get(metrics).items()}
    if not all(np.isfinite(value) for value in values.values()):
        raise FloatingPointError(f"step {step}: {values}; the last checkpoint is intact")
    return values
