"""Times what runs again and again."""

import time
from collections.abc import Callable

import jax
import numpy as np


def times(run: Callable[[int], object], repeat: int) -> dict[str, float]:
    """Times run(0), run(1), ...; run(-2) and run(-1) before them warm up.

    Returns:
      ms, the median in milliseconds; aa_percent, the difference between the medians of every other
      run, in percent of ms: what is smaller than it is noise.
    """
    seconds = []
    for i in range(-2, repeat):
        start = time.perf_counter()
        jax.block_until_ready(run(i))
        seconds.append(time.perf_counter() - start)
    ms = 1e3 * np.array(seconds[2:])
    whole, even, odd = (float(np.median(x)) for x in (ms, ms[::2], ms[1::2]))
    return {"ms": whole, "aa_percent": 100 * abs(even - odd) / whole}
