"""Which pictures to score: files, folders, globs and lists, always in the same order."""

import glob
import os
from collections.abc import Iterable, Iterator

from diffv2iqa_jax import tables
from diffv2iqa_jax.errors import TableError, UsageError
from diffv2iqa_jax.pp import listing


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
      column: the column of inputs that are tables (`tables.ENDINGS`) that holds paths, relative
        to the table.
      listed: the paths that "-" stands for.
      passed: counts what folders and globs hold besides pictures.

    Raises:
      UsageError: a table cannot be read or lacks the column.
    """
    passed = passed or listing.Passed()
    for name in inputs:
        if name == "-":
            yield from listed
        elif column and name.lower().endswith(tables.ENDINGS):
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
    """The paths that a column names; of a file that is not there, as it is named."""
    try:
        table = tables.read(path, errors="surrogateescape")  # names may be of any bytes
        at = tables.place(path, table.columns, column)
        empty = [f"row {number}: no path" for number, row in table.rows if not row[at]]
        if empty:
            raise TableError(f"{path}: column {column!r} is empty in {len(empty)} rows", empty)
    except TableError as error:
        raise UsageError(str(error)) from None
    folder = os.path.dirname(path)
    for _, row in table.rows:
        yield tables.file_in(folder, row[at]) or os.path.join(folder, row[at])


def lines(data: bytes, *, null: bool = False) -> list[str]:
    """The paths in a list: one a line, or with `null` each ended by a zero byte (find -print0)."""
    paths = data.split(b"\0") if null else data.splitlines()
    return [os.fsdecode(path) for path in paths if path]
