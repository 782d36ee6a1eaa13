"""Reads pictures ahead: several at a time, handed on in their order."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Source = TypeVar("Source")
Result = TypeVar("Result")


def in_order(
    read: Callable[[Source], Result], sources: Iterable[Source], workers: int | None = None
) -> Iterator[Result]:
    """What `read` makes of each source, in order; a few are read while earlier ones are used.

    Args:
      workers: threads (None: one a core); 0 reads each source when it is asked for.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if not workers:
        yield from map(read, sources)
        return
    window: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for source in sources:
                window.append(pool.submit(read, source))
                if len(window) > 2 * workers:  # one in work and one done for each thread
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()
