"""What a run reports of itself: metrics, TensorBoard, time left, its log, versions, results."""

import calendar
import collections
import contextlib
import json
import logging
import math
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import jax

from diffv2iqa_jax import storage
from diffv2iqa_jax.config import write_json
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import profiling
from diffv2iqa_jax.training.stopping import Preempted

LOG = logging.getLogger(__name__)
AHEAD = 2  # steps that devices have before them, so that they need not wait for the loop
OURS = logging.getLogger("diffv2iqa_jax")  # every line of ours goes through it
TIME = "%Y-%m-%d %H:%M:%S UTC"
EXPECTED = (ConfigError, Preempted, FloatingPointError)  # one line tells all of these


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
        self._mark, self._sent, self._seconds = self._clock, collections.deque(), []
        self._board = None
        self.validated = False  # whether step `start` was
        self._useful, self._counted = 0.0, 0  # seconds of the kept steps up to this one
        if quiet:
            return
        self._began = _first_started(workdir)
        self._lines, kept = _cut(os.path.join(workdir, "metrics.jsonl"), start)
        for line in kept:
            if "train/useful_s" in line:
                self._useful, self._counted = line["train/useful_s"], line["step"]
            if line["step"] == start:
                self.validated |= any(key.startswith("val/") for key in line)
        if tensorboard:
            self._board = _board(workdir)

    def watch(self, batches: Iterable) -> Iterator:
        """Yields the same batches and measures how long the loop waits for them."""
        start = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - start
            yield batch
            start = time.monotonic()

    def sent(self, metrics: Any) -> None:
        """A step was sent to the devices. Waits until no more than AHEAD steps are on their way."""
        self._sent.append(metrics)
        self._wait(AHEAD)

    def _wait(self, ahead: int = 0) -> None:
        """Waits for steps to end. A step's time runs from the end of the step before it."""
        while len(self._sent) > ahead:
            jax.block_until_ready(self._sent.popleft())
            now = time.monotonic()
            self._seconds.append(now - self._mark)
            self._mark = now

    def train(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of a training step, and what the steps since the last call took.

        configs/README.md says what each of these numbers is.
        """
        self._wait()
        if self._quiet:
            return
        now = time.monotonic()
        passed = max(now - self._clock, 1e-9)
        steps_per_s = (step - self._step) / passed
        input_wait = min(self._waited / passed, 1.0)
        self._clock, self._step, self._waited = now, step, 0.0
        left = time.strftime("%H:%M:%S", time.gmtime((self._steps - step) / steps_per_s))
        values = {f"train/{k}": v for k, v in values.items()}
        values |= {"train/images_per_s": steps_per_s * self._batch, "train/input_wait": input_wait}
        costs = self._durations(step) | profiling.memory()
        self.write(step, values, f"  eta {left}", {f"train/{k}": v for k, v in costs.items()})

    def _durations(self, step: int) -> dict[str, float]:
        """What the steps since the last call took, and the useful share of the whole run's time."""
        seconds, self._seconds = self._seconds, []
        if not seconds:
            return {}
        median = statistics.median(seconds)
        # The median, so that compiling, saving and stalls within these steps count as lost.
        self._useful += (step - self._counted) * median
        self._counted = step
        return {
            "step_s": median,
            "step_s_std": statistics.pstdev(seconds),
            "step_s_max": max(seconds),
            "useful_s": self._useful,
            "goodput": min(self._useful / max(time.time() - self._began, 1e-9), 1.0),
        }

    def write(
        self,
        step: int,
        values: dict[str, float | None],
        tail: str = "",
        unprinted: dict[str, float] | None = None,
    ) -> None:
        """Writes any metrics, those that are not finite as null.

        Args:
          tail: ends the printed line.
          unprinted: more metrics, which the printed line has no room for.
        """
        if self._quiet:
            return
        values = {k: _finite(v) for k, v in values.items()}
        text = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if v is not None)
        values |= {k: _finite(v) for k, v in (unprinted or {}).items()}
        self._lines.add(json.dumps({"step": step, **values}, allow_nan=False))
        if self._board is not None:
            self._board.write_scalars(step, {k: v for k, v in values.items() if v is not None})
        LOG.info("step %d/%d  %s%s", step, self._steps, text, tail)

    def pause(self) -> None:
        """Stops the clock of the speed until `resume` is called."""
        self._wait()
        self._paused = time.monotonic()

    def resume(self) -> None:
        """Starts the clock again."""
        paused = time.monotonic() - self._paused
        self._clock += paused
        self._mark += paused

    def close(self) -> None:
        """Writes out what TensorBoard's writer still holds."""
        if self._board is not None:
            self._board.flush()
            self._board.close()


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _cut(path: str, step: int) -> tuple[storage.Lines, list[dict[str, Any]]]:
    """Drops the log's lines after `step`, and a line that a killed run left unfinished.

    Returns:
      The file, to add to, and the lines that are left.
    """
    kept = []

    def keep(text: str) -> bool:
        try:
            line = json.loads(text)
            if line["step"] > step:
                return False
        except (ValueError, KeyError, TypeError):
            return False
        kept.append(line)
        return True

    return storage.Lines(path, keep), sorted(kept, key=lambda line: line["step"])


