"""Turns a download into a data set that configurations can name.

  python -m diffv2iqa_jax.data.prepare tid2013 --source ~/Downloads/tid2013
  python -m diffv2iqa_jax.data.prepare csv --name mine --source labels.csv --low 1 --high 5
  python -m diffv2iqa_jax.data.prepare pool --name holiday --source ~/Pictures/holiday

The source is a folder or a zip or tar archive. Names, counts and scores are checked before
anything is written. The same again is done at once; where the set that is there was made of other
labels, pictures or options, it is kept, and they are listed. Exit codes: 0 done, 2 the source does
not fit or differs (how is listed), 4 there is nothing to prepare.
"""

import argparse
import contextlib
import dataclasses
import difflib
import os
import string
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diffv2iqa_jax import storage
from diffv2iqa_jax.data import prepared
from diffv2iqa_jax.data.sets import archives, catalog, facts, own, readers
from diffv2iqa_jax.data.sets.catalog import SETS, LayoutError, NothingError, Row, Set
from diffv2iqa_jax.data.sets.layout import Layout
from diffv2iqa_jax.errors import ConfigError, one_line
from diffv2iqa_jax.pp.decode import ICC, ORIENTATIONS, TO_STORE, Reading

OWN = ("csv", "pool")
OF_A_NAME = string.ascii_letters + string.digits + "-_"
EXIT_LAYOUT, EXIT_NOTHING = 2, 4


class Plan(NamedTuple):
    """A set to build.

    Attributes:
      name: as configurations name it.
      spec: its constants.
      rows: of its images.
      facts: to keep beside them.
      passed: what its folder holds besides pictures, as text.
    """

    name: str
    spec: Set
    rows: list[Row]
    facts: dict[str, Any]
    passed: str = ""


