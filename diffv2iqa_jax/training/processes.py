"""Several processes of one run: they start, wait for each other, agree and end together.

JAX alone takes 100 seconds to notice a process that died, and never ends the others where one
refuses its configuration. Here a thread of each process looks every POLL seconds whether another
has failed or is silent, and then ends this one with the exit code that says why. All of it goes
through the key-value store of JAX's coordination service, so it works before anything compiles and
while a device computes. With one process nothing here waits.
"""

import collections
import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the store has no public name

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import EXIT_CONFIG, EXIT_LOST, EXIT_NOT_FINITE, ConfigError, reason

POLL = 0.5  # seconds
# Together below 20 seconds. No process is without the interpreter for so long: compiling and
# waiting for devices leave it to the thread that gives the signs of life.
SILENT = 12.0  # seconds without a sign of life: the process is lost
LEAVE = 4.0  # seconds that the first process, which holds the store, waits for the others to leave
SEEN_WITHIN = 5.0  # seconds until another host sees a file: NFS keeps what it knew for some
FOREVER = 2**31 - 1  # milliseconds: the thread ends the waiting, no clock
ALIVE, FAILED, LEAVING = "diffv2iqa/alive", "diffv2iqa/failed", "diffv2iqa/leaving"
FIRST = "diffv2iqa/first"  # the first process's sign of life once more, apart from the others'
# Exit codes that the others end with too: where one is refused, all are.
SHARED = (EXIT_CONFIG, EXIT_NOT_FINITE)
# How the collectives of CPUs, GPUs and TPUs say that another process is gone.
CONNECTION = re.compile(r"gloo|nccl|unavailable|closed by peer|connection reset|heartbeat", re.I)

_uses: collections.Counter[str] = collections.Counter()  # of each name: keys are used once
_watch: "_Watch | None" = None


