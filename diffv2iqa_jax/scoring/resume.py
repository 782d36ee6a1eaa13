"""Which pictures have no row in a file of scores: what a killed run left, and new ones."""

import collections
import csv
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.scoring import output


class Rest(NamedTuple):
    """Attributes:
    kept: rows that the file has.
    gone: how many of them are of pictures that are not there any more.
    paths: of the pictures that have no row, in order.
    """

    kept: int
    gone: int
    paths: Iterator[str]


def check(
    table: output.Table,
    paths: Iterator[str],
    mark: dict[str, str],
    counts: collections.Counter,
    *,
    shards: int = 1,
) -> Rest:
    """Compares the rows of a file with the pictures that are asked for.

    A row whose picture is gone from the disk stays. Rows that are the beginning of what is asked
    for, as a killed run leaves them, take no memory.

    Args:
      table: the file.
      paths: of the pictures, in order.
      mark: weights and protocol of every row.
      counts: rows by error code; the file's are added.
      shards: how many share the pictures out.

    Raises:
      UsageError: the rows are of other pictures, weights or another protocol.
    """
    rows = _checked(table, mark, counts)
    kept = 0
    for row in rows:
        kept += 1
        path = next(paths, None)
        if path is None or row["path"] != _written(table, path):
            break
    else:
        return Rest(kept, 0, paths)
    if shards > 1:
        raise UsageError(
            f"{table.path}: row {kept} has path {row['path']!r} where this shard has {path!r}; the"
            " pictures are not those that the shards shared out: score the new ones without"
            " --shard into a file of their own, or give --overwrite to every shard"
        )
    left = collections.Counter([row["path"]])
    for row in rows:
        left[row["path"]] += 1
        kept += 1
    new = []
    for one in itertools.chain([] if path is None else [path], paths):
        written = _written(table, one)
        if left[written]:
            left[written] -= 1
        else:
            new.append(one)
    _check_gone(table, +left)
    return Rest(kept, left.total(), iter(new))


def _checked(
    table: output.Table, mark: dict[str, str], counts: collections.Counter
) -> Iterator[dict[str, str]]:
    """The rows, counted; UsageError where one is not of these weights and this protocol."""
    want = table.written(output.blank(None, mark))
    for number, row in enumerate(_read(table), 1):
        for key in mark:
            if row.get(key) != want[key]:
                raise UsageError(
                    f"{table.path}: row {number} has {key} {row.get(key)!r} where this run has"
                    f" {want[key]!r}; give the same inputs and options, or --overwrite"
                )
        counts[row["error"] or ""] += 1
        yield row


def _read(table: output.Table) -> Iterator[dict[str, str]]:
    try:
        yield from table.rows()
    except (csv.Error, ValueError) as error:
        raise UsageError(
            f"{table.path}: is no file of scores ({error}); name another one, or give --overwrite"
        ) from None


def _written(table: output.Table, path: str) -> str:
    return table.written(output.blank(path, {}))["path"]


def _check_gone(table: output.Table, left: collections.Counter) -> None:
    """Refuses rows of pictures that are on the disk, yet not among those asked for."""
    for path in left:
        if os.path.lexists(path) or os.path.lexists(path.removeprefix("'")):
            raise UsageError(
                f"{table.path}: has a row of {path!r}, which these inputs do not name; give the"
                " same inputs and options, or --overwrite"
            )