@contextlib.contextmanager
def public(name: str, source: str, folder: str, *, allow_missing: bool = False) -> Iterator[Plan]:
    """Checks the release of a public set; its files are there within the context.

    Args:
      name: one of `catalog.SETS`.
      source: its folder or archive.
      folder: the folder of all sets.
      allow_missing: take the files that are there, although some are missing, extra or have other
        names; the set is marked incomplete, and so is every result on it.

    Raises:
      LayoutError: the source does not fit.
    """
    if name not in SETS:
        close = difflib.get_close_matches(name, SETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise LayoutError(f"data set {name!r}: known are {', '.join(SETS)}{hint}")
    spec = SETS[name]
    with unpacked(source, folder) as root:
        layout = Layout(root, any_case=spec.any_case)
        rows = readers.READERS[name](layout)
        differences = layout.differences(*check(spec, rows, layout))
        if differences and not allow_missing:
            raise LayoutError(
                f"{source}: is not {spec.title} as released (nothing was written; "
                f"--allow_missing takes what is there and marks the set):",
                differences,
            )
        if not rows:
            raise LayoutError(f"{source}: none of the images is there", differences)
        lacking = max(spec.images - len(rows), 0)
        yield Plan(name, spec, rows, {"complete": not differences, "lacking": lacking})


def check(spec: Set, rows: list[Row], layout: Layout) -> list[str]:
    """A line each on a wrong number of labels, scores outside the scale, and repeated names."""
    named, wanted = len(rows) + len(layout.missing), layout.expected or spec.images
    lines = []
    if named != wanted:
        lines.append(f"labels: name {named} images, the release has {wanted}")
    outside = [r for r in rows if r.native is not None and not spec.low <= r.native <= spec.high]
    if outside:
        example = f"{outside[0].name} with {outside[0].native:g}"
        scale = f"{spec.low:g}..{spec.high:g}"
        lines.append(f"scores: {len(outside)} lie outside {scale}, first {example}")
    seen: set[str] = set()
    twice = [r.name for r in rows if r.name in seen or seen.add(r.name)]
    if twice:
        lines.append(f"names: {len(twice)} stand twice in the labels, first {twice[0]}")
    return lines


@contextlib.contextmanager
def unpacked(source: str, folder: str) -> Iterator[Path]:
    """The source as a folder: itself, or its unpacked archive, which is removed afterwards.

    Raises:
      LayoutError: there is no such source, or it is no archive that we unpack.
    """
    if not os.path.exists(source):
        raise LayoutError(f"--source {source}: there is no such file or folder")
    if os.path.isdir(source):
        yield Path(source)
        return
    if not archives.is_archive(source):
        known = ", ".join((*archives.ZIP, *archives.TAR))
        raise LayoutError(f"--source {source}: is no folder and none of {known}; unpack it first")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacked.", dir=folder) as place:
        archives.unpack(source, place)
        yield Path(place)


@contextlib.contextmanager
def mine(name: str, o: argparse.Namespace) -> Iterator[Plan]:
    """Checks a user's own table or folder; raises LayoutError if it does not fit."""
    if not o.name or not set(o.name) <= set(OF_A_NAME):
        raise LayoutError(f"--name {o.name!r}: give the set a name of letters, digits, - and _")
    facts = {"complete": True, "lacking": 0}
    if o.set == "pool":
        with unpacked(o.source, o.folder) as root:
            rows, spec, passed = own.pool(root)
            yield Plan(name, spec, rows, facts, passed)
        return
    columns = {key: getattr(o, f"{key}_column") for key in own.COLUMNS}
    columns = {key: column for key, column in columns.items() if column}
    if "dmos" in columns["mos"].lower() and not (o.lower_better or o.higher_better):
        raise LayoutError(
            f"--mos_column {columns['mos']}: a DMOS is low for good images, but not everywhere:"
            " give --lower_better or --higher_better"
        )
    rows = own.table(o.source, o.images, columns)
    low, high, guess = own.scale(rows, o.low, o.high)
    if guess:
        better = "low" if o.lower_better else "high"
        text = f"prepare: {columns['mos']} {guess}, {better} is good"
        confirm = f"--low {low:g} --high {high:g} confirms, others change it"
        print(f"{text}; {confirm}", file=sys.stderr)
    title = os.path.basename(o.source)
    spec = own.catalog(rows, low, high, not o.lower_better, title, " ".join(o.labels.split()))
    yield Plan(name, spec, rows, facts | {"scale_guessed": bool(guess)})


def reading_of(o: argparse.Namespace) -> Reading:
    """How the options ask to read image files."""
    return dataclasses.replace(TO_STORE, icc=o.icc, orientation=o.orientation)


def _build(plan: Plan, o: argparse.Namespace) -> dict[str, Any]:
    # After all checks: TensorFlow takes seconds to import.
    from diffv2iqa_jax.data.sets import store

    def build(folder: str) -> dict[str, Any]:
        options = {"reading": reading_of(o), "allow_missing": o.allow_missing}
        return store.build(plan.name, folder, plan.spec, plan.rows, **options, **plan.facts)

    if catalog.complete(plan.name, o.folder):
        return prepared.swapped(plan.name, o.folder, build)
    try:
        return build(o.folder)
    except (LayoutError, OSError):
        with contextlib.suppress(OSError):  # it holds something
            os.rmdir(catalog.place(plan.name, o.folder).parent)
        raise


def run(name: str, o: argparse.Namespace) -> None:
    """Builds a set, or says that it is there already.

    Raises:
      LayoutError: the source does not fit, or the set that is there is made of another one.
    """
    there = catalog.known(name) and catalog.complete(name, o.folder) and not o.overwrite
    place, reading, archive = catalog.place(name, o.folder), reading_of(o), os.path.isfile(o.source)
    if there and not os.path.exists(o.source):
        print(f"{name}: is there already, in {place}; --source {o.source} is not, to compare it")
        return
    archive = o.set != "csv" and archive
    if there and archive and prepared.same_archive(name, o.folder, o.source, reading):
        print(f"{name}: is there already, in {place}")
        return
    allowed = o.allow_missing or (there and not prepared.held(name, o.folder).get("complete"))
    found = public(o.set, o.source, o.folder, allow_missing=allowed)
    with mine(name, o) if o.set in OWN else found as plan:
        if archive:
            plan.facts["archive"] = facts.archive(o.source)
        if not there:
            _say(_build(plan, o), plan)
            return
        lines, unseen = prepared.differences(name, o.folder, plan.spec, plan.rows, reading)
    if lines:
        other = ", another --name keeps both" if o.set in OWN else ", another --folder keeps both"
        raise LayoutError(
            f"{name}: is in {place} already and differs (nothing was written; --overwrite replaces "
            f"it{other}):",
            lines,
        )
    print(f"{name}: is there already, in {place}{f' (not compared: {unseen})' if unseen else ''}")


def _say(done: dict[str, Any], plan: Plan) -> None:
    print(f"{done['name']}: {done['images']} images in {done['folder']}")
    if done["left_out"]:
        lines = catalog.shortened(done["left_out"])
        text = f"prepare: left out, as they cannot be read, {len(done['left_out'])} files:"
        print("\n  ".join([text, *lines]), file=sys.stderr)
    if plan.passed:
        print(f"prepare: passed over: {plan.passed}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m diffv2iqa_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("set", metavar="NAME", help=f"one of {', '.join((*SETS, *OWN))}")
    out.add_argument("--source", required=True, help="the download: a folder or an archive")
    out.add_argument("--folder", default="~/tensorflow_datasets", help="where the set will lie")
    out.add_argument(
        "--allow_missing", action="store_true", help="take what is there, and mark the set"
    )
    out.add_argument("--overwrite", action="store_true", help="replace the set that is there")
    out.add_argument(
        "--icc", choices=ICC, default=ICC[0], help="colour profiles: to sRGB, or as if not there"
    )
    out.add_argument(
        "--orientation", choices=ORIENTATIONS, default=ORIENTATIONS[0], help="in EXIF; as --icc"
    )
    group = out.add_argument_group("own sets (csv, pool)")
    group.add_argument("--name", help="the set will be csv/NAME or pool/NAME")
    group.add_argument("--images", help="folder of the table's images; default: the table's own")
    for key in own.COLUMNS:
        default = key if key in ("image", "mos") else None
        group.add_argument(f"--{key}_column", metavar="COLUMN", default=default)
    group.add_argument(
        "--low",
        type=float,
        help="lowest score the scale allows; by default a guess, which is shown",
    )
    group.add_argument("--high", type=float, help="highest score the scale allows")
    better = group.add_mutually_exclusive_group()
    better.add_argument("--lower_better", action="store_true", help="a low score is a good one")
    better.add_argument("--higher_better", action="store_true", help="a high one; the default")
    group.add_argument(
        "--labels",
        default="given",
        help="what the scores are: MOS or DMOS of people, or 'formula NAME'; reports call them so",
    )
    return out


def main(argv: list[str] | None = None) -> int:
    o = parser().parse_args(argv)
    try:
        o.folder = storage.expanded(o.folder)
    except ConfigError as error:
        print(f"prepare: --folder {error}", file=sys.stderr)
        return EXIT_LAYOUT
    if storage.is_remote(o.folder):
        print(f"prepare: --folder {o.folder}: must be local; copy it then", file=sys.stderr)
        return EXIT_LAYOUT
    try:
        run(f"{o.set}/{o.name}" if o.set in OWN else o.set, o)
    except (LayoutError, OSError) as error:
        line = one_line(error) if isinstance(error, OSError) else error
        print(f"prepare: {line}", file=sys.stderr)
        return EXIT_NOTHING if isinstance(error, NothingError) else EXIT_LAYOUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
