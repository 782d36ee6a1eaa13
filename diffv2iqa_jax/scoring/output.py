"""The file of scores: one row for each picture, in order.

Rows go to FILE.part, which is renamed to FILE when it is complete. A run that was killed can be
resumed, and its file ends up the same to the last byte: no batch reaches across a multiple of CHUNK
rows, and a resumed run starts at such a multiple, so its batches are those of an undisturbed run.

A complete FILE that gets further rows is copied to FILE.part first, and stays until they are there.

JSON, HTML, Parquet and spreadsheets cannot be appended to: their rows are JSON lines in FILE.part,
and FILE is made of them once all are there (see `formats`). Such a FILE takes no further rows.

In a bucket, where nothing can be appended to, FILE.part holds the header (or that copy) alone,
FILE.part.000001 and so on CHUNK rows each.
"""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import UsageError, reason
from diffv2iqa_jax.scoring.formats import APPENDED, SEPARATORS, WRITERS, harmless
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
    return _csv(COLUMNS, format) if format in SEPARATORS else ""


def text_of(row: dict[str, Any], format: str, safe: bool) -> str:
    """The row as it stands in the file; numbers have six decimals.

    Args:
      format: one of APPENDED.
      safe: put a quote before cells that a spreadsheet would take for a formula.
    """
    rounded = {k: f"{x:.6f}" if isinstance(x, float) else x for k, x in row.items()}
    if format == "jsonl":
        numbers = {k: float(rounded[k]) if isinstance(x, float) else x for k, x in row.items()}
        return json.dumps(numbers, allow_nan=False) + "\n"
    cells = ["" if rounded[k] is None else str(rounded[k]) for k in COLUMNS]
    cells = [harmless(x) for x in cells] if safe else cells
    return _csv(cells, format)


def _csv(cells: list[str], format: str) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=SEPARATORS[format], lineterminator="\n").writerow(cells)
    return stream.getvalue()


