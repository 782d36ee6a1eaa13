"""Scores pictures: python -m diffv2iqa_jax.score photos/ more/*.jpg -o scores.csv

Inputs are files, folders (with all that is in them), globs, "-" (paths on stdin, one a line) and,
with --column, tables. Rows go to stdout or to -o FILE, progress to stderr. Exit codes: 0 every
picture has its score, 1 an error of ours, 2 the request is impossible, 3 some pictures failed
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
from typing import TYPE_CHECKING, TextIO

from diffv2iqa_jax import storage, tables
from diffv2iqa_jax.errors import ROOM, UsageError, WeightsError
from diffv2iqa_jax.pp import listing
from diffv2iqa_jax.scoring import formats, inputs, output, resume
from diffv2iqa_jax.scoring.result import Score

if TYPE_CHECKING:  # it imports JAX, which takes a second; --help does not wait for it
    from diffv2iqa_jax.scoring.scorer import Scorer

OK, INTERNAL, USAGE, SOME_FAILED, NOTHING, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
OPTIONS = {
    "--weights": dict(default="starter", help="'starter', a run's folder or a converted file"),
    "--restorer": dict(help="stage-1 run, for a converted model that comes without one"),
    "-o --output": dict(help="file of scores; called FILE.part until it is complete"),
    "--format": dict(choices=formats.FORMATS, help="default: by FILE's ending; without one csv"),
    "--resume": dict(action="store_true", help="keep FILE's or FILE.part's rows, score the others"),
    "--overwrite": dict(action="store_true", help="replace FILE"),
    "--maps": dict(metavar="DIR", help="also write restored views and quality maps there, as PNG"),
    "--column": dict(default="", help="take .csv, .tsv, .txt and .xlsx as tables of paths"),
    "-0 --null": dict(action="store_true", help="paths on stdin end with a zero byte"),
    "--shard": dict(default="1/1", metavar="I/N", help="only every N-th picture, from the I-th on"),
    "--limit": dict(type=int, help="only the first so many pictures"),
    "--seeds": dict(type=int, default=1, help="restore with so many noises, and tell the spread"),
    "--crops": dict(type=int, help="look at so many crops of a picture at most"),
    "--pp": dict(help="another test pipeline than the weights' own, such as grid(224)"),
    "--batch": dict(type=int, help="crops scored at a time"),
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
    "-q --quiet": dict(action="store_true", help="no progress; of one picture, only a number"),
    "--debug": dict(action="store_true", help="show where an error came from"),
}
AT_LEAST_ONE = ("seeds", "crops", "batch", "workers", "limit", "max_pixels")


def parser() -> argparse.ArgumentParser:
    title, _, rest = __doc__.partition("\n")
    out = argparse.ArgumentParser(prog="score", description=title, epilog=rest, allow_abbrev=False)
    out.add_argument("inputs", nargs="*", metavar="INPUT", help="file, folder, glob, table or -")
    for names, settings in OPTIONS.items():
        out.add_argument(*names.split(), **settings)
    return out


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked without reading any picture or weights.

    Raises:
      UsageError: an option is unknown, or its value is impossible.
    """
    o, unknown = parser().parse_known_args(argv)
    if unknown:
        names = [name for option in OPTIONS for name in option.split()]
        raise UsageError(f"{unknown[0]}: no such option{tables.near(unknown[0], names)}")
    index, _, count = o.shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {o.shard}: must be I/N with 1 <= I <= N")
    o.shard = int(index), int(count)
    for name in AT_LEAST_ONE:
        if (value := getattr(o, name)) is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    if o.output is None and (o.resume or o.overwrite):
        raise UsageError("--resume and --overwrite need -o FILE")
    if o.output == "":
        raise UsageError("-o '': names no file")
    if o.resume and o.overwrite:
        raise UsageError("--resume and --overwrite: only one of them")
    for name in (*o.inputs, o.maps or ""):
        if storage.is_remote(name):
            raise UsageError(f"{name}: pictures are read and drawn in local folders only; copy it")
    try:
        o.format = formats.format_of(o.output, o.format)
    except ValueError as error:
        raise UsageError(f"-o {error}" if o.output else str(error)) from None
    if o.maps:
        storage.check_folder(o.maps)
    return o


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; errors are one line on stderr."""
    debug = "--debug" in (sys.argv if argv is None else argv)
    try:
        return run(parse(argv))
    except UsageError as error:
        code, line = USAGE, str(error)
    except WeightsError as error:
        code, line = NO_WEIGHTS, str(error)
    except KeyboardInterrupt:
        code, line = INTERRUPTED, "interrupted; with -o FILE, --resume goes on"
    except BrokenPipeError:  # whoever read our rows has seen enough
        _forget_stdout()
        return OK
    except OSError as error:  # no room or no rights where something is written
        if debug:
            raise
        if error.filename is None:
            _forget_stdout()
        code, line = USAGE, f"{error.filename or 'standard output'}: {error.strerror}; {ROOM}"
    except Exception as error:
        if debug:
            raise
        code, line = INTERNAL, f"{error or type(error).__name__} (--debug shows where)"
    print(f"score: {' '.join(line.split())}", file=sys.stderr)
    return code


def _forget_stdout() -> None:
    """What is still to be written there goes nowhere: Python would complain of it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(o: argparse.Namespace) -> int:
    """Does what the options ask for; returns the exit code."""
    listed = inputs.lines(sys.stdin.buffer.read(), null=o.null) if "-" in o.inputs else []
    passed = listing.Passed()
    total = sum(1 for _ in _paths(o, listed, passed))
    if o.dry_run:
        print(f"{total} pictures")
        _say_passed(passed, o)
        return OK if total else NOTHING
    if not total and not o.info:
        where = f" in {', '.join(o.inputs)}" if o.inputs else ": name files or folders"
        why = f"; passed over: {passed}" if str(passed) else ""
        print(f"score: nothing to score{where}{why}", file=sys.stderr)
        return NOTHING
    formats.check(o.format, total)
    scorer = load(o)
    if o.info:
        print(json.dumps(dataclasses.asdict(scorer.info), indent=1, allow_nan=False))
        return OK
    if o.quiet and total == 1 and o.output is None:
        return _print_number(scorer, next(_paths(o, listed)))
    code = _write_rows(scorer, _paths(o, listed), total, o)
    _say_passed(passed, o)
    return code


