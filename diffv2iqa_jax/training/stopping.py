"""Asked to stop: several processes agree on the step, and what is saved goes on later."""

from collections.abc import Callable

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to stop; everything is saved, the same command goes on."""


def stopping(stop: Callable[[], bool], step: int) -> bool:
    """Whether to stop before this step; several processes agree on it."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return stop()
