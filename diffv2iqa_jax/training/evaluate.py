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
from diffv2iqa_jax.training.setup import Programs
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.types import Weights

Columns = dict[str, np.ndarray]


def measure(
    programs: Programs, weights: Weights, data: Data, ids: np.ndarray
) -> tuple[Columns, dict[str, Any]]:
    """What the weights predict for these images, a column each, and the summary of that."""
    kind = programs.kind
    rows = predictions.outputs(programs.predict, weights, data.test(ids), programs.devices)
    columns = predictions.MEASURES[kind](rows)
    types = data.table["type"][columns["id"]]
    return columns, predictions.summarise(kind, columns, types, span=data.span)


def test(
    programs: Programs,
    state: TrainState,
    data: Data,
    resolved: dict[str, Any],
    out: str,
    *,
    untrained: Callable[[], TrainState],
    own: bool,
) -> dict[str, Any]:
    """Evaluates the test part; writes predictions.csv and examples.npz.

    Args:
      out: the folder to write to.
      untrained: makes the state before the first step, for the baselines.
      own: whether the test part is of the run's own data set.

    Returns:
      What belongs into results.json.
    """
    kind, weights, devices = programs.kind, state.weights(), programs.devices
    step = int(jax.device_get(devices.single(state.step)))
    results = {"task": kind, "step": step, "part": "test", **data.protocol(resolved)}
    if not len(data.test_ids):  # trained on everything: other data sets judge it
        return results | {"part": "none", "images": 0, "scores": {}, "per_type": {}}
    columns, summary = measure(programs, weights, data, data.test_ids)
    results |= summary
    if kind == "quality" and resolved["evaluate"]["baselines"] and own:
        _, before = measure(programs, untrained().weights(), data, data.test_ids)
        features = baselines.srcc(data.test(data.test_ids))
        results["baselines"] = {"untrained": before["scores"]["score"]["srcc"], **features}
    chosen = predictions.choose(kind, columns, data.table, resolved["evaluate"]["examples"])
    # All processes take part in every batch, also those that write nothing.
    batches = data.test(sorted(chosen))
    rows = list(predictions.outputs(programs.everything, weights, batches, devices))
    if jax.process_index() == 0:
        storage.make_folder(out)
        predictions.write_table(os.path.join(out, "predictions.csv"), columns, data.table)
        predictions.write_examples(os.path.join(out, "examples.npz"), rows, chosen)
    return results


def write(results: dict[str, Any], out: str, *, report: bool) -> None:
    """Writes results.json, and the report if it is wanted; the first process does."""
    if jax.process_index() != 0:
        return
    storage.make_folder(out)
    configs.write_json(os.path.join(out, "results.json"), results)
    if report:
        reports.write(out)