def _say_passed(passed: listing.Passed, o: argparse.Namespace) -> None:
    if str(passed) and not o.quiet:
        print(f"score: passed over: {passed}", file=sys.stderr)


def _paths(
    o: argparse.Namespace, listed: list[str], passed: listing.Passed | None = None
) -> Iterator[str]:
    """The paths of this shard, up to the limit."""
    every = inputs.expand(o.inputs, column=o.column, listed=listed, passed=passed)
    index, count = o.shard
    return itertools.islice(every, index - 1, o.limit and o.limit * count, count)


def load(o: argparse.Namespace) -> "Scorer":
    """The scorer that the options ask for.

    Raises:
      WeightsError: there are no such weights, or they cannot score.
      UsageError: another setting is impossible.
    """
    from diffv2iqa_jax.pp import decode
    from diffv2iqa_jax.scoring import scorer

    warnings.filterwarnings("ignore", module="PIL")  # a row says what became of a picture
    try:
        limits = {} if o.max_pixels is None else {"max_pixels": o.max_pixels}
        names = ("icc", "orientation", "strict", "allow_truncated")
        reading = decode.Reading(**{name: getattr(o, name) for name in names}, **limits)
        settings = {key: getattr(o, key) for key in ("pp", "crops", "batch", "workers")}
        cache = o.jit_cache or None
        return scorer.load(
            o.weights, restorer=o.restorer, jit_cache=cache, reading=reading, **settings
        )
    except WeightsError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None


def _print_number(scorer: "Scorer", path: str) -> int:
    (score,) = scorer([path])
    if score.error:
        print(f"score: [{score.error}] {score.reason}", file=sys.stderr)
        return SOME_FAILED
    print(f"{score.score:.6f}")
    return OK


