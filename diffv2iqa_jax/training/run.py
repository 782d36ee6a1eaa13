"""A run of one stage: set up, train, evaluate; started again in its folder, it goes on."""

import logging
import os
from collections.abc import Callable
from typing import Any

import jax

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.data import pristine, rated
from diffv2iqa_jax.data.interface import Data
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import (
    checks,
    evaluate,
    initialize,
    logs,
    processes,
    profiling,
    setup,
    view_cache,
)
from diffv2iqa_jax.training.checkpoint import Checkpoints
from diffv2iqa_jax.training.fit import fit
from diffv2iqa_jax.training.setup import Programs
from diffv2iqa_jax.training.state import TrainState

LOG = logging.getLogger(__name__)


def run(
    config: dict[str, Any],
    workdir: str,
    *,
    mode: str = "train",
    on: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    stop_at: int | None = None,
    profile: str | None = None,
    programs: dict[str, Programs] | None = None,
    report: bool = True,
) -> dict[str, Any]:
    """Trains, evaluates and reports; started again in the same workdir, it resumes.

    Args:
      config, workdir: one of configs/, as plain dicts; the folder of this run.
      mode: "train"; "views" only makes the views; "evaluate" only evaluates what is saved.
      on: with "evaluate": all of another data set; results go to eval/ in the workdir.
      stop: asked before each step; true saves and raises Preempted.
      stop_at: leave before this step without saving, as a killed run would.
      profile: steps to trace, as `profiling.Profile` takes them.
      programs: compiled steps by `setup.key_of`; runs that share this dict compile once.
      report: draw the report.

    Returns what stands in results.json, {} if the run left early.

    Raises:
      ConfigError: the configuration or the workdir cannot work; nothing was changed then.
      Preempted, FloatingPointError: `stop` asked for it; the loss is not finite.
    """
    checks.check(config)
    checks.check_prepared(config, on)
    resolved, stage1 = initialize.resolve(config)
    ready = setup.programs(resolved, programs)
    pretrained = initialize.pretrained(resolved, ready.shapes)
    processes.first(lambda: configs.claim(workdir, config))
    if mode == "train" and (results := _complete(config, workdir)):
        return results
    with logs.process_log(workdir):
        logs.write_environment(workdir)
        out = workdir if on is None else os.path.join(workdir, "eval", on.replace("/", "-"))
        data = processes.after_the_first(lambda: open_data(config, on))
        if stage1 is not None and config["restorer"]["cached"]:
            data.views = view_cache.make(resolved, data, stage1, _views(config, on, out), stop)
        if mode == "views":
            return {}
        pretrained |= {} if stage1 is None else {"restorer": stage1}
        begin = setup.begin(ready, config["seed"], pretrained)
        checkpoints = Checkpoints(workdir, keep=config["keep"])
        state = _restored(checkpoints, ready, begin(), config, workdir, needed=mode == "evaluate")
        if mode == "train":
            with profiling.Profile(workdir, profile) as traced:
                how = {"stop": stop, "stop_at": stop_at, "profile": traced}
                state = fit(ready, state, data, checkpoints, resolved, workdir, **how)
        if state is None:
            return {}
        results = evaluate.test(ready, state, data, resolved, out, begin, stop, own=on is None)
        checkpoints.close()
        evaluate.write(results, out, report=report)
    return results


def _complete(config: dict[str, Any], workdir: str) -> dict[str, Any] | None:
    """The results of a run that has taken all its steps; None if it has not."""
    results = logs.finished(workdir)
    if not results or results["step"] < config["optim"]["steps"]:
        return None
    LOG.info("%s: is complete, %d steps; nothing to do", workdir, results["step"])
    return results


def _views(config: dict[str, Any], on: str | None, out: str) -> str:
    """The folder of the views."""
    return (config["restorer"]["folder"] if on is None else "") or os.path.join(out, "views")


def open_data(config: dict[str, Any], on: str | None) -> Data:
    """The data of a run: a built data set, or photos to distort.

    Raises:
      ConfigError: there are no photos, or too many damaged ones; or a set to learn scores from
        has none.
    """
    settings, val_images = config["data"], config["evaluate"]["val_images"]
    if settings["name"] == pristine.NAME:
        try:
            return pristine.Pristine(
                settings, val_images, (jax.process_index(), jax.process_count())
            )
        except ValueError as error:
            raise ConfigError(f"config.data: {error}") from error
    data = rated.Rated(settings, val_images, on)
    if config["task"] == "quality" and on is None and not data.rated:
        raise ConfigError(
            f"config.data.name {data.name!r}: has no opinions to learn from; a pool is for "
            "--mode evaluate --on"
        )
    return data


def _restored(
    checkpoints: Checkpoints,
    programs: Programs,
    state: TrainState,
    config: dict[str, Any],
    workdir: str,
    *,
    needed: bool,
) -> TrainState:
    """The newest saved state, or `state` where none is saved.

    Raises:
      ConfigError: none is saved, but one is needed.
    """
    devices = programs.devices
    saved = checkpoints.restore(devices.single(state), config["optim"]["frozen"])
    if saved is None and needed:
        raise ConfigError(f"workdir {workdir}: holds no checkpoint to evaluate; train it")
    step = 0 if saved is None else int(saved.step)
    LOG.info("%s: starting at step %d of %d", workdir, step, config["optim"]["steps"])
    return state if saved is None else devices.spread(saved)
