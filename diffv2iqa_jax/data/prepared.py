"""A set that was prepared before, beside what it would be made of now: what differs."""

import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffv2iqa_jax.data.sets import catalog, facts
from diffv2iqa_jax.data.sets.catalog import LayoutError, Row, Set
from diffv2iqa_jax.pp.ahead import CORES, in_order
from diffv2iqa_jax.pp.decode import Reading

AT_ONCE = 64  # images read ahead


def held(name: str, folder: str) -> dict[str, Any]:
    """The facts kept with a set that is there."""
    path = catalog.place(name, folder) / "metadata.json"  # where TensorFlow Datasets puts them
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def differences(
    name: str, folder: str, spec: Set, rows: list[Row], reading: Reading
) -> tuple[list[str], str]:
    """What differs between a set that is there and one made of these rows, a line each.

    Files are compared by their sizes and times and, where these differ, by their pixels.

    Args:
      name: of the set.
      folder: the folder of all sets.
      spec, rows: of what it would be made of now.
      reading: how image files would be read.

    Returns:
      The lines, none if it is the same; and what could not be compared, "" if everything was.
    """
    old = held(name, folder)
    lines = [
        f"{key}: {before} there, {now} now"
        for key, before, now in (
            ("scale", _scale(*old["scale"]), _scale(spec.low, spec.high)),
            ("higher is better", old["higher_is_better"], spec.higher),
            ("--labels", old.get("labels", spec.opinions), spec.opinions),
            ("--icc", old.get("icc", reading.icc), reading.icc),
            ("--orientation", old.get("orientation", reading.orientation), reading.orientation),
        )
        if before != now
    ]
    if "rows_sha256" not in old:  # made by an earlier version
        if old["labels_sha256"] != facts.labels_sha256(rows):
            lines += _of_rows(name, folder, rows, old)
        return lines, "its files, as an earlier version prepared it"
    if old["rows_sha256"] != facts.rows_sha256(rows):
        lines += _of_rows(name, folder, rows, old) or ["references: others than there"]
    elif not lines and old["files_sha256"] != facts.files_sha256(rows):
        lines += _of_pixels(name, folder, spec, rows, reading)
    return lines, ""


def _scale(low: float, high: float) -> str:
    return f"{low:g}..{high:g}"


def _table(name: str, folder: str) -> dict[str, np.ndarray]:
    from diffv2iqa_jax.data import reading  # imports TensorFlow, which takes seconds

    return reading.load(name, folder).table


def _of_rows(name: str, folder: str, rows: list[Row], old: dict[str, Any]) -> list[str]:
    table = _table(name, folder)
    keys = ("native", "group", "type", "level", "part")
    columns = (table[key].tolist() for key in keys)
    before = dict(zip(table["name"].tolist(), zip(*columns, strict=True), strict=True))
    now = {r.name: (_float(r.native), r.group, r.type, r.level, r.part) for r in rows}
    known = before.keys() | set(old.get("left_out", ()))
    lines = _listed("images", "are new", sorted(now.keys() - known))
    lines += _listed("images", "are gone", sorted(known - now.keys()))
    common = sorted(before.keys() & now.keys())
    for place, key in enumerate(("labels", *keys[1:])):
        pairs = ((one, before[one][place], now[one][place]) for one in common)
        other = [f"{one}: {a} there, {b} now" for one, a, b in pairs if _text(a) != _text(b)]
        lines += _listed(key, "differ", other)
    return lines


def _float(native: float | None) -> float:
    """As it is stored."""
    return float(np.float32(np.nan if native is None else native))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)  # NaN equals itself


def _listed(what: str, how: str, names: list[str]) -> list[str]:
    return [f"{what}: {len(names)} {how}, first {names[0]}"] if names else []


def _of_pixels(name: str, folder: str, spec: Set, rows: list[Row], reading: Reading) -> list[str]:
    from diffv2iqa_jax.data import reading as sets
    from diffv2iqa_jax.data.sets import store

    source = sets.load(name, folder)
    encode = functools.partial(store.encoded, spec=spec, reading=reading)
    files = [(source.table, [(r.name, r.image) for r in rows])]
    if source.originals is not None:
        paths = sorted({r.reference for r in rows if r.reference})
        files.append((source.originals.table, [(p.name, p) for p in paths]))
    other = []
    for table, named in files:
        stored = dict(zip(table["name"].tolist(), table["content"].tolist(), strict=True))
        contents = _contents(encode, [path for _, path in named])
        pairs = zip(named, contents, strict=True)
        other += [name for (name, _), content in pairs if content != stored.get(name)]
    return _listed("files", "hold other pictures", other)


def _contents(encode: Callable[[Path], tuple], paths: Iterable[Path]) -> Iterator[int | None]:
    """CRC-32 of the pixels of each file; None where it cannot be read."""

    def content(path: Path) -> int | None:
        try:
            return encode(path)[1]
        except LayoutError:
            return None

    return in_order(content, paths, workers=CORES, window=AT_ONCE)


def same_archive(name: str, folder: str, source: str, reading: Reading) -> bool:
    """Whether a set was made of this very archive with these options; nothing is unpacked."""
    old = held(name, folder)
    options = {"icc": reading.icc, "orientation": reading.orientation}
    known = old.get("archive")
    return bool(known) and known == facts.archive(source) and options.items() <= old.items()


def swapped(name: str, folder: str, build: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Builds a set in a folder of its own and then puts it in the place of the one there."""
    with tempfile.TemporaryDirectory(prefix=".overwriting.", dir=folder) as beside:
        done = build(beside)
        place = catalog.place(name, folder)
        os.rename(place, Path(beside) / "replaced")
        os.rename(catalog.place(name, beside), place)
    return done | {"folder": str(place)}
