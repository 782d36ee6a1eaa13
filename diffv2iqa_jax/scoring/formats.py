"""What a file of scores can be written as, and those that are written as a whole.

Nothing can be appended to JSON, an HTML page, Parquet or a spreadsheet, so rows wait as JSON lines
in FILE.part (see `output`) until all are there. They are read one by one: a million rows take no
more memory than a thousand.
"""

import importlib.util
import itertools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.reporting import html

SEPARATORS = {"csv": ",", "tsv": "\t"}  # of the formats with a heading
APPENDED = (*SEPARATORS, "jsonl")  # formats that grow row by row, also to stdout
Rows = Iterator[dict[str, Any]]
NUMBERS = ("score", "score_mos", "score_guidance", "score_difference", "spread")
COUNTS = ("width", "height", "n_crops")
AT_ONCE = 10_000  # rows of a Parquet file's group: some megabytes
MOST_ROWS = {"xlsx": 1_048_575}  # of a sheet, below its heading
PACKAGES = {"parquet": "pyarrow", "xlsx": "xlsxwriter"}  # the first is one of TensorFlow Datasets'
HERE = "<!-- rows -->"


def format_of(path: str | None, given: str | None) -> str:
    """The format to write: what the file's name says, or `given`; CSV where neither says one.

    Args:
      path: of the file, None for stdout.

    Raises:
      UsageError: the two differ, the name's ending is unknown, or the format cannot be written.
    """
    if path is None and given not in (None, *APPENDED):
        raise UsageError(f"--format {given}: needs -o FILE; stdout takes {', '.join(APPENDED)}")
    if path:
        storage.check_place(path)
    said = given
    suffix = pathlib.PurePath(path or "").suffix.lower()
    if path and (suffix in ENDINGS or (suffix and not given)):
        said = ENDINGS[storage.ending(path, ENDINGS)]
    if given and said != given:
        raise UsageError(f"{path} as {given}: the name says {said}; change it or --format")
    format = said or "csv"
    check(format)
    return format


def check(format: str, count: int = 0) -> None:
    """Refuses a format that cannot be written here, or not of so many rows.

    Raises:
      UsageError: its package is not installed, or a sheet has no room.
    """
    package = PACKAGES.get(format)
    if package and importlib.util.find_spec(package) is None:
        raise UsageError(
            f"{format} needs {package}; pip install {package}, or name a file that ends in .csv"
        )
    if count > MOST_ROWS.get(format, count):
        raise UsageError(
            f"{count} rows: a sheet of {format} holds {MOST_ROWS[format]}; name a file that ends in"
            " .csv or .parquet"
        )


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    formula = text and text[0] in "=+-@\t\r" and not _is_number(text)
    return f"'{text}" if formula else text


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def plain(text: Any) -> Any:
    """A text as UTF-8 can hold it: a byte of a name that is no UTF-8 becomes \\xNN."""
    if not isinstance(text, str):
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_json(rows: Rows, path: str, columns: list[str], safe: bool) -> None:
    """A list of objects, a row a line; without NaN or infinity."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(row, allow_nan=False))
        file.write("\n]\n")


def write_html(rows: Rows, path: str, columns: list[str], safe: bool) -> None:
    """A page that fetches nothing: a table, above it what is the same for all rows."""
    first = next(rows, {})
    same = [(f"{key} <b>{escape(plain(first.get(key) or ''))}</b>", "") for key in columns[-2:]]
    shown = columns[:-2]
    head = "".join(f'<th scope="col">{escape(key)}</th>' for key in shown)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{HERE}</tbody>'
    # As wide as its columns, of which a page of text would hide most; reasons take several lines.
    wide = "<style>header,main{max-width:none}"
    wide += (
        f"td:nth-child({columns.index('reason') + 1}){{white-space:normal;min-width:20rem}}</style>"
    )
    body = f'{wide}{html.chips(same)}<section class="block">{table}</table></div></section>'
    start, _, end = html.document("Scores", [("One row a picture", body)]).partition(HERE)
    with open(path, "w", encoding="utf-8") as file:
        file.write(start)
        for row in itertools.chain([first] if first else [], rows):
            name, *cells = (_cell(row.get(key), safe) for key in shown)
            cells = "".join(f"<td>{cell}</td>" for cell in cells)
            file.write(f'<tr><th scope="row">{name}</th>{cells}</tr>\n')
        file.write(end)


def _cell(value: Any, safe: bool) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else escape(str(_text(value, safe)))


def _text(value: Any, safe: bool) -> Any:
    value = plain(value)
    return harmless(value) if safe and isinstance(value, str) else value


def write_parquet(rows: Rows, path: str, columns: list[str], safe: bool) -> None:
    """Columns of texts, float64 and int32; null where there is nothing."""
    import pyarrow
    import pyarrow.parquet

    types = dict.fromkeys(columns, pyarrow.string())
    types |= dict.fromkeys(NUMBERS, pyarrow.float64()) | dict.fromkeys(COUNTS, pyarrow.int32())
    schema = pyarrow.schema([(key, types[key]) for key in columns])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(rows, AT_ONCE)):
            held = {key: [plain(row.get(key)) for row in chunk] for key in columns}
            writer.write_table(pyarrow.table(held, schema))


def write_xlsx(rows: Rows, path: str, columns: list[str], safe: bool) -> None:
    """One sheet; texts are texts, so that no cell is a formula or a link."""
    import xlsxwriter

    # Rows go to temporary files at once, instead of waiting in memory.
    with tempfile.TemporaryDirectory() as place:
        book = xlsxwriter.Workbook(path, {"constant_memory": True, "tmpdir": place})
        sheet = book.add_worksheet("scores")
        for column, name in enumerate(columns):
            sheet.write_string(0, column, name)
        for number, row in enumerate(rows, 1):
            for column, name in enumerate(columns):
                value = row.get(name)
                if isinstance(value, int | float):
                    sheet.write_number(number, column, value)
                elif value is not None:
                    sheet.write_string(number, column, _text(value, safe))
        try:
            book.close()
        except xlsxwriter.exceptions.XlsxFileError as error:  # it wraps what the disk said
            raise OSError(str(error)) from None


WRITERS: dict[str, Callable[[Rows, str, list[str], bool], None]] = {
    "json": write_json,
    "html": write_html,
    "parquet": write_parquet,
    "xlsx": write_xlsx,
}
FORMATS = (*APPENDED, *WRITERS)
ENDINGS = {f".{name}": name for name in FORMATS} | {".ndjson": "jsonl", ".htm": "html"}
