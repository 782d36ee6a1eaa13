"""Tables that people made: text with any common separator and encoding, or an Excel sheet.

Only what is certain is taken; anything else is refused with the number of its row.
"""

import csv
import difflib
import io
import os
import posixpath
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from diffv2iqa_jax.errors import TableError

MOST_BYTES = 512 * 2**20  # of one unpacked Excel part; no table of ours comes near
ENDINGS = (".csv", ".tsv", ".txt", ".xlsx")
SEPARATORS = ",;\t|"
LOOKED_AT = 50  # rows that tell the separator
# Encodings that a mark at the start tells, the longest mark first.
MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class Table(NamedTuple):
    """Attributes:
    columns: their names, each once; "" for one without.
    rows: (number of the row in the file, from 1; its cells, as many as there are columns).
    """

    columns: tuple[str, ...]
    rows: list[tuple[int, list[str]]]


def read(
    path: str | os.PathLike, columns: tuple[str, ...] = (), *, errors: str = "strict"
) -> Table:
    """Reads a table; blanks around cells and rows without any text are dropped.

    Args:
      path: text in UTF-8, UTF-16 or UTF-32, whose cells are separated by , ; | or tabs, as a first
        line `sep=;` says or as its rows tell; or an .xlsx file, of which the first sheet with two
        rows counts, as its tabs stand.
      columns: names of the columns; if none, the first row names them.
      errors: what is done about bytes that are no UTF-8, as `bytes.decode` takes it.

    Raises:
      TableError: it cannot be read, names a column twice, or rows have too many or too few cells.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror})") from None
    if data.startswith(b"PK\3\4"):
        sheets = excel(path)
        sheet = next((x for x in sheets if sum(map(any, x)) > 1), max(sheets, key=len))
        numbered, separator = list(enumerate(sheet, 1)), ""
    else:
        numbered, separator = _parsed(path, _text(path, data, errors))
    numbered = [(n, [c.strip() for c in row]) for n, row in numbered if any(map(str.strip, row))]
    if not columns:
        while numbered and len(_filled(numbered[0][1])) == 1 and numbered[0][1][0][:1] == "#":
            del numbered[0]  # a comment
        if not numbered:
            raise TableError(f"{path}: is empty; its first row must name the columns")
        columns = tuple(_filled(numbered.pop(0)[1]))
    twice = sorted({c for c in columns if c and columns.count(c) > 1})
    if twice:
        raise TableError(f"{path}: names {', '.join(map(repr, twice))} twice; rename one column")
    return Table(columns, _fitting(path, numbered, len(columns), separator))


def _filled(row: list[str]) -> list[str]:
    """A row without the empty cells at its end."""
    count = len(row)
    while count and not row[count - 1]:
        count -= 1
    return row[:count]


def _fitting(
    path: str | os.PathLike, numbered: list[tuple[int, list[str]]], width: int, separator: str
) -> list[tuple[int, list[str]]]:
    fitting, wrong = [], []
    for number, row in numbered:
        if not separator or len(row) > width:  # Excel drops empty cells at the end, or adds some
            row = _filled(row)
            row = row + [""] * (width - len(row) if not separator else 0)
        if len(row) != width:
            comma = separator == "," and len(row) > width
            hint = " (a comma in a number? write a point)" if comma and width > 1 else ""
            wrong.append(f"row {number}: {len(row)} fields instead of {width}{hint}")
        fitting.append((number, row))
    if wrong:
        named = "its first row, which must name the columns" if width == 1 else "its columns"
        raise TableError(f"{path}: {len(wrong)} rows do not fit {named}", wrong)
    return fitting


def _text(path: str | os.PathLike, data: bytes, errors: str) -> str:
    if data.startswith(OLD_EXCEL):
        raise TableError(f"{path}: is a workbook of old Excel (.xls); save it as CSV or .xlsx")
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding, errors if encoding == "utf-8-sig" else "strict")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TableError(
            f"{path}: row {line}: is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise TableError(f"{path}: holds zero bytes, as no table does; save it as UTF-8 text")
    return text


def _parsed(path: str | os.PathLike, text: str) -> tuple[list[tuple[int, list[str]]], str]:
    """The rows of a text, numbered by the line where each starts, and the separator."""
    said = re.match(r'(?i)"?sep=(.)"?[;,\t]*(?:\r\n|\r|\n|$)', text)
    if said:  # Excel's word for it
        separator, text = said[1], "\n" + text[said.end() :]
    else:
        separator = _separator(text)
    lines = io.StringIO(text, newline="")
    settings = {"delimiter": separator, "skipinitialspace": separator != "\t", "strict": True}
    reader, numbered, start = csv.reader(lines, **settings), [], 1
    try:
        for row in reader:
            numbered.append((start, row))
            start = reader.line_num + 1
    except csv.Error as error:
        why = "a quote opens and does not end" if "end of data" in str(error) else str(error)
        raise TableError(f"{path}: row {start}: {why}; mend the quotes of this row") from None
    return numbered, separator


def _separator(text: str) -> str:
    """The separator by which most rows have as many cells as the first, and that many."""

    def fit(separator: str) -> tuple[float, int]:
        lines = io.StringIO(text[: 2**20], newline="")
        counts = []
        try:
            for row in csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t"):
                if any(map(str.strip, row)):
                    counts.append(len(row))
                if len(counts) > LOOKED_AT:
                    break
        except csv.Error:
            pass
        if not counts or counts[0] == 1:
            return 0, 0
        return counts[1:].count(counts[0]) / max(len(counts) - 1, 1), counts[0]

    return max(SEPARATORS, key=fit)


def place(path: str | os.PathLike, columns: Iterable[str], wanted: str) -> int:
    """Which column is called so; TableError if none is, naming the nearest."""
    columns = list(columns)
    if wanted not in columns:
        raise TableError(f"{path}: no column {wanted!r}{near(wanted, columns)}{unnamed(columns)}")
    return columns.index(wanted)


def unnamed(columns: Iterable[str]) -> str:
    """The end of a complaint about a first row that names no columns; else ""."""
    columns = list(columns)
    if any(re.fullmatch(r"[-+.\d]+|.*\.(png|jpe?g|bmp|tiff?|webp)", c, re.I) for c in columns if c):
        return "; its first row must name the columns"
    if len(columns) == 1 and re.search(r"[,;\t|]", columns[0]):
        return "; its columns must be separated as its first line says"
    if len(columns) == 1 and re.search(r"[ :]", columns[0]):
        return "; its columns must be separated by , ; | or tabs"
    return ""


def near(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name that is none of the known: the nearest, or all."""
    known = [x for x in known if x]
    folded = {x.casefold(): x for x in reversed(known)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else f"; there are {sorted(known)[:20]}"


def file_in(folder: str, name: str) -> str | None:
    """The path of the file that a cell names, relative to a folder; None if there is none.

    A backslash may separate folders, and the folder's own name may come first.
    """
    for plain in dict.fromkeys((name, name.replace("\\", "/"))):
        plain = os.path.normpath(plain) if plain else plain
        first, _, rest = plain.partition("/")
        ways = [plain]
        if rest and first == os.path.basename(os.path.abspath(folder or ".")):
            ways.append(rest)
        for way in ways:
            path = os.path.join(folder, way)
            if way and os.path.isfile(path):
                return path
    return None


def nearest_file(folder: str, name: str) -> str | None:
    """A file beside which a cell's name missed: in other case, without its ending or folders."""
    plain = os.path.normpath(name.replace("\\", "/"))
    for below in dict.fromkeys((os.path.dirname(plain), "")):
        try:
            names = sorted(os.listdir(os.path.join(folder, below)))
        except OSError:
            continue
        wanted = os.path.basename(plain).casefold()
        for same in (str.casefold, lambda x: os.path.splitext(x)[0].casefold()):
            fitting = [x for x in names if same(x) in (wanted, same(wanted))]
            if fitting:
                return os.path.join(below, fitting[0])
    return None


def excel(path: str | os.PathLike) -> list[list[list[str]]]:
    """The sheets of an .xlsx file, each a list of rows of texts; empty cells are "".

    Only values are read: no formula, style or link.

    Raises:
      TableError: it is no such file, or it unpacks to more than any table.
    """
    try:
        with zipfile.ZipFile(path) as file:
            parts = [i.filename for i in file.infolist()]
            shared = "xl/sharedStrings.xml"
            texts = [_of_text(x) for x in _xml(file, shared, path)] if shared in parts else []
            sheets = [p for p in _tabs(file, path) if p in parts]
            if not sheets:
                raise TableError(f"{path}: is a ZIP file, but no Excel file; save it as CSV")
            return [_sheet(_xml(file, sheet, path), texts) for sheet in sheets]
    except (OSError, zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError) as error:
        raise TableError(f"{path}: cannot be read as an Excel file ({error})") from error
    except (ValueError, RuntimeError, NotImplementedError) as error:  # RuntimeError: a password
        if isinstance(error, TableError):
            raise
        raise TableError(f"{path}: cannot be read as an Excel file ({error})") from error


def _tabs(file: zipfile.ZipFile, path: str | os.PathLike) -> list[str]:
    """The parts that hold the sheets, as the tabs of the workbook stand, whatever they are called.

    Without a workbook, those of the usual names.
    """
    book, links = "xl/workbook.xml", "xl/_rels/workbook.xml.rels"
    if not {book, links} <= set(file.namelist()):
        named = (p for p in file.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", p))
        return sorted(named, key=lambda p: (len(p), p))
    targets = {x.get("Id"): x.get("Target", "") for x in _xml(file, links, path)}
    tabs = (x for x in _xml(file, book, path).iter() if x.tag.endswith("}sheet"))
    # The attribute's namespace is one of two, by the kind of Excel file.
    ids = (next((v for k, v in x.attrib.items() if k.endswith("}id")), "") for x in tabs)
    return [posixpath.join("/xl", targets.get(x, "")).removeprefix("/") for x in ids]


def _xml(file: zipfile.ZipFile, part: str, path: str | os.PathLike) -> ElementTree.Element:
    if file.getinfo(part).file_size > MOST_BYTES:
        raise TableError(f"{path}: {part} unpacks to more than {MOST_BYTES >> 20} MiB")
    data = file.read(part)
    if b"<!DOCTYPE" in data[:1000]:
        raise TableError(f"{path}: {part} declares a document type; tables never do")
    return ElementTree.fromstring(data)


def _of_text(element: ElementTree.Element) -> str:
    return "".join(x.text or "" for x in element.iter() if x.tag.endswith("}t")).strip()


def _sheet(root: ElementTree.Element, texts: list[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    for row in (x for x in root.iter() if x.tag.endswith("}row")):
        number = int(row.get("r") or len(rows) + 1)
        if not len(rows) < number <= 2**20:  # as many as a sheet has
            raise ValueError(f"row {number} after row {len(rows)}")
        rows += [[] for _ in range(number - 1 - len(rows))]  # rows without a cell are left out
        cells: list[str] = []
        for cell in row:
            letters = re.match(r"[A-Z]+", cell.get("r", ""))
            at = _column(letters.group()) if letters else len(cells)
            cells += [""] * (at + 1 - len(cells))
            value = next((x.text or "" for x in cell if x.tag.endswith("}v")), "")
            kind = cell.get("t")
            cells[at] = texts[int(value)] if kind == "s" else value.strip()
            if kind == "inlineStr":
                cells[at] = _of_text(cell)
            elif kind == "b":  # no number, although it is stored as 0 or 1
                cells[at] = {"0": "FALSE", "1": "TRUE"}.get(cells[at], cells[at])
            elif not cells[at]:  # a formula that the program that wrote it did not work out
                cells[at] = next((f"={x.text or ''}" for x in cell if x.tag.endswith("}f")), "")
        rows.append(cells)
    return rows


def _column(letters: str) -> int:
    number = 0
    for letter in letters[:3]:
        number = 26 * number + ord(letter) - 64
    return number - 1
