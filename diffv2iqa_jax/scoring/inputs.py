"""Which pictures to score: files, folders, globs and lists, always in the same order."""

import csv
import difflib
import glob
import os
from collections.abc import Iterable, Iterator

from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.pp import listing

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def expand(
    inputs: Iterable[str],
    *,
    column: str = "",
    listed: Iterable[str] = (),
    passed: listing.Passed | None = None,
) -> Iterator[str]:
    """Yields the path of each picture, input by input.

    A folder yields the pictures in it and in its folders, sorted by name; links to folders are
    not followed. A path that does not exist comes out too, so that it gets a row.

    Args:
      inputs: files, folders, glob patterns, "-" for `listed`, or tables if `column` is set.
      column: the column of .csv and .tsv inputs that holds paths, relative to the table.
      listed: the paths that "-" stands for.
      passed: counts what folders and globs hold besides pictures.

    Raises:
      UsageError: a table cannot be read or lacks the column.
    """
    passed = passed or listing.Passed()
    for name in inputs:
        if name == "-":
            yield from listed
        elif column and os.path.splitext(name)[1].lower() in DELIMITERS:
            yield from _in_table(name, column)
        elif os.path.isdir(name):
            yield from listing.walk(name, passed)
        elif not os.path.lexists(name) and glob.has_magic(name):
            for path in sorted(glob.glob(name, recursive=True)) or [name]:
                if listing.is_companion(path, name):
                    passed.companions("in folders such as @eaDir")
                elif not os.path.isdir(path):
                    yield path
                elif "**" not in name:  # which has matched what is in the folder already
                    yield from listing.walk(path, passed)
        else:
            yield name


def _in_table(path: str, column: str) -> Iterator[str]:
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
    """The paths in a list: one a line, or with `null` each ended by a zero byte (find -print0)."""
    paths = data.split(b"\0") if null else data.splitlines()
    return [os.fsdecode(path) for path in paths if path]


def near(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name that is none of the known: the nearest, or all."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {sorted(known)}"
