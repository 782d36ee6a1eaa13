"""The file of scores: one row for each picture, in order.

Rows go to FILE.part, which is renamed to FILE when it is complete. A run that was killed can be
resumed, and its file ends up the same to the last byte: no batch reaches across a multiple of CHUNK
rows, and a resumed run starts at such a multiple, so its batches are those of an undisturbed run.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.scoring.result import Score

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

CHUNK = 64  # rows
COLUMNS = (
    "path score score_mos score_guidance score_difference spread width height n_crops status error"
    " reason flags weights protocol"
).split()
FORMATS = ("csv", "jsonl")
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def row_of(score: Score, mark: dict[str, str]) -> dict[str, Any]:
    """A Score as a row, by COLUMNS; what it lacks is None.

    Args:
      mark: weights and protocol, the same for all rows of a file.
    """
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
    """A row with nothing but the picture, the weights and the protocol."""
    return {**dict.fromkeys(COLUMNS), "path": path, **mark}


def header(format: str) -> str:
    """The text before the first row."""
    return _csv(COLUMNS) if format == "csv" else ""


def text_of(row: dict[str, Any], format: str, safe: bool) -> str:
    """The row as it stands in the file; numbers have six decimals.

    Args:
      safe: put a quote before cells that a spreadsheet would take for a formula.
    """
    rounded = {k: f"{x:.6f}" if isinstance(x, float) else x for k, x in row.items()}
    if format == "jsonl":
        numbers = {k: float(rounded[k]) if isinstance(x, float) else x for k, x in row.items()}
        return json.dumps(numbers, allow_nan=False) + "\n"
    cells = ["" if rounded[k] is None else str(rounded[k]) for k in COLUMNS]
    if safe:
        cells = [f"'{x}" if x[:1] in "=+-@\t\r" and x and not _is_number(x) else x for x in cells]
    return _csv(cells)


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def _csv(cells: list[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


class Table:
    """Writes rows to a file.

    Args:
      path: the file; its name does not decide the format.
      format: one of FORMATS.
      resume: keep what a killed run left; leave a complete file as it is.
      overwrite: replace what is there.
      safe: see `text_of`.

    Attributes:
      complete: the file is there, and `resume` leaves it as it is.
      kept: how many rows of a killed run are kept, a multiple of CHUNK.

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
        """The rows in the file so far."""
        with open(self.path if self.complete else self._part, **TEXT) as file:
            yield from read(file, self._format)

    def written(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row as `rows` will read it: what is None may come back as ""."""
        text = text_of(row, self._format, self._safe)
        return next(read(io.StringIO(header(self._format) + text, newline=""), self._format))

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row; a kill after this does not lose it."""
        self._write(text_of(row, self._format, self._safe))

    def _write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "surrogateescape"))
        self._file.flush()

    def finish(self) -> None:
        """Gives the complete file its name."""
        os.fsync(self._file.fileno())
        os.replace(self._part, self.path)
        self._file.close()

    def leave(self) -> None:
        """Closes the file; an unfinished one can be resumed."""
        if not self.complete:
            self._file.close()


def read(file: TextIO, format: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of scores."""
    if format == "csv":
        yield from csv.DictReader(file)
        return
    for line in file:
        yield json.loads(line)


def whole_rows(file: BinaryIO, format: str) -> tuple[int, int]:
    """How many rows of a killed run can be kept, in whole chunks, and at which byte they end."""
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
