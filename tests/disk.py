"""A disk that is full, for tests."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full(after: int = 0) -> Iterator[None]:
    """No file can grow beyond so many bytes: writing more is refused, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
