"""Splits of a data set by reference: no picture of a reference is on two sides.

A split is an index: number 0, 1, 2, ... of a seed. It depends on the groups' names alone, not
on the order of rows, the machine, or Python's hashing.
"""

import hashlib
import math

import numpy as np


def split(
    group: np.ndarray,
    index: int,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of the training, validation and test part, int32, each rising.

    The sorted names of the n groups are shuffled by PCG64 with the key (seed, index). Training
    takes those before round(n * fractions[0]), validation those from there to
    round(n * (fractions[0] + fractions[1])), the test the rest; halves are rounded up. So a
    reference set of 81 (KADID) is 65 and 16 at (0.8, 0, 0.2).

    Args:
      group: the reference of each row, (rows,) of str or int.
      index: which of the seed's splits, at least 0.
      fractions: of training, validation and test; at least 0, together 1.
      seed: of all splits, at least 0.

    Raises:
      ValueError: fractions are not three parts of 1, or there are too few groups to fill each
        part that shall not be empty.
    """
    _check_fractions(fractions)
    names, row_group = np.unique(np.asarray(group), return_inverse=True)
    order = np.random.Generator(np.random.PCG64([seed, index])).permutation(len(names))
    ends = [_round(len(names) * sum(fractions[: part + 1])) for part in range(3)]
    parts = [order[start:end] for start, end in zip([0, *ends[:2]], ends, strict=True)]
    for part, fraction in zip(parts, fractions, strict=True):
        if fraction > 0 and not len(part):
            raise ValueError(f"{len(names)} groups are too few to split them by {fractions}")
    rows = [np.flatnonzero(np.isin(row_group, part)).astype(np.int32) for part in parts]
    return rows[0], rows[1], rows[2]


def digest(*parts: np.ndarray) -> str:
    """SHA-256 of the parts of a split, hexadecimal; to be kept beside results."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(np.asarray(part, "<i8").tobytes())
    return sha.hexdigest()


def _round(x: float) -> int:
    # 0.6 + 0.2 is a hair off 0.8: what is meant to be a half must count as one.
    return math.floor(x + 0.5 + 1e-9)


def _check_fractions(fractions: tuple[float, ...]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1):
        raise ValueError(f"fractions={fractions} must be three parts of 1, none below 0")
