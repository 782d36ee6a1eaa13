"""Which pictures are meant: files, folders, globs, lists; always in the same order."""

import csv
import difflib
import glob
import os
from collections.abc import Iterable, Iterator

from diffv2iqa_jax.errors import UsageError

# In folders other files are passed over. What we cannot read but is a picture gets its row.
PICTURES = ".jpg .jpeg .jpe .mpo .png .apng .webp .bmp .tif .tiff .gif".split()
OTHERS = ".heic .heif .avif .jxl .jp2 .j2k".split()
SUFFIXES = {*PICTURES, *OTHERS}
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def expand(inputs: Iterable[str], *, column: str = "", listed: Iterable[str] = ()) -> Iterator[str]:
    """The path of each picture.

    Folders are read through, names in order, links to folders left alone. A path that is not
    there comes out as it is, so that it gets its row too.

    Args:
      inputs: files, folders, glob patterns, "-" for `listed`, or tables where `column` is set.
      column: the column of .csv and .tsv inputs that holds paths, relative to the table.

    Raises:
      UsageError: a table cannot be read or lacks the column.
    """
    for name in inputs:
        if name == "-":
            yield from listed
        elif column and os.path.splitext(name)[1].lower() in DELIMITERS:
            yield from _of_table(name, column)
        elif os.path.isdir(name):
            yield from _of_folder(name)
        elif not os.path.lexists(name) and glob.has_magic(name):
            found = sorted(glob.glob(name, recursive=True))
            for path in found or [name]:
                inside = os.path.isdir(path) and "**" not in name
                yield from _of_folder(path) if inside else [path] * (not os.path.isdir(path))
        else:
            yield name


def _of_folder(folder: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        yield folder  # whose row says why
        return
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            if not os.path.islink(path):
                yield from _of_folder(path)
        elif os.path.splitext(name)[1].lower() in SUFFIXES:
            yield path


def _of_table(path: str, column: str) -> Iterator[str]:
    delimiter = DELIMITERS[os.path.splitext(path)[1].lower()]
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            names = rows.fieldnames or []
            if column not in names:
                raise UsageError(f"{path}: no column {column!r}{near(column, names)}")
            for row in rows:
                yield os.path.join(os.path.dirname(path), row[column] or "")
    except (OSError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None


def lines(data: bytes, *, null: bool = False) -> list[str]:
    """The paths of a list: one a line, or between zero bytes, as `find -print0` writes."""
    parts = data.split(b"\0") if null else data.splitlines()
    return [os.fsdecode(part) for part in parts if part]


def near(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is none of the known."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {sorted(known)}"