class Table:
    """Writes rows to a file.

    Args:
      path: the file; its name does not decide the format.
      format: one of `formats.FORMATS`, see `formats.format_of`.
      resume: keep what a killed run left; leave a complete file as it is.
      overwrite: replace what is there.
      safe: see `text_of`.

    Attributes:
      complete: the file is there, and `resume` leaves it as it is, unless `extend` is called.
      kept: rows of a killed run that are kept: those of a complete file, and a multiple of CHUNK.

    Raises:
      UsageError: the file is there, another process writes it, or it cannot be written.
    """

    def __init__(self, path: str, *, format: str, resume: bool, overwrite: bool, safe: bool):
        self.path, self._safe = path, safe
        self._format = format if format in APPENDED else "jsonl"
        self._whole = format if format in WRITERS else None
        part = path + ".part"
        with self._refusals():
            there = resume and storage.exists(path)
            self.complete = there and not storage.exists(part)
            if self.complete and self._whole:
                raise UsageError(
                    f"{path}: is complete, and a file of {format} takes no further rows; give"
                    " --overwrite to score all again"
                )
            there = there and not self._whole
            if not (resume or overwrite):
                for name in (path, part):
                    if storage.exists(name):
                        raise UsageError(
                            f"{name}: is there; give --resume to go on, or --overwrite"
                        )
            self.kept = 0
            if not self.complete:
                self._open(resume, path if there else None)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Says of the file what went wrong with it."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # a client of a bucket raises classes of its own
            if not isinstance(error, OSError) and not storage.is_remote(self.path):
                raise
            text = f"{self.path}.part: cannot be written ({reason(error)}); --resume goes on"
            raise UsageError(text) from None

    def _open(self, resume: bool, base: str | None) -> None:
        kind = _Objects if storage.is_remote(self.path) else _File
        self._part = kind(self.path + ".part", self._format, resume, base)
        self.kept = self._part.kept

    def extend(self) -> None:
        """Lets a complete file take further rows; killed, it is still there as it was.

        Raises:
          UsageError: it is no file that `row_of` and `text_of` wrote.
        """
        if not self.complete:
            return
        with storage.path(self.path).open("rb") as file:
            first = file.readline()
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            whole = file.read() == b"\n"
        if self._format in SEPARATORS:
            ours = first == header(self._format).encode()
        else:
            ours = bool(first) and list(json.loads(first)) == COLUMNS
        if not (ours and whole):
            raise UsageError(
                f"{self.path}: its columns are not those of this version, or another program saved"
                " it; score into another file, or give --overwrite"
            )
        self._open(True, self.path)
        self.complete = False

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in the file so far."""
        file = storage.path(self.path).open("rb") if self.complete else self._part.open()
        with io.TextIOWrapper(file, **TEXT) as text:
            yield from read(text, self._format)

    def written(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row as `rows` will read it: what is None may come back as ""."""
        text = text_of(row, self._format, self._safe)
        return next(read(io.StringIO(header(self._format) + text, newline=""), self._format))

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row; a kill after this does not lose it.

        Raises:
          UsageError: the disk is full, or the like.
        """
        text = text_of(row, self._format, self._safe)
        with self._refusals():
            self._part.add(text.encode("utf-8", "surrogateescape"))

    def finish(self) -> None:
        """Gives the complete file its name, or makes it of the rows; raises as `add`."""
        with self._refusals():
            if self._whole:
                with storage.replacing(self.path) as unfinished:
                    WRITERS[self._whole](self.rows(), unfinished, COLUMNS, self._safe)
                self._part.remove()
            else:
                self._part.move(self.path)

    def leave(self) -> None:
        """Closes the file; an unfinished one can be resumed."""
        if not self.complete:
            self._part.close()


class _File:
    """The rows of a local file until it is complete."""

    def __init__(self, name: str, format: str, resume: bool, base: str | None):
        self._name, self.kept = name, 0
        self._file = open(name, "a+b")
        self._lock()
        end = 0
        if resume:
            start = _goes_on(base, self._file) if base else 0
            self.kept, end = whole_rows(self._file, format, start)
        self._file.truncate(end)
        if not self.kept:
            self._file.truncate(0)
            self.add(header(format).encode())

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UsageError(f"{self._name}: another process is writing it") from None

    def open(self) -> BinaryIO:
        return open(self._name, "rb")

    def add(self, row: bytes) -> None:
        self._file.write(row)
        self._file.flush()

    def move(self, target: str) -> None:
        os.fsync(self._file.fileno())
        os.replace(self._name, target)
        self._file.close()

    def remove(self) -> None:
        os.unlink(self._name)
        self._file.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which `add` has told
            self._file.close()


class _Objects:
    """The rows of a bucket's file until it is complete; only whole chunks are written."""

    def __init__(self, name: str, format: str, resume: bool, base: str | None):
        self._name, self._held = name, []
        there = storage.parts(name)
        whole = [self._chunk(number) for number in range(len(there))]
        head = storage.path(base).read_bytes() if base else header(format).encode()
        known = base and head.startswith(b"".join(storage.path(x).read_bytes() for x in there))
        if not resume or known or there != whole:  # of other rows, or some are lost
            for part in there:
                storage.path(part).unlink()
            there = []
        elif base:
            head = storage.path(name).read_bytes()
        self._number = max(len(there), 1)
        first, _ = whole_rows(io.BytesIO(head), format, len(head))
        self.kept = first + (self._number - 1) * CHUNK
        storage.write(name, head)  # which also shows whether we may write

    def _chunk(self, number: int) -> str:
        return f"{self._name}.{number:06d}" if number else self._name

    def open(self) -> BinaryIO:
        parts = [self._chunk(number) for number in range(self._number)]
        whole_chunks = b"".join(storage.path(part).read_bytes() for part in parts)
        return io.BytesIO(whole_chunks + b"".join(self._held))

    def add(self, row: bytes) -> None:
        self._held.append(row)
        if len(self._held) == CHUNK:
            storage.write(self._chunk(self._number), b"".join(self._held))
            self._number, self._held = self._number + 1, []

    def move(self, target: str) -> None:
        storage.write(target, self.open().read())
        self.remove()

    def remove(self) -> None:
        for part in storage.parts(self._name):
            storage.path(part).unlink()

    def close(self) -> None:
        self._held = []  # a run that goes on makes a chunk anew


def read(file: TextIO, format: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of scores."""
    if format in SEPARATORS:
        yield from csv.DictReader(file, delimiter=SEPARATORS[format])
        return
    for line in file:
        yield json.loads(line)


def _goes_on(base: str, part: BinaryIO) -> int:
    """How many bytes of the unfinished file are a copy of the complete one.

    A copy that is not complete is completed. 0 where the unfinished file is of another run, which
    began to replace the complete one.
    """
    part.seek(0)
    with open(base, "rb") as file:
        while block := part.read(2**20):
            mine = file.read(len(block))
            if not block.startswith(mine):
                return 0
            if len(mine) < len(block):  # more rows follow the copy
                return file.tell()
        part.seek(0, os.SEEK_END)
        shutil.copyfileobj(file, part)
        part.flush()
        return file.tell()


def whole_rows(file: BinaryIO, format: str, start: int = 0) -> tuple[int, int]:
    """How many rows of a killed run can be kept, and at which byte they end.

    Args:
      start: all rows in so many bytes are kept; of those that follow, whole chunks.
    """
    file.seek(0)
    kept = (0, 0)
    count, end, quotes = -1 if format in SEPARATORS else 0, 0, 0  # the header is no row
    first = 0  # rows that `start` covers
    for line in file:
        end += len(line)
        quotes += line.count(b'"')
        if not line.endswith(b"\n"):
            break
        if format in SEPARATORS and quotes % 2:
            continue  # within a quoted cell
        count += 1
        first = count if end <= start else first
        if count >= 0 and (count - first) % CHUNK == 0:
            kept = (count, end)
    return kept