@contextlib.contextmanager
def process_log(workdir: str) -> Iterator[None]:
    """Within it our own lines also go to WORKDIR/logs/process-N.log, of process N.

    So does what ends it: an error that is not one of EXPECTED with its class and traceback. A run
    that is started again appends.
    """
    index = jax.process_index()
    handler = _Appending(os.path.join(workdir, "logs", f"process-{index}.log"))
    form = f"%(asctime)s process {index}: %(message)s"
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))

    def note(text: str, error: BaseException | None = None) -> None:
        about = (type(error), error, error.__traceback__) if error else None
        handler.handle(logging.LogRecord(OURS.name, logging.INFO, "", 0, text, None, about))

    OURS.addHandler(handler)
    start = f"started, one of {jax.process_count()}, on {socket.gethostname()}"
    note(f"{start}: {' '.join(_command())}")
    try:
        yield
    except BaseException as error:
        expected = isinstance(error, EXPECTED)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        note(text, None if expected else error)
        raise
    finally:
        OURS.removeHandler(handler)


class _Appending(logging.Handler):
    """Appends each line to a file as soon as it is there; stops where that cannot be."""

    def __init__(self, path: str):
        super().__init__()
        self._path, self._lines = path, None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._lines is None:
                storage.make_folder(os.path.dirname(self._path))
                self._lines = storage.Lines(self._path)
            self._lines.add(self.format(record))
        except OSError as error:
            self.setLevel(logging.CRITICAL + 1)  # else each line would say the same
            LOG.warning("%s: cannot be written (%s)", self._path, error.strerror)


def _board(workdir: str) -> Any:
    """A writer of TensorBoard files, or None without clu or TensorFlow."""
    if storage.is_remote(workdir):  # its writer of files knows no bucket but TensorFlow's own
        LOG.info("no TensorBoard files in a bucket: metrics.jsonl has the same numbers")
        return None
    try:
        from clu import metric_writers
    except ImportError as error:
        LOG.warning("no TensorBoard files: %s", error)
        return None
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(os.path.join(workdir, "tb")))


def finished(workdir: str) -> dict[str, Any] | None:
    """Reads a run's results.json; None if it has none."""
    path = os.path.join(workdir, "results.json")
    if not storage.exists(path):
        return None
    return json.loads(storage.read(path))


def write_environment(workdir: str) -> None:
    """Writes env.json: `environment`, and when the run first started; the first process does."""
    if jax.process_index() == 0:
        first = time.strftime(TIME, time.gmtime(_first_started(workdir)))
        write_json(_env(workdir), environment() | {"first_started": first})


def _env(workdir: str) -> str:
    return os.path.join(workdir, "env.json")


def _first_started(workdir: str) -> float:
    """When a process first worked on this run, in seconds since 1970; else now."""
    try:
        started = json.loads(storage.read(_env(workdir)))["first_started"]
        return calendar.timegm(time.strptime(started, TIME))
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
        return time.time()


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on, as far as they are installed."""
    names = "diffv2iqa_jax jax jaxlib flax optax orbax-checkpoint numpy tensorflow-cpu libtpu"
    installed = {}
    for name in names.split():
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def environment() -> dict[str, Any]:
    """Versions, devices and command of this process."""
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "devices": [str(d) for d in jax.devices()][:8],
        "processes": jax.process_count(),
        "argv": _command(),
        "started": time.strftime(TIME, time.gmtime()),
    }


def _command() -> list[str]:
    return [os.path.basename(sys.argv[0]), *sys.argv[1:]]
