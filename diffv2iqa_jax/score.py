"""Scores pictures: python -m diffv2iqa_jax.score photos/ more/*.jpg -o scores.csv

Inputs are files, folders (read through), globs, "-" (paths on stdin, one a line) and, with
--column, tables. Results go to stdout or to -o FILE, progress to stderr. Exit codes: 0 every
picture has its score, 1 our own error, 2 what was asked for cannot be, 3 some pictures failed
(their rows say why), 4 nothing to score, 5 weights missing or unfit, 130 interrupted.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.scoring import inputs
from diffv2iqa_jax.scoring import output as table

OK, INTERNAL, USAGE, SOME_FAILED, NOTHING, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
OPTIONS = {
    "--weights": dict(default="starter", help="'starter', a run's folder or a converted file"),
    "--restorer": dict(help="stage-1 run, for a converted model that comes without one"),
    "-o --output": dict(help="file of scores; FILE.part until it is complete"),
    "--format": dict(choices=table.FORMATS, help="default: what FILE ends in, else csv"),
    "--resume": dict(action="store_true", help="go on with what a killed run left in FILE.part"),
    "--overwrite": dict(action="store_true", help="replace FILE"),
    "--maps": dict(metavar="DIR", help="also write restored views and quality maps there, as PNG"),
    "--column": dict(default="", help="take .csv and .tsv inputs as tables of paths"),
    "-0 --null": dict(action="store_true", help="paths on stdin end with a zero byte"),
    "--shard": dict(default="1/1", metavar="I/N", help="only every N-th picture, from the I-th on"),
    "--limit": dict(type=int, help="only the first so many pictures"),
    "--seeds": dict(type=int, default=1, help="noises to restore with; their spread is told"),
    "--crops": dict(type=int, help="look at so many parts of a picture at most"),
    "--pp": dict(help="another test pipeline than the weights' own, such as grid(224)"),
    "--batch": dict(type=int, help="crops judged at a time"),
    "--workers": dict(type=int, default=2, help="threads that read ahead"),
    "--icc": dict(choices=("convert", "ignore"), default="convert", help="colour profiles"),
    "--orientation": dict(choices=("apply", "ignore"), default="apply", help="in EXIF"),
    "--max_pixels": dict(type=int, help="refuse larger pictures"),
    "--strict": dict(action="store_true", help="refuse pictures of several frames"),
    "--allow_truncated": dict(action="store_true", help="score a JPEG that ends early"),
    "--csv_safe": dict(action="store_true", help="no cell that a spreadsheet takes for a formula"),
    "--jit_cache": dict(default="~/.cache/diffv2iqa_jax/jit", help="compiled programs; '': none"),
    "--info": dict(action="store_true", help="print what the scores mean, as JSON, and stop"),
    "--dry_run": dict(action="store_true", help="print how many pictures there are, and stop"),
    "--no_progress": dict(action="store_true", help="only the summary on stderr"),
    "-q --quiet": dict(action="store_true", help="of one picture print only the number"),
    "--debug": dict(action="store_true", help="show where an error came from"),
}


def parser() -> argparse.ArgumentParser:
    first, _, rest = __doc__.partition("\n")
    out = argparse.ArgumentParser(prog="score", description=first, epilog=rest, allow_abbrev=False)
    out.add_argument("inputs", nargs="*", metavar="INPUT", help="file, folder, glob, table or -")
    for names, settings in OPTIONS.items():
        out.add_argument(*names.split(), **settings)
    return out


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked without reading anything."""
    known = parser()
    o, strange = known.parse_known_args(argv)
    if strange:
        names = [name for option in OPTIONS for name in option.split()]
        raise UsageError(f"{strange[0]}: no such option{inputs.near(strange[0], names)}")
    index, _, count = o.shard.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {o.shard}: must be I/N with 1 <= I <= N")
    o.shard = int(index), int(count)
    for name in ("seeds", "crops", "batch", "workers", "limit", "max_pixels"):
        if (value := getattr(o, name)) is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    if o.output is None and (o.resume or o.overwrite):
        raise UsageError("--resume and --overwrite need -o FILE")
    if o.resume and o.overwrite:
        raise UsageError("--resume and --overwrite: only one of them")
    if o.output is not None and os.path.isdir(o.output):
        raise UsageError(f"-o {o.output}: is a folder")
    if o.format is None:
        o.format = "jsonl" if (o.output or "").endswith(".jsonl") else "csv"
    return o


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; errors are one line on stderr."""
    debug = "--debug" in (sys.argv if argv is None else argv)
    try:
        return run(parse(argv))
    except UsageError as error:
        code, line = USAGE, str(error)
    except KeyboardInterrupt:
        code, line = INTERRUPTED, "interrupted; with -o FILE, --resume goes on"
    except BrokenPipeError:  # whoever read our rows has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if debug:
            raise
        code = NO_WEIGHTS if type(error).__name__ == "WeightsError" else INTERNAL
        line = f"{error or type(error).__name__}"
        line += "" if code == NO_WEIGHTS else " (--debug shows where)"
    print(f"score: {' '.join(line.split())}", file=sys.stderr)
    return code


def run(o: argparse.Namespace) -> int:
    listed = inputs.lines(sys.stdin.buffer.read(), null=o.null) if "-" in o.inputs else []

    def paths() -> Iterator[str]:
        found = inputs.expand(o.inputs, column=o.column, listed=listed)
        return itertools.islice(found, o.shard[0] - 1, o.limit and o.limit * o.shard[1], o.shard[1])

    total = sum(1 for _ in paths())
    if o.dry_run:
        print(f"{total} pictures")
        return OK if total else NOTHING
    if not total and not o.info:
        where = f" in {', '.join(o.inputs)}" if o.inputs else ": name files or folders"
        print(f"score: nothing to score{where}", file=sys.stderr)
        return NOTHING
    score = load(o)
    if o.info:
        print(json.dumps(dataclasses.asdict(score.info), indent=1, allow_nan=False))
        return OK
    protocol = json.dumps(score.info.protocol | {"seeds": o.seeds}, separators=(",", ":"))
    mark = {"weights": score.info.sha256[:16], "protocol": protocol}
    if o.quiet and total == 1 and o.output is None:
        return _number(score, next(paths()))
    progress = Progress(total, sys.stderr, shown=not (o.no_progress or o.quiet))
    with output(o) as out:
        counts = collections.Counter()
        todo, kept = paths(), 0
        if out.saved is not None:
            kept = _check_kept(out, todo, mark, counts)
        if not out.complete:
            for found in _scored(score, todo, o, kept):
                out.add(table.row_of(found, mark))
                counts[found.error] += 1
                progress.show(counts, kept)
            out.finish()
    progress.end(counts, kept, o.output)
    return OK if set(counts) <= {""} else SOME_FAILED


def load(o: argparse.Namespace):
    """The scorer that the options ask for."""
    from diffv2iqa_jax.pp import decode
    from diffv2iqa_jax.scoring import scorer  # JAX takes a second; --help does not wait for it

    warnings.filterwarnings("ignore", module="PIL")  # a row says what became of a picture
    try:
        chosen = {} if o.max_pixels is None else {"max_pixels": o.max_pixels}
        names = ("icc", "orientation", "strict", "allow_truncated")
        reading = decode.Reading(**{name: getattr(o, name) for name in names}, **chosen)
        settings = {key: getattr(o, key) for key in ("pp", "crops", "batch", "workers")}
        cache = o.jit_cache or None
        return scorer.load(
            o.weights, restorer=o.restorer, jit_cache=cache, reading=reading, **settings
        )
    except ValueError as error:
        if type(error) is ValueError:
            raise UsageError(str(error)) from None
        raise


def _number(score, path: str) -> int:
    (found,) = score([path])
    if found.error:
        print(f"score: [{found.error}] {found.reason}", file=sys.stderr)
        return SOME_FAILED
    print(f"{found.score:.6f}")
    return OK


def _scored(score, todo: Iterator[str], o: argparse.Namespace, kept: int) -> Iterator:
    """The Score of each path, by chunks: see `table`."""
    number = kept
    if o.maps:
        from diffv2iqa_jax.scoring import maps

        os.makedirs(o.maps, exist_ok=True)
    while chunk := list(itertools.islice(todo, table.CHUNK)):
        score.forget()
        for found in score(iter(chunk), seeds=o.seeds, details=bool(o.maps)):
            if o.maps and not found.error:
                place = o.shard[0] - 1 + number * o.shard[1]
                maps.write(o.maps, place, found.path, maps.strip(found))
            number += 1
            yield found


def _check_kept(out, todo: Iterator[str], mark: dict, counts: collections.Counter) -> int:
    """Refuses to go on with rows of other pictures, weights or protocol; returns how many."""
    kept = 0
    for row in out.saved.rows():
        path = next(todo, None)
        want = out.saved.written(table.blank(path, mark))
        for key in ("path", *mark):
            if row[key] != want[key]:
                raise UsageError(
                    f"{out.saved.path}: row {kept + 1} has {key} {row[key]!r} where this run has"
                    f" {want[key]!r}; give the same inputs and options, or --overwrite"
                )
        counts[row["error"] or ""] += 1
        kept += 1
    return kept


@dataclasses.dataclass
class Output:
    """Where rows go.

    Attributes:
      saved: the file, if it is one.
      complete: nothing is to be done.
    """

    add: Callable[[dict], None]
    finish: Callable[[], None]
    saved: table.Table | None = None
    complete: bool = False


@contextmanager
def output(o: argparse.Namespace) -> Iterator[Output]:
    """The file, or stdout; left as it is when something goes wrong."""
    if o.output is None:
        put = lambda text: sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))

        def add(row: dict) -> None:
            put(table.text_of(row, o.format, o.csv_safe))
            sys.stdout.flush()

        put(table.header(o.format))
        yield Output(add, sys.stdout.flush)
        return
    options = {"resume": o.resume, "overwrite": o.overwrite, "safe": o.csv_safe}
    saved = table.Table(o.output, format=o.format, **options)
    try:
        yield Output(saved.add, saved.finish, saved, saved.complete)
    finally:
        saved.leave()


class Progress:
    """A line on stderr: done, ok, failed, images a second, time left."""

    def __init__(self, total: int, stream: TextIO, *, shown: bool):
        self._total, self._stream, self._shown = total, stream, shown
        self._start = self._said = time.monotonic()
        self._live = stream.isatty()

    def show(self, counts: collections.Counter, kept: int) -> None:
        now = time.monotonic()
        if not self._shown or now - self._said < (0.5 if self._live else 10):
            return
        self._said = now
        done = sum(counts.values())
        speed = (done - kept) / max(now - self._start, 1e-9)
        left = time.strftime("%H:%M:%S", time.gmtime((self._total - done) / max(speed, 1e-9)))
        line = f"{done}/{self._total}  {self._numbers(counts)}  {speed:.3g} images/s  eta {left}"
        print(f"\r\x1b[K{line}" if self._live else line, end="" if self._live else "\n", **self._to)

    def end(self, counts: collections.Counter, kept: int, path: str | None) -> None:
        if not self._shown:
            return
        took = max(time.monotonic() - self._start, 1e-9)
        fresh = sum(counts.values()) - kept
        speed = f"{fresh / took:.3g} images/s" if fresh else "nothing left to do"
        start = "\r\x1b[K" if self._live else ""
        print(f"{start}{path or 'score'}: {self._numbers(counts)}, {speed}", **self._to)

    @property
    def _to(self) -> dict:
        return {"file": self._stream, "flush": True}

    def _numbers(self, counts: collections.Counter) -> str:
        failed = {code: n for code, n in sorted(counts.items()) if code}
        codes = ", ".join(f"{n} {code}" for code, n in failed.items())
        return f"{counts['']} ok, {sum(failed.values())} failed" + (f" ({codes})" if codes else "")


if __name__ == "__main__":
    sys.exit(main())
