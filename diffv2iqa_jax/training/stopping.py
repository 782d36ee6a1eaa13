"""Asked to stop: several processes agree on the step, and what is saved goes on later."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from diffv2iqa_jax.training import processes

ASKED = "diffv2iqa/stop"
AGREED_WITHIN = 10.0  # seconds: below the silence after which a process counts as lost


class Preempted(Exception):
    """The run was asked to stop; everything is saved, the same command goes on."""


class Stop:
    """Whether to stop, which a signal to any one process asks of all.

    Called, it says so at the same call on every process, so all have to call it at the same
    places: before each training step, and before each batch of an evaluation.

    The processes send steps to their devices at their own pace. So each of them says how often it
    was called, nobody goes past a call meanwhile, and all stop at the call after the last of these.
    """

    def __init__(self) -> None:
        self._asked, self._posted = False, False
        self._calls, self._last = 0, None
        self._lock = threading.Lock()
        processes.each_poll(self._agree)

    def ask(self) -> None:
        """Asks for it; safe within the handler of a signal."""
        self._asked = True

    def asked(self) -> bool:
        """Whether one of the processes was asked; they learn of it one after the other."""
        return self._asked

    def __call__(self) -> bool:
        if processes.count() == 1:
            return self._asked
        with self._lock:
            self._calls += 1
            return self._last is not None and self._calls >= self._last

    def _agree(self) -> None:
        if self._asked and not self._posted:
            processes.put(f"{ASKED}/{processes.index()}", "")
            self._posted = True
        if self._last is None and processes.there(ASKED):
            self._asked = True
            with self._lock:
                calls = processes.exchange("stop", str(self._calls), AGREED_WITHIN)
                self._last = max(map(int, calls)) + 1


def asked(stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop` for work that processes do apart from each other."""
    return stop.asked if isinstance(stop, Stop) else stop


def until(stop: Callable[[], bool], batches: Iterable[Any], where: str) -> Iterator[Any]:
    """The batches. Raises Preempted before one of them if `stop` says so."""
    for batch in batches:
        if stop():
            raise Preempted(where)
        yield batch
