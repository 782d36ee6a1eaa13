"""The file of scores: a row for each picture, in order; killed and resumed, it ends the same.

Rows go to FILE.part, which becomes FILE when it is complete. Batches never reach across a
multiple of CHUNK rows, and a resumed run starts at one: so each of its batches is the very one
that an undisturbed run has, and its file is the same to the last byte.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import Any, TextIO

from diffv2iqa_jax.errors import UsageError

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None

CHUNK = 64
COLUMNS = (
    "path score score_mos score_guidance score_difference spread width height n_crops status error"
    " reason flags weights protocol"
).split()
FORMATS = ("csv", "jsonl")
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def row_of(score, mark: dict[str, str]) -> dict[str, Any]:
    """A `scorer.Score` as a row; values that are not there are None."""
    return {
        "path": score.path,
        "score": score.score,
        "score_mos": score.mos,
        "score_guidance": score.branches.get("guidance"),
        "score_difference": score.branches.get("difference"),
        "spread": score.spread,
        "width": score.width or None,
        "height": score.height or None,
        "n_crops": score.crops or None,
        "status": score.status,
        "error": score.error or None,
        "reason": score.reason or None,
        "flags": " ".join(score.flags) or None,
        **mark,
    }


def blank(path: str | None, mark: dict[str, str]) -> dict[str, Any]:
    """A row that only tells which picture, weights and protocol it is of."""
    return {**dict.fromkeys(COLUMNS), "path": path, **mark}


def header(format: str) -> str:
    return _csv(COLUMNS) if format == "csv" else ""


def text_of(row: dict[str, Any], format: str, safe: bool) -> str:
    """The row as it stands in the file.

    Args:
      safe: keep spreadsheets from taking a cell for a formula.
    """
    plain = {k: f"{x:.6f}" if isinstance(x, float) else x for k, x in row.items()}
    if format == "jsonl":
        numbers = {k: float(plain[k]) if isinstance(x, float) else x for k, x in row.items()}
        return json.dumps(numbers, allow_nan=False) + "\n"
    cells = ["" if plain[k] is None else str(plain[k]) for k in COLUMNS]
    if safe:
        cells = [f"'{x}" if x[:1] in "=+-@\t\r" and x and not _number(x) else x for x in cells]
    return _csv(cells)


def _number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _csv(cells: list[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


class Table:
    """Rows on their way to a file.

    Args:
      path: the file; its suffix says nothing.
      format: one of FORMATS.
      resume: go on with what a killed run left; a complete file is taken as it is.
      overwrite: replace what is there.
      safe: see `text_of`.

    Attributes:
      complete: the file is there, and `resume` asks for no more.
      kept: rows that a killed run left, up to a multiple of CHUNK.

    Raises:
      UsageError: the file is there, another process writes it, or it cannot be written.
    """

    def __init__(self, path: str, *, format: str, resume: bool, overwrite: bool, safe: bool):
        self.path, self._format, self._safe = path, format, safe
        self._part = path + ".part"
        self.complete = resume and os.path.exists(path)
        self.kept = 0
        if self.complete:
            return
        if not (resume or overwrite):
            for name in (path, self._part):
                if os.path.exists(name):
                    raise UsageError(f"{name}: is there; give --resume to go on, or --overwrite")
        try:
            self._file = open(self._part, "a+b")
        except OSError as error:
            raise UsageError(f"{self._part}: cannot be written ({error.strerror})") from None
        self._lock()
        if resume:
            self.kept, end = whole_rows(self._file, format)
            self._file.truncate(end)
        else:
            self._file.truncate(0)
        if not self.kept:
            self._file.truncate(0)
            self._write(header(format))

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UsageError(f"{self._part}: another process is writing it") from None

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is in the file so far."""
        with open(self.path if self.complete else self._part, **TEXT) as file:
            yield from read(file, self._format)

    def written(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row as `rows` gives it back."""
        text = text_of(row, self._format, self._safe)
        return next(read(io.StringIO(header(self._format) + text, newline=""), self._format))

    def add(self, row: dict[str, Any]) -> None:
        self._write(text_of(row, self._format, self._safe))

    def _write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "surrogateescape"))
        self._file.flush()

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        os.replace(self._part, self.path)
        self._file.close()

    def leave(self) -> None:
        """Closes the file; what is unfinished can be resumed."""
        if not self.complete:
            self._file.close()


def read(file: TextIO, format: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of scores."""
    if format == "csv":
        yield from csv.DictReader(file)
        return
    for line in file:
        yield json.loads(line)


def whole_rows(file: Any, format: str) -> tuple[int, int]:
    """How many rows, in whole chunks, a killed run left, and where they end in the file."""
    file.seek(0)
    kept = (0, 0)
    count, end, quotes = -1 if format == "csv" else 0, 0, 0  # the header is no row
    for line in file:
        end += len(line)
        quotes += line.count(b'"')
        if not line.endswith(b"\n"):
            break
        if format == "csv" and quotes % 2:
            continue  # within a quoted cell
        count += 1
        if count >= 0 and count % CHUNK == 0:
            kept = (count, end)
    return kept
