"""What a run reports of itself: metrics, TensorBoard, time left, versions, results."""

import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import jax

from diffv2iqa_jax.config import write_json

LOG = logging.getLogger(__name__)


class Log:
    """Writes the metrics of a run.

    Cuts metrics.jsonl back to the step that a run resumes from, so that it holds every step
    once. clu writes the TensorBoard files and needs TensorFlow; without it there are none.

    Args:
      workdir: the run's folder.
      start: the step to resume from.
      steps: number of steps of the whole run, for the time left.
      batch: images per step.
      tensorboard: also write TensorBoard files.
      quiet: write nothing (every process but the first).
    """

    def __init__(
        self, workdir: str, *, start: int, steps: int, batch: int, tensorboard: bool, quiet: bool
    ):
        self._steps, self._batch, self._quiet = steps, batch, quiet
        self._clock, self._step, self._waited = time.monotonic(), start, 0.0
        self._path = os.path.join(workdir, "metrics.jsonl")
        self._board = None
        if quiet:
            return
        _cut(self._path, start)
        if tensorboard:
            self._board = _board(workdir)

    def watch(self, batches: Iterable) -> Iterator:
        """Yields the same batches and measures how long the loop waits for them."""
        start = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - start
            yield batch
            start = time.monotonic()

    def train(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of a training step, with the speed since the last call.

        `input_wait` is the share of that time that the loop spent waiting for data.
        """
        now = time.monotonic()
        passed = max(now - self._clock, 1e-9)
        steps_per_s = (step - self._step) / passed
        input_wait = min(self._waited / passed, 1.0)
        self._clock, self._step, self._waited = now, step, 0.0
        left = time.strftime("%H:%M:%S", time.gmtime((self._steps - step) / steps_per_s))
        values = {f"train/{k}": v for k, v in values.items()}
        values |= {"train/images_per_s": steps_per_s * self._batch, "train/input_wait": input_wait}
        self.write(step, values, f"  eta {left}")

    def write(self, step: int, values: dict[str, float | None], tail: str = "") -> None:
        """Writes any metrics, those that are not finite as null; `tail` ends the printed line."""
        if self._quiet:
            return
        values = {k: _finite(v) for k, v in values.items()}
        with open(self._path, "a") as file:
            file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        if self._board is not None:
            self._board.write_scalars(step, {k: v for k, v in values.items() if v is not None})
        text = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if v is not None)
        LOG.info("step %d/%d  %s%s", step, self._steps, text, tail)

    def pause(self) -> None:
        """Stops the clock of the speed until `resume` is called."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        """Starts the clock again."""
        self._clock += time.monotonic() - self._paused

    def close(self) -> None:
        """Writes out what TensorBoard's writer still holds."""
        if self._board is not None:
            self._board.flush()
            self._board.close()


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _cut(path: str, step: int) -> None:
    """Drops the log's lines after `step`, and a line that a killed run left unfinished."""
    if not os.path.exists(path):
        return
    kept = []
    with open(path) as file:
        for line in file:
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError):
                continue
    with open(path + ".tmp", "w") as file:
        file.writelines(kept)
    os.replace(path + ".tmp", path)


def _board(workdir: str) -> Any:
    """A writer of TensorBoard files, or None without clu or TensorFlow."""
    try:
        from clu import metric_writers
    except ImportError as error:
        LOG.warning("no TensorBoard files: %s", error)
        return None
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(os.path.join(workdir, "tb")))


def finished(workdir: str) -> dict[str, Any] | None:
    """Reads a run's results.json; None if it has none."""
    path = os.path.join(workdir, "results.json")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def write_environment(workdir: str) -> None:
    """Writes env.json: versions, devices and command of this process; the first process does."""
    if jax.process_index() == 0:
        write_json(os.path.join(workdir, "env.json"), environment())


def environment() -> dict[str, Any]:
    """Versions, devices and command of this process."""
    packages = "diffv2iqa_jax jax jaxlib flax optax orbax-checkpoint numpy".split()
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "versions": versions,
        "devices": [str(d) for d in jax.devices()][:8],
        "processes": jax.process_count(),
        "argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
