"""A run of one stage: set up, train, evaluate; started again in its folder, it goes on."""

import logging
from collections.abc import Callable
from typing import Any

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import (
    evaluate,
    logs,
    opening,
    processes,
    profiling,
    setup,
    view_cache,
)
from diffv2iqa_jax.training.checkpoint import Checkpoints
from diffv2iqa_jax.training.fit import fit
from diffv2iqa_jax.training.opening import Kept, Opened
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
    kept: Kept | None = None,
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
      kept: what runs share: those that are given the same one compile and open it once.
      report: draw the report.

    Returns what stands in results.json, {} if the run left early.

    Raises:
      ConfigError: the configuration, the workdir or what they name cannot work; nothing was
        changed then. See `opening.open_run`.
      Preempted, FloatingPointError: `stop` asked for it; the loss is not finite.
    """
    opened = opening.open_run(config, workdir, mode=mode, on=on, kept=kept)
    processes.barrier("opened")  # what one process is refused for must not claim the folder
    processes.first(lambda: configs.claim(workdir, config))
    if opened.results:
        steps = opened.results["step"]
        LOG.info("%s: is complete, %d steps; nothing to do", workdir, steps)
        return opened.results
    with logs.process_log(workdir):
        logs.write_environment(workdir)
        begin = _begin(opened, config, workdir, on, stop)
        if mode == "views":
            return {}
        ready, data, resolved = opened.programs, opened.data, opened.resolved
        checkpoints = Checkpoints(workdir, keep=config["keep"])
        state = _restored(checkpoints, ready, begin(), config, workdir, needed=mode == "evaluate")
        if mode == "train":
            with profiling.Profile(workdir, profile) as traced:
                how = {"stop": stop, "stop_at": stop_at, "profile": traced}
                state = fit(ready, state, data, checkpoints, resolved, workdir, **how)
        if state is None:
            return {}
        results = evaluate.test(
            ready, state, data, resolved, opened.out, begin, stop, own=on is None
        )
        checkpoints.close()
        evaluate.write(results, opened.out, report=report)
    return results


def _begin(
    opened: Opened,
    config: dict[str, Any],
    workdir: str,
    on: str | None,
    stop: Callable[[], bool],
) -> Callable[[], TrainState]:
    """Makes the views that are missing; returns what makes the state before the first step."""
    if opened.backbones:
        LOG.info("%s: %s", workdir, opened.backbones)
    pretrained, stage1 = opened.pretrained, opened.stage1
    if stage1 is not None and config["restorer"]["cached"]:
        folder = opening.views_folder(config, on, opened.out)
        opened.data.views = view_cache.make(opened.resolved, opened.data, stage1, folder, stop)
    pretrained |= {} if stage1 is None else {"restorer": stage1}
    return setup.begin(opened.programs, config["seed"], pretrained)


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
