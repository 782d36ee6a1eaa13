"""Splits of a data set by reference: no picture of a reference is on two sides.

A split is an index: number 0, 1, 2, ... of a seed. It depends on the groups' names alone, not
on the order of rows, the machine, or Python's hashing. What the first ten of the public sets are
stands in splits.json, as digests of names.
"""

import functools
import hashlib
import importlib.resources
import json
import math

import numpy as np

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows of training, validation, test, rising

# How the parts are chosen. "legacy_maniqa" and "legacy_release" repeat what is compared with;
# the second has distorted versions of one reference on both sides.
WAYS = ("reference", "official", "all", "legacy_maniqa", "legacy_release")
MANIQA_SEED = 20


def choose(
    table: dict[str, np.ndarray], way: str, index: int, fractions: tuple[float, float, float]
) -> Parts:
    """The parts of a data set.

    Args:
      table: columns group, name, part (of the official split) and order (in the file of labels);
        the last three only where `way` needs them.
      way: "reference": `split`. "official": the set's own; where that has no validation part,
        its training part is split by `split` in the proportion of the first two fractions.
        "all": everything is training, for a test on other sets. "legacy_maniqa" and
        "legacy_release": NumPy's old generator with seed 20 + index shuffles references, or
        images, in the order of the labels; the first 80 % (rounded down) are training, the rest
        test, and there is no validation part.
      index, fractions: as of `split`.

    Raises:
      ValueError: unknown way, or one that the set does not have.
    """
    if way not in WAYS:
        raise ValueError(f"parts {way!r}: known are {list(WAYS)}")
    if way == "reference":
        return split(table["group"], index, fractions)
    every, none = np.arange(len(table["group"]), dtype=np.int32), np.zeros(0, np.int32)
    if way == "all":
        return every, none, none
    if way != "official":
        train = _legacy(table, "group" if way == "legacy_maniqa" else "name", index)
        return every[train], none, every[~train]
    part = table.get("part", np.array([""]))
    rows = {
        name: np.flatnonzero(part == name).astype(np.int32) for name in ("train", "val", "test")
    }
    if not len(rows["train"]) or not len(rows["test"]):
        known = sorted(set(part.tolist()) - {""})
        raise ValueError(f"parts 'official': this set has no such split (it names {known})")
    if not len(rows["val"]) and fractions[1] > 0:
        share = fractions[0] / (fractions[0] + fractions[1])
        held = rows["train"]
        train, val, _ = split(table["group"][held], index, (share, 1 - share, 0.0))
        rows |= {"train": held[train], "val": held[val]}
    return rows["train"], rows["val"], rows["test"]


def _legacy(table: dict[str, np.ndarray], unit: str, index: int) -> np.ndarray:
    """Which rows train, where the order of the labels and an old generator decide."""
    if "order" not in table:
        raise ValueError("parts 'legacy_...': only for sets with a file of labels")
    by_label = table[unit][np.argsort(table["order"], kind="stable")].tolist()
    units = list(dict.fromkeys(by_label))
    np.random.RandomState(MANIQA_SEED + index).shuffle(units)
    return np.isin(table[unit], units[: math.floor(0.8 * len(units))])


def check(table: dict[str, np.ndarray], parts: Parts) -> dict[str, list[str]]:
    """What is on both sides of a split, and so makes its test easier than it looks.

    Returns:
      {"groups": names of groups that are torn apart, "twins": names of images whose very
      pixels, under another name, are in an earlier part too}; both empty where all is well.
    """
    seen = {"group": {}, "content": {}}
    torn, twins = set(), []
    for number, rows in enumerate(parts):
        for key, held in seen.items():
            for row in rows.tolist():
                value = table[key][row].item()
                if held.setdefault(value, number) != number:
                    torn.add(value) if key == "group" else twins.append(str(table["name"][row]))
    return {"groups": sorted(torn), "twins": sorted(twins)}


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


def names_digest(group: np.ndarray, parts: Parts) -> str:
    """SHA-256 of which group is in which part, hexadecimal, whatever the order of rows."""
    sha = hashlib.sha256()
    for rows in parts:
        names = sorted(set(np.asarray(group)[rows].astype(str).tolist()))
        sha.update(("\n".join(names) + "\n\n").encode())
    return sha.hexdigest()


def digests(names: list[str], fractions: tuple[float, float, float]) -> list[str]:
    """Digests of the first ten splits of these groups."""
    group = np.array(sorted(names))
    return [names_digest(group, split(group, index, fractions)) for index in range(10)]


@functools.cache
def committed() -> dict[str, dict]:
    """splits.json: set -> {"groups": count, "60/20/20": ten digests, "80/0/20": ten digests}."""
    file = importlib.resources.files(__package__) / "splits.json"
    return json.loads(file.read_text(encoding="utf-8"))


def is_committed(set_name: str, digest: str) -> bool:
    """Whether a split is one of those that are written down."""
    known = committed().get(set_name.partition("@")[0], {})
    return any(digest in ten for ten in known.values() if isinstance(ten, list))


def _round(x: float) -> int:
    # 0.6 + 0.2 is a hair off 0.8: what is meant to be a half must count as one.
    return math.floor(x + 0.5 + 1e-9)


def _check_fractions(fractions: tuple[float, ...]) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1):
        raise ValueError(f"fractions={fractions} must be three parts of 1, none below 0")
