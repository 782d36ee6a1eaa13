"""The end of a run: the test part, seen once, by the last weights. Nothing is selected on it."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import storage
from diffv2iqa_jax.data.interface import Data
from diffv2iqa_jax.evaluation import baselines, predictions
from diffv2iqa_jax.reporting import write as reports
from diffv2iqa_jax.training import processes, stopping
from diffv2iqa_jax.training.setup import Programs
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.training.stopping import Preempted
from diffv2iqa_jax.types import Weights

Columns = dict[str, np.ndarray]


def measure(
    programs: Programs,
    weights: Weights,
    data: Data,
    ids: np.ndarray,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Columns, dict[str, Any]]:
    """What the weights predict for these images, a column each, and the summary of that.

    Raises:
      Preempted: `stop` asked for it, see `stopping.until`.
    """
    kind = programs.kind
    batches = stopping.until(stop, data.test(ids), "in an evaluation")
    rows = predictions.outputs(programs.predict, weights, batches, programs.devices)
    columns = predictions.MEASURES[kind](rows)
    types = data.table["type"][columns["id"]]
    return columns, predictions.summarise(kind, columns, types, span=data.span)


def test(
    programs: Programs,
    state: TrainState,
    data: Data,
    resolved: dict[str, Any],
    out: str,
    untrained: Callable[[], TrainState],
    stop: Callable[[], bool] = lambda: False,
    *,
    own: bool,
) -> dict[str, Any]:
    """Evaluates the test part; writes predictions.csv and examples.npz.

    Args:
      out: the folder to write to.
      untrained: makes the state before the first step, for the baselines.
      stop: asked before each batch; true raises Preempted.
      own: whether the test part is of the run's own data set.

    Returns:
      What belongs into results.json.
    """
    kind, weights, devices = programs.kind, state.weights(), programs.devices
    step = int(jax.device_get(devices.single(state.step)))
    results = {"task": kind, "step": step, "part": "test", **data.protocol(resolved)}
    if not len(data.test_ids):  # trained on everything: other data sets judge it
        return results | {"part": "none", "images": 0, "scores": {}, "per_type": {}}
    columns, summary = measure(programs, weights, data, data.test_ids, stop)
    results |= summary
    if kind == "quality" and resolved["evaluate"]["baselines"] and own:
        _, before = measure(programs, untrained().weights(), data, data.test_ids, stop)
        features = _features(data, stop)
        results["baselines"] = {"untrained": before["scores"]["score"]["srcc"], **features}
    chosen = predictions.choose(kind, columns, data.table, resolved["evaluate"]["examples"])
    # All processes take part in every batch, also those that write nothing.
    batches = stopping.until(stop, data.test(sorted(chosen)), "in the test")
    rows = list(predictions.outputs(programs.everything, weights, batches, devices))
    if processes.index() == 0:
        storage.make_folder(out)
        predictions.write_table(os.path.join(out, "predictions.csv"), columns, data.table)
        predictions.write_examples(os.path.join(out, "examples.npz"), rows, chosen)
    return results


def _features(data: Data, stop: Callable[[], bool]) -> dict[str, float | None]:
    """SRCC of single features on the test part; the first process alone looks, as no device does.

    Raises:
      Preempted: on every process.
    """
    values, stopped = {}, ""
    if processes.index() == 0:
        batches = data.test(data.test_ids, alone=True)
        try:
            values = baselines.srcc(stopping.until(stopping.asked(stop), batches, "in the test"))
        except Preempted as error:
            stopped = str(error)
    if stopped := processes.exchange("features", stopped)[0]:
        raise Preempted(stopped)
    return values


def write(results: dict[str, Any], out: str, *, report: bool) -> None:
    """Writes results.json, and the report if it is wanted; the others wait for the first process.

    They read what it wrote: the next stage begins with the run of this one.
    """

    def files() -> None:
        storage.make_folder(out)
        configs.write_json(os.path.join(out, "results.json"), results)
        if report:
            reports.write(out)

    processes.first(files)