def _write_rows(scorer: "Scorer", paths: Iterator[str], total: int, o: argparse.Namespace) -> int:
    protocol = json.dumps(scorer.info.protocol | {"seeds": o.seeds}, separators=(",", ":"))
    mark = {"weights": scorer.info.sha256[:16], "protocol": protocol}
    progress = Progress(total, sys.stderr, shown=not o.no_progress, quiet=o.quiet)
    counts, kept = collections.Counter(), 0
    with _destination(o) as destination:
        table = destination.table
        if table is not None:
            kept, gone, paths = resume.check(table, paths, mark, counts, shards=o.shard[1])
            progress.expect(total + gone)
            if first := list(itertools.islice(paths, 1)):
                table.extend()
                paths = itertools.chain(first, paths)
        if table is None or not table.complete:
            for score in _scores(scorer, paths, o, kept):
                destination.add(output.row_of(score, mark))
                counts[score.error] += 1
                progress.show(counts, kept)
            destination.finish()
    progress.end(counts, kept, o.output)
    return OK if set(counts) <= {""} else SOME_FAILED


def _scores(
    scorer: "Scorer", paths: Iterator[str], o: argparse.Namespace, kept: int
) -> Iterator[Score]:
    """The Score of each path, by chunks: see `output`."""
    number = kept
    if o.maps:
        from diffv2iqa_jax.scoring import maps

        os.makedirs(o.maps, exist_ok=True)
    while chunk := list(itertools.islice(paths, output.CHUNK)):
        scorer.forget()
        for score in scorer(iter(chunk), seeds=o.seeds, details=bool(o.maps)):
            if o.maps and not score.error:
                place = o.shard[0] - 1 + number * o.shard[1]
                maps.write(o.maps, place, score.path, maps.strip(score))
            number += 1
            yield score


@dataclasses.dataclass
class Destination:
    """Where rows go.

    Attributes:
      add: takes a row.
      finish: called after the last row.
      table: the file; None for stdout.
    """

    add: Callable[[dict], None]
    finish: Callable[[], None]
    table: output.Table | None = None


@contextmanager
def _destination(o: argparse.Namespace) -> Iterator[Destination]:
    """The file, or stdout; where something goes wrong, rows written so far stay."""
    if o.output is None:

        def put(text: str) -> None:
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
            sys.stdout.flush()

        put(output.header(o.format))
        yield Destination(
            add=lambda row: put(output.text_of(row, o.format, o.csv_safe)), finish=sys.stdout.flush
        )
        return
    options = {"resume": o.resume, "overwrite": o.overwrite, "safe": o.csv_safe}
    table = output.Table(o.output, format=o.format, **options)
    try:
        yield Destination(table.add, table.finish, table)
    finally:
        table.leave()


class Progress:
    """A line on stderr: how many are done, ok and failed, images a second, time left.

    Args:
      total: how many pictures there are.
      stream: a terminal gets one line that changes; a file a line every ten seconds.
      shown: False prints the summary alone.
      quiet: prints nothing.
    """

    def __init__(self, total: int, stream: TextIO, *, shown: bool, quiet: bool = False):
        self._total, self._stream, self._quiet = total, stream, quiet
        self._shown = shown and not quiet
        self._start = self._shown_at = time.monotonic()
        self._live = stream.isatty()

    def expect(self, total: int) -> None:
        """Says that there are so many pictures."""
        self._total = total

    def show(self, counts: collections.Counter, kept: int) -> None:
        """Prints the line, if the last one is old enough.

        Args:
          counts: rows by error code; "" counts scores.
          kept: how many of them an earlier run wrote.
        """
        now = time.monotonic()
        if not self._shown or now - self._shown_at < (0.5 if self._live else 10):
            return
        self._shown_at = now
        done = sum(counts.values())
        speed = (done - kept) / max(now - self._start, 1e-9)
        left = time.strftime("%H:%M:%S", time.gmtime((self._total - done) / max(speed, 1e-9)))
        line = f"{done}/{self._total}  {self._numbers(counts)}  {speed:.3g} images/s  eta {left}"
        print(f"\r\x1b[K{line}" if self._live else line, end="" if self._live else "\n", **self._to)

    def end(self, counts: collections.Counter, kept: int, path: str | None) -> None:
        """Prints the summary; `path` is the file of scores."""
        if self._quiet:
            return
        took = max(time.monotonic() - self._start, 1e-9)
        fresh = sum(counts.values()) - kept
        speed = f"{fresh / took:.3g} images/s" if fresh else "nothing left to do"
        speed = f"{fresh} new, {speed}" if fresh and kept else speed
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