def start(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    automatic: bool = False,
) -> None:
    """Connects the processes of this run, and from then on ends them together.

    Args:
      coordinator: HOST:PORT of the first process; goes with the next two.
      num_processes, process_id: how many there are, and which of them this is, from 0.
      automatic: JAX finds the others (TPU pods, SLURM, MPI).

    Raises:
      ConfigError: only some of the three are given, or they cannot be; the others did not come.
    """
    global _watch
    given = [x is not None for x in (coordinator, num_processes, process_id)]
    if not any(given) and not automatic:
        return
    if any(given) and not all(given):
        raise ConfigError("--coordinator, --num_processes and --process_id: go together")
    if any(given) and not (":" in coordinator and 0 <= process_id < num_processes):
        raise ConfigError(
            f"--coordinator {coordinator} --num_processes {num_processes} --process_id "
            f"{process_id}: must be HOST:PORT, a number, and one from 0 to below it"
        )
    # Two processes on CPUs need a library that connects them; other devices have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # Where all three are given, JAX would still look for a cluster, and in SLURM take one of
        # the host's GPUs for each process.
        detection = "deactivate" if coordinator else None
        jax.distributed.initialize(
            coordinator, num_processes, process_id, cluster_detection_method=detection
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the other processes: {' '.join(str(error).split())[:300]}") from error
    if jax.process_count() > 1:
        _watch = _Watch()
        _watch.start()
        counts = exchange("count", str(num_processes or jax.process_count()))
        if len(set(counts)) > 1:
            raise ConfigError(f"--num_processes: processes say {', '.join(sorted(set(counts)))}")


def count() -> int:
    """How many processes there are; starts no device."""
    return distributed.global_state.num_processes if _watch else 1


def index() -> int:
    """Which process this is, from 0; starts no device."""
    return distributed.global_state.process_id if _watch else 0


def exchange(name: str, text: str, timeout_s: float | None = None) -> list[str]:
    """The texts of all processes, in their order. Every process has to call it.

    Raises:
      TimeoutError: another process did not come in time.
    """
    if _watch is None:
        return [text]
    _uses[name] += 1
    folder = f"diffv2iqa/exchange/{name}/{_uses[name]}"
    distributed.global_state.client.key_value_set(f"{folder}/{index():06d}", text)
    _wait(folder, timeout_s)
    return [value for _, value in sorted(distributed.global_state.client.key_value_dir_get(folder))]


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if _watch is not None:
        _uses[name] += 1
        _wait(f"diffv2iqa/barrier/{name}/{_uses[name]}", None)


def _wait(key: str, timeout_s: float | None) -> None:
    limit = FOREVER if timeout_s is None else int(1000 * timeout_s)
    try:
        distributed.global_state.client.wait_at_barrier(key, limit)
    except jax.errors.JaxRuntimeError as error:
        raise TimeoutError(f"{key}: {' '.join(str(error).split())[:200]}") from error


def agree(what: str, facts: dict[str, Any]) -> None:
    """Refuses facts that are not the same on all processes.

    Raises:
      ConfigError: on every process: what differs, and on which.
    """
    every = [json.loads(text) for text in exchange(f"agree on {what}", json.dumps(facts))]
    for number, others in enumerate(every[1:], 1):
        changed = configs.differences(every[0], others)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ConfigError(
                f"{what}: process 0 and process {number} differ in {', '.join(changed[:3])}{more}; "
                "start the same on every host"
            )


def first(action: Callable[[], Any]) -> None:
    """The first process does it while the others wait; what it refuses ends all."""
    if index() == 0:
        action()
    barrier("first")


def after_the_first(action: Callable[[], Any]) -> Any:
    """All do it, the others once the first is done: it makes what they only read."""
    result = action() if index() == 0 else None
    barrier("after the first")
    return action() if index() else result


def same_storage(folder: str) -> None:
    """Refuses a folder that is not the same place for all processes; leaves it as it is.

    Every process writes a file there and looks for those of all.

    Raises:
      ConfigError: a process cannot write there, or does not see what another wrote.
    """
    place = storage.path(folder)
    parents = () if storage.is_remote(folder) else (place, *place.parents)
    absent = [path for path in parents if not path.exists()]
    barrier("absent")  # before one of them makes it
    seal, problem = place / f".sealed-{index()}-{time.time_ns()}", ""
    try:
        storage.make_folder(folder)
        seal.write_text("")
    except OSError as error:
        problem = f"workdir {folder}: cannot be written ({reason(error)})"
    seals = exchange("sealed", "" if problem else seal.name)
    until = time.monotonic() + SEEN_WITHIN
    missing = [name for name in seals if name and not (place / name).exists()]
    while missing and time.monotonic() < until:
        time.sleep(0.2)
        missing = [name for name in missing if not (place / name).exists()]
    if missing and not problem:
        lost = ", ".join(str(seals.index(name)) for name in missing)
        problem = (
            f"workdir {folder}: what process {lost} wrote is not there for process {index()}; "
            "name a folder that all hosts share, on a network file system or in a bucket"
        )
    problems = exchange("seen", problem)
    with contextlib.suppress(OSError):  # it could not be written
        seal.unlink()
    barrier("removed")
    for path in absent:
        with contextlib.suppress(OSError):  # another process removed it, or the folder has a use
            path.rmdir()
    if any(problems):
        raise ConfigError(problem or next(filter(None, problems)))


def put(key: str, text: str) -> None:
    """Leaves a text for every process."""
    if _watch is not None:
        distributed.global_state.client.key_value_set(key, text, allow_overwrite=True)


def there(key: str) -> bool:
    """Whether a process has left a text under this key or one below it."""
    return _watch is not None and bool(distributed.global_state.client.key_value_dir_get(key))


def each_poll(action: Callable[[], None]) -> None:
    """Calls it every POLL seconds from the thread that watches the others, if there are any."""
    if _watch is not None:
        _watch.actions.append(action)


def fail(message: str, code: int) -> None:
    """Tells the others why this process ends, and ends it; does nothing if it is the only one.

    The others end with `code` too where they would fail as this one does, else with EXIT_LOST.
    """
    if _watch is not None:
        _watch.fail(message, code)


def said_by(error: Exception) -> str | None:
    """One line for an error that only says that another process is gone; None for others."""
    text = " ".join(str(error).split())
    if _watch is None or not CONNECTION.search(text):
        return None
    return f"another process was lost ({text[:160]}); run the same command again"


def end() -> None:
    """Waits for all, then leaves the others in order."""
    global _watch
    if _watch is not None:
        barrier("end")
        _watch.stop()
        _watch = None
        jax.distributed.shutdown()


class _Watch(threading.Thread):
    """Gives signs of life, and ends this process when another has failed or gives none."""

    def __init__(self) -> None:
        super().__init__(name="other processes", daemon=True)
        self._client = distributed.global_state.client
        self._count = distributed.global_state.num_processes
        self._index = distributed.global_state.process_id
        self._ended, self._leaving = threading.Event(), threading.Lock()
        self.actions: list[Callable[[], None]] = []

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        beats, seen = 0, {}
        while not self._ended.wait(POLL):
            beats += 1
            try:
                for folder in (ALIVE, FIRST)[: 1 + (self._index == 0)]:
                    self._put(folder, str(beats))
                for key, text in self._client.key_value_dir_get(FAILED):
                    code, _, message = text.partition(" ")
                    self._leave(f"process {_number(key)}: {message}", int(code))
                self._look(seen)
                for action in self.actions:
                    action()
            except Exception as error:  # the store is gone, and with it the process that holds it
                why = " ".join(str(error).split())[:160]
                self._leave(f"process 0 was lost ({why}); run the same command again", EXIT_LOST)

    def _put(self, folder: str, text: str) -> None:
        self._client.key_value_set(f"{folder}/{self._index:06d}", text, allow_overwrite=True)

    def _look(self, seen: dict[int, tuple[str, float]]) -> None:
        """Ends this process if one is silent, by what was `seen` of each and when.

        The first looks at all, the others at the first, so that the store is asked little.
        """
        now = time.monotonic()
        for key, value in self._client.key_value_dir_get(FIRST if self._index else ALIVE):
            number = _number(key)
            if number not in seen or seen[number][0] != value:
                seen[number] = (value, now)
            elif now - seen[number][1] > SILENT:
                text = f"process {number} was lost, no sign of life for {SILENT:.0f} seconds"
                print(f"error: {text}", file=sys.stderr, flush=True)
                self.fail(f"{text}; run the same command again", EXIT_LOST)

    def fail(self, message: str, code: int) -> NoReturn:
        """Leaves the message for the others, and ends this process."""
        try:
            self._put(
                FAILED, f"{code if code in SHARED else EXIT_LOST} {' '.join(message.split())}"
            )
        finally:
            self._leave("", code)

    def _leave(self, message: str, code: int) -> NoReturn:
        """Ends this process; the first one waits until the others have read why."""
        with self._leaving:  # the loop and this thread may both want to
            if message:
                print(f"error: {message}", file=sys.stderr, flush=True)
            try:
                self._put(LEAVING, "")
                until = time.monotonic() + LEAVE
                while self._index == 0 and time.monotonic() < until:
                    if len(self._client.key_value_dir_get(LEAVING)) == self._count:
                        break
                    time.sleep(0.1)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)  # the orderly way waits for processes that are gone


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])
