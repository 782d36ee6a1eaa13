"""Reads pictures ahead: several at a time, handed on in their order."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

CORES = os.cpu_count() or 1
Source = TypeVar("Source")
Result = TypeVar("Result")


def in_order(
    read: Callable[[Source], Result], sources: Iterable[Source], *, workers: int, window: int
) -> Iterator[Result]:
    """What `read` makes of each source, in order; threads read some while earlier ones are used.

    Args:
      workers: threads; 0 reads each source when it is asked for.
      window: sources in work or waiting to be asked for, at most.
    """
    if not workers:
        yield from map(read, sources)
        return
    futures: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for source in sources:
                futures.append(pool.submit(read, source))
                if len(futures) > window:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()
