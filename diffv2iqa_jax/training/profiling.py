"""What a run costs: a trace of some of its steps, and the memory that it takes."""

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
from etils import epath

from diffv2iqa_jax.errors import ConfigError

LOG = logging.getLogger(__name__)
STEP = "train"  # the name of a step in a trace


class Profile:
    """Traces steps FIRST to LAST. Used in a with statement around the loop of steps.

    The trace lies in WORKDIR/profile/process-N, for TensorBoard's profile page and for XProf. A
    run that resumes inside of the window traces what is left of it.

    Args:
      workdir: the run's folder.
      window: "FIRST:LAST", counted from 1, which process 0 traces; every process traces
        "FIRST:LAST:all". None traces nothing.

    Raises:
      ConfigError: the window has another form.
    """

    def __init__(self, workdir: str, window: str | None):
        first, last, everywhere = check(window)
        mine = everywhere or jax.process_index() == 0
        self._window = range(first, last + 1) if mine else range(0)
        self._target = os.path.join(workdir, "profile", f"process-{jax.process_index()}")
        self._folder: tempfile.TemporaryDirectory | None = None

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Within it the step `number` happens."""
        if self._folder is None and number in self._window:
            # On a disk of this host, since the profiler knows no other storage.
            self._folder = tempfile.TemporaryDirectory()
            # Without Python's calls: of a step that compiles they are more than the million events
            # that a trace's page keeps, and the steps after it are lost from the page.
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._folder.name, profiler_options=options)
        with jax.profiler.StepTraceAnnotation(STEP, step_num=number):
            yield

    def sent(self, number: int, results: Any) -> None:
        """The step was sent to the devices; the window's last one is waited for."""
        if self._folder is not None and number >= self._window[-1]:
            jax.block_until_ready(results)
            self._stop()

    def _stop(self) -> None:
        """Ends the trace and moves it to the run's folder; what it lacks there stops no run."""
        with self._folder as folder:
            jax.profiler.stop_trace()
            target = epath.Path(self._target)
            try:
                for path in filter(Path.is_file, Path(folder).rglob("*")):
                    copy = target / str(path.relative_to(folder))
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(path.read_bytes())
                LOG.info("profile: tensorboard --logdir %s", target.parent)
            except OSError as error:
                LOG.warning("profile: %s cannot be written (%s)", target, error)
        self._folder, self._window = None, range(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:  # the steps end inside of the window
            self._stop()
        elif self._window and error is None:
            LOG.warning("profile: none of its steps was trained here; nothing is traced")


def check(window: str | None) -> tuple[int, int, bool]:
    """First and last step, and whether every process traces; (1, 0, False) for None.

    Raises:
      ConfigError: it is not of the form that `Profile` takes.
    """
    if window is None:
        return 1, 0, False
    match = re.fullmatch(r"(\d+):(\d+)(:all)?", window)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f"--profile {window}: must be FIRST:LAST, steps from 1, or FIRST:LAST:all to trace "
            "every process"
        )
    return int(match[1]), int(match[2]), match[3] is not None


def memory() -> dict[str, float]:
    """Peaks since the process started, in GiB.

    Returns:
      device_memory_gib, of the fullest of this process's devices, where these tell (a CPU does
      not); host_memory_gib, of this process, where the system tells.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    figures = {"device_memory_gib": max(peaks) / 2**30} if peaks else {}
    try:
        import resource
    except ImportError:  # Windows
        return figures
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return figures | {"host_memory_gib": peak / 2**30}
