"""Reads label files: tables with a separator, MATLAB files, Excel sheets.

People type these files. All bad rows are refused at once, each with its number.
"""

import csv
import io
import math
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy import io as matlab

from diffv2iqa_jax.data.sets.catalog import LayoutError

MOST_BYTES = 512 * 2**20  # of one unpacked Excel part; no label file comes near


def table(path: Path, columns: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Rows of a text table, UTF-8 with or without a mark, any line ends; "," ";" or tab.

    Args:
      path: the file; its first row names the columns, unless `columns` does.
      columns: names of the columns.

    Returns:
      One dict a row, with the row's number in the file (from 1) under "#".

    Raises:
      LayoutError: not UTF-8, empty, or rows with too many or too few fields.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    first_line = text.partition("\n")[0]
    separator = max(",;\t", key=first_line.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    numbered = [(rows.line_num, [f.strip() for f in row]) for row in rows if any(row)]
    if not columns:
        if not numbered:
            raise LayoutError(f"{path}: is empty; its first row must name the columns")
        columns = tuple(numbered.pop(0)[1])
    wrong = [
        f"row {number}: {len(row)} fields instead of {len(columns)}"
        + (" (a comma in a number? write a point)" if separator == "," else "")
        for number, row in numbered
        if len(row) != len(columns)
    ]
    if wrong:
        raise LayoutError(f"{path}: {len(wrong)} rows do not fit its columns", wrong)
    return [{**dict(zip(columns, row, strict=True)), "#": str(n)} for n, row in numbered]


def pick(path: Path, rows: list[dict[str, str]], *columns: str) -> None:
    """Raises LayoutError for a table that lacks one of these columns."""
    present = [key for key in (rows[0] if rows else {}) if key != "#"]
    lacking = [c for c in columns if c not in present]
    if lacking:
        raise LayoutError(f"{path}: no column {', '.join(map(repr, lacking))}; it has {present}")


def numbers(path: Path, rows: list[dict[str, str]], column: str) -> list[float]:
    """A column as finite numbers.

    Raises:
      LayoutError: some cells are no finite numbers; lists their rows.
    """
    values, wrong = [], []
    for row in rows:
        value = _number(row[column])
        values.append(value)
        if not math.isfinite(value):
            comma = re.fullmatch(r"[-+]?\d+,\d+", row[column])
            why = "write a point, not a comma" if comma else "must be a finite number"
            wrong.append(f"row {row['#']}: {column} {row[column]!r} {why}")
    if wrong:
        raise LayoutError(f"{path}: {len(wrong)} bad values", wrong)
    return values


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
    """The sheets of an .xlsx file, each a list of rows of texts; empty cells are "".

    Only values are read: no formula, style or link.

    Raises:
      LayoutError: it is no such file, or it unpacks to more than any label file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            parts = [i.filename for i in file.infolist()]
            shared = "xl/sharedStrings.xml"
            texts = [_text(x) for x in _xml(file, shared, path)] if shared in parts else []
            sheets = sorted(
                (p for p in parts if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", p)),
                key=lambda p: (len(p), p),
            )
            return [_sheet(_xml(file, sheet, path), texts) for sheet in sheets]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError, ValueError) as error:
        if isinstance(error, LayoutError):
            raise
        raise LayoutError(f"{path}: cannot be read as an Excel file ({error})") from error


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
        return float(text)
    except ValueError:
        return math.nan


def _xml(file: zipfile.ZipFile, part: str, path: Path) -> ElementTree.Element:
    if file.getinfo(part).file_size > MOST_BYTES:
        raise LayoutError(f"{path}: {part} unpacks to more than {MOST_BYTES >> 20} MiB")
    data = file.read(part)
    if b"<!DOCTYPE" in data[:1000]:
        raise LayoutError(f"{path}: {part} declares a document type; label files never do")
    return ElementTree.fromstring(data)


def _text(element: ElementTree.Element) -> str:
    return "".join(x.text or "" for x in element.iter() if x.tag.endswith("}t")).strip()


def _sheet(root: ElementTree.Element, texts: list[str]) -> list[list[str]]:
    rows = []
    for row in (x for x in root.iter() if x.tag.endswith("}row")):
        cells: list[str] = []
        for cell in row:
            letters = re.match(r"[A-Z]+", cell.get("r", ""))
            place = _column(letters.group()) if letters else len(cells)
            cells += [""] * (place + 1 - len(cells))
            value = next((x.text or "" for x in cell if x.tag.endswith("}v")), "")
            kind = cell.get("t")
            cells[place] = texts[int(value)] if kind == "s" else value.strip()
            if kind == "inlineStr":
                cells[place] = _text(cell)
        rows.append(cells)
    return rows


def _column(letters: str) -> int:
    place = 0
    for letter in letters[:3]:
        place = 26 * place + ord(letter) - 64
    return place - 1
