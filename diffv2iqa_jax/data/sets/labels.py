"""Reads label files: tables with a separator, MATLAB files, Excel sheets.

People type these files. All bad rows are refused at once, each with its number.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import io as matlab

from diffv2iqa_jax import tables
from diffv2iqa_jax.data.sets.catalog import LayoutError
from diffv2iqa_jax.errors import TableError


def table(path: Path, columns: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Rows of a table; see `tables.read`.

    Args:
      path: the file; its first row names the columns, unless `columns` does.
      columns: names of the columns.

    Returns:
      One dict a row, with the row's number in the file (from 1) under "#".

    Raises:
      LayoutError: it cannot be read as a table.
    """
    with _refused():
        columns, rows = tables.read(path, columns)
    return [{**dict(zip(columns, row, strict=True)), "#": str(n)} for n, row in rows]


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except TableError as error:
        raise LayoutError(error.headline, error.lines) from error


def pick(
    path: Path, rows: list[dict[str, str]], *columns: str, flags: dict[str, str] | None = None
) -> None:
    """Raises LayoutError for a table that lacks one of these columns.

    Args:
      flags: which flag names another one, by column; the error says those.
    """
    present = [key for key in (rows[0] if rows else {}) if key not in ("#", "")]
    lacking = [c for c in columns if c not in present]
    if lacking:
        near = {c: tables.near(c, present).removeprefix("; ") for c in lacking}
        named = [f"{c!r} ({x})" if x.startswith("did") else repr(c) for c, x in near.items()]
        end = f"it has {present[:20]}{tables.unnamed(present)}"
        others = [flags[c] for c in lacking] if flags and ";" not in end else []
        end += f"; name yours with {', '.join(others)}" if others else ""
        raise LayoutError(f"{path}: no column {', '.join(named)}; {end}")


def numbers(path: Path, rows: list[dict[str, str]], column: str) -> list[float]:
    """A column as finite numbers.

    Raises:
      LayoutError: some cells are no finite numbers; lists their rows.
    """
    values, wrong = parsed(rows, column)
    if wrong:
        raise LayoutError(f"{path}: {len(wrong)} bad values", wrong)
    return values


def parsed(rows: list[dict[str, str]], column: str) -> tuple[list[float], list[str]]:
    """A column as numbers, and a line on each cell that is no finite number.

    Commas are read as points where that is all they can be: in every cell that has no whole number,
    and not always before three digits, as if they parted thousands.
    """
    cells = [row[column] for row in rows]
    commas = [re.fullmatch(r"[-+]?\d+,(\d+)", cell) for cell in cells]
    whole = (re.fullmatch(r"[-+]?\d+", cell) for cell in cells)
    if all(c or w for c, w in zip(commas, whole, strict=True)):
        if any(c and len(c[1]) != 3 for c in commas):
            cells = [cell.replace(",", ".") for cell in cells]
    values = [_number(cell) for cell in cells]
    wrong = [
        f"row {row['#']}: {column} {shown(cell)} {_why(cell)}"
        for row, cell, value in zip(rows, cells, values, strict=True)
        if not math.isfinite(value)
    ]
    return values, wrong


def shown(cell: str) -> str:
    """A cell for a message: of a long one, which no name or number is, the start."""
    return repr(cell) if len(cell) <= 200 else f"{cell[:200]!r}..."


def _why(cell: str) -> str:
    if cell[:1] == "=":
        return "must be a finite number, not a formula; save its value"
    if re.fullmatch(r"[-+]?\d+,\d+", cell):
        return "write a point, not a comma"
    if cell.endswith("%"):
        return "must be a finite number, without %"
    if re.fullmatch(r"[-+]?[\d.,'_ \u00a0\u202f]+", cell):
        return "must be a finite number, its thousands not parted, such as 1234.5"
    return "must be a finite number"


def pairs(path: Path) -> list[tuple[str, float]]:
    """(name, score) of each line, which holds both in either order, apart by a comma or blanks.

    Raises:
      LayoutError: lists the lines that hold anything else.
    """
    listed, wrong = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = [f for f in re.split(r"[\s,;]+", line) if f]
        if not fields:
            continue
        values = [_number(f) for f in fields]
        score = [v for v in values if math.isfinite(v)]
        names = [f for f, v in zip(fields, values, strict=True) if not math.isfinite(v)]
        if len(score) == 1 and len(names) == 1:
            listed.append((names[0], score[0]))
        else:
            wrong.append(f"row {number}: {line[:60]!r} is not one name and one finite number")
    if wrong:
        raise LayoutError(f"{path}: {len(wrong)} bad rows", wrong)
    return listed


def mat(path: Path, *names: str) -> list[np.ndarray]:
    """Variables of a MATLAB file, each flattened to (n,); cells of text as str.

    Raises:
      LayoutError: it is no such file, or it lacks one of the variables.
    """
    try:
        variables = matlab.loadmat(path, variable_names=names)
    except (ValueError, TypeError, NotImplementedError, OSError, matlab.matlab.MatReadError) as e:
        raise LayoutError(f"{path}: cannot be read as a MATLAB file ({e})") from e
    lacking = [n for n in names if n not in variables]
    if lacking:
        raise LayoutError(f"{path}: holds no {', '.join(lacking)}")
    return [_flat(variables[n]) for n in names]


def _flat(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x).ravel()
    return np.array([str(np.ravel(cell)[0]) for cell in x]) if x.dtype == object else x


def excel(path: Path) -> list[list[list[str]]]:
    """As `tables.excel`; raises LayoutError."""
    with _refused():
        return tables.excel(path)


def below(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows below the headings, in the first sheet that has all of them in one row.

    Returns:
      One dict a row, with the row's number in the sheet (from 1) under "#"; rows whose first
      column is empty are left out.

    Raises:
      LayoutError: no sheet has these headings.
    """
    for sheet in excel(path):
        for place, headings in enumerate(sheet):
            if set(columns) <= set(headings):
                at = {c: headings.index(c) for c in columns}
                numbered = enumerate(sheet[place + 1 :], place + 2)
                filled = ((n, row + [""] * len(headings)) for n, row in numbered)
                rows = [{**{c: row[i] for c, i in at.items()}, "#": str(n)} for n, row in filled]
                return [row for row in rows if row[columns[0]]]
    raise LayoutError(f"{path}: no sheet has the columns {list(columns)}")


def _number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)  # Python takes 1_000 for 1000
    except ValueError:
        return math.nan
