"""Users' own data sets: a table with a row for each image, or a folder of images alone."""

from pathlib import Path

from diffv2iqa_jax.data.sets import labels, readers
from diffv2iqa_jax.data.sets.catalog import LayoutError, NothingError, Row, Set
from diffv2iqa_jax.data.sets.layout import Layout

COLUMNS = ("image", "mos", "reference", "group", "type", "level", "part")


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
    labels.pick(path, rows, *columns.values())
    root = Path(images) if images else path.parent
    wrong, names = [], {}
    for row in rows:
        name = row[columns["image"]]
        if name in names:
            wrong.append(f"row {row['#']}: {name!r} stands in row {names[name]} too")
        names.setdefault(name, row["#"])
        for key in ("image", "reference"):
            file = row[columns[key]] if key in columns else ""
            if (key == "image" or key in columns) and not (file and (root / file).is_file()):
                wrong.append(f"row {row['#']}: {key} {file!r} is not in {root}")
    if wrong:
        raise LayoutError(f"{path}: {len(wrong)} bad rows", wrong)
    scores = labels.numbers(path, rows, columns["mos"])
    levels = labels.numbers(path, rows, columns["level"]) if "level" in columns else []
    return [
        _row(root, row, columns, score, level)
        for row, score, level in zip(rows, scores, levels or [0] * len(rows), strict=True)
    ]


def _row(
    root: Path, row: dict[str, str], columns: dict[str, str], score: float, level: float
) -> Row:
    cells = dict.fromkeys(COLUMNS, "") | {key: row[column] for key, column in columns.items()}
    name = cells["image"]
    return Row(
        name=name,
        image=root / name,
        reference=root / cells["reference"] if "reference" in columns else None,
        native=score,
        group=cells["group"] or cells["reference"] or name,
        type=cells["type"],
        level=int(level),
        part=cells["part"],
    )


def catalog(rows: list[Row], low: float, high: float, higher: bool, title: str) -> Set:
    """The constants of a set, counted from the rows of its table of labels.

    Args:
      low, high: the ends of the scale of the scores.
      higher: whether a higher score means higher quality.

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
    return Set(title, len(rows), references, low, high, higher, title, types=types, parts=parts)


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
