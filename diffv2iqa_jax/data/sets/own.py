"""Users' own data sets: a table with a row for each image, or a folder of images alone."""

import math
import os
from pathlib import Path

from diffv2iqa_jax import tables
from diffv2iqa_jax.data.sets import labels, readers
from diffv2iqa_jax.data.sets.catalog import LayoutError, NothingError, Row, Set
from diffv2iqa_jax.data.sets.layout import Layout

COLUMNS = ("image", "mos", "reference", "group", "type", "level", "part")
# Scales of opinions that are in use: of those that hold all scores, the first is guessed.
SCALES = ((0, 1), (1, 5), (0, 5), (1, 7), (1, 10), (0, 10), (0, 100))


def table(path: str | Path, images: str | Path | None, columns: dict[str, str]) -> list[Row]:
    """Rows of a table of labels.

    Args:
      path: the table; it names images relative to `images`.
      images: the folder of the images; None means the folder of the table.
      columns: entries of COLUMNS -> their names in the table; image and mos are needed.

    Raises:
      LayoutError: lists every bad row by its number.
    """
    path = Path(path)
    if not path.is_file():
        raise LayoutError(f"{path}: there is no such file; --source must be the table of labels")
    rows = labels.table(path)
    if not rows:
        raise NothingError(f"{path}: names columns, but has no rows; there is nothing to prepare")
    flags = {column: f"--{key}_column" for key, column in columns.items()}
    labels.pick(path, rows, *flags, flags=flags)
    root = Path(images) if images else path.parent
    scores, wrong = labels.parsed(rows, columns["mos"])
    levels = [0.0] * len(rows)
    if "level" in columns:
        levels, more = labels.parsed(rows, columns["level"])
        wrong += more + [
            f"row {row['#']}: level {row[columns['level']]!r} must be a whole number, of 31 bits"
            " at most"
            for row, level in zip(rows, levels, strict=True)
            if math.isfinite(level) and (level != int(level) or abs(level) >= 2**31)
        ]
    names, twice = {}, 0
    for row in rows:
        for key in ("image", "reference"):
            if key in columns:
                wrong += _found(row, key, columns[key], root)
        name, number = row[columns["image"]], row["#"]
        if name and names.setdefault(name, number) != number:
            twice += 1
            wrong.append(f"row {number}: {name!r} stands in row {names[name]} too")
    if wrong:
        wrong.sort(key=lambda line: int(line.split()[1].rstrip(":")))
        hint = "; each image needs one row, so average its ratings first" if twice else ""
        raise LayoutError(f"{path}: {len(wrong)} bad rows{hint}", wrong)
    return [
        _row(root, row, columns, score, int(level))
        for row, score, level in zip(rows, scores, levels, strict=True)
    ]


def _found(row: dict[str, str], key: str, column: str, root: Path) -> list[str]:
    """Puts the plain name of a file in its cell; a line if there is no such file."""
    cell = row[column]
    path = tables.file_in(str(root), cell)
    if path:
        inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))
        row[column] = Path(os.path.relpath(path, root) if inside else path).as_posix()
        return []
    if not cell:
        return [f"row {row['#']}: names no {key}"]
    near = tables.nearest_file(str(root), cell)
    hint = f"; there is {near!r}" if near else ""
    return [f"row {row['#']}: {key} {labels.shown(cell)} is not in {root}{hint}"]


def _row(root: Path, row: dict[str, str], columns: dict[str, str], score: float, level: int) -> Row:
    cells = dict.fromkeys(COLUMNS, "") | {key: row[column] for key, column in columns.items()}
    name = cells["image"]
    return Row(
        name=name,
        image=root / name,
        reference=root / cells["reference"] if "reference" in columns else None,
        native=score,
        group=cells["group"] or cells["reference"] or name,
        type=cells["type"],
        level=level,
        part=cells["part"],
    )


def scale(rows: list[Row], low: float | None, high: float | None) -> tuple[float, float, str]:
    """The ends of the scale of the scores; and, if they are guessed, in words from what.

    Raises:
      LayoutError: only one is given, or the scores are on no usual scale.
    """
    scores = [row.native for row in rows]
    least, most = min(scores), max(scores)
    if low is not None and high is not None:
        return low, high, ""
    usual = next(((a, b) for a, b in SCALES if a <= least and most <= b), None)
    if low is not None or high is not None or usual is None:
        raise LayoutError(
            f"--low and --high: give both ends of the scale of the opinions; in this table they run"
            f" from {least:g} to {most:g}"
        )
    low, high = usual
    return (*usual, f"{least:g} to {most:g} taken on a scale from {low:g} to {high:g}")


def catalog(
    rows: list[Row], low: float, high: float, higher: bool, title: str, opinions: str = "given"
) -> Set:
    """The constants of a set, counted from the rows of its table of labels.

    Args:
      low, high: the ends of the scale of the scores.
      higher: whether a higher score means higher quality.
      opinions: what the scores are, see `catalog.Set`.

    Raises:
      LayoutError: `low` is not below `high`, or a score lies outside them.
    """
    if not low < high:
        raise LayoutError(f"--low {low} --high {high}: the scale's low end must be below its high")
    outside = [f"{r.name}: {r.native:g}" for r in rows if not low <= r.native <= high]
    if outside:
        raise LayoutError(f"{len(outside)} scores are outside --low {low} --high {high}", outside)
    references = len({r.reference for r in rows} - {None})
    parts = tuple(sorted({r.part for r in rows} - {""}))
    types = len({r.type for r in rows} - {""})
    facts = {"types": types, "parts": parts, "opinions": opinions}
    return Set(title, len(rows), references, low, high, higher, title, **facts)


def pool(folder: str | Path) -> tuple[list[Row], Set, str]:
    """All images below a folder, without opinions; and, in words, what else it holds.

    Raises:
      LayoutError: there is no image, or names are not Unicode.
    """
    layout = Layout(folder)
    rows = readers.pool(layout)
    wrong = [ascii(row.name) for row in rows if not _is_unicode(row.name)]
    if wrong:
        raise LayoutError(f"{folder}: names that are not UTF-8; rename these files", wrong)
    return rows, Set(Path(folder).name, len(rows), 0, 0, 1, True, ""), str(layout.passed)


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
