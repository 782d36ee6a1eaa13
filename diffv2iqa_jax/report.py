"""Reads the folder of a run and writes one self-contained page about it.

  python -m diffv2iqa_jax.report RUN [-o report.html]
  python -m diffv2iqa_jax.report RUN --figure out.png
  python -m diffv2iqa_jax.report --ablation RUN RUN...
  python -m diffv2iqa_jax.report --restored RUN RUN...
  python -m diffv2iqa_jax.report METHOD METHOD... [-o FOLDER]

RUN is the folder of one run, or a folder that holds the folders of its stages. METHOD is a
folder with all runs of one method below it, whatever sets and splits they are of; several, or
one with --tables, become tables.md, tables.csv and tables.html in FOLDER. Neither JAX nor
TensorFlow is needed. Exit code 2: the folder cannot be reported on; nothing is written.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffv2iqa_jax.reporting import ablation, benchmark, benchmark_page, charts, page, restoration
from diffv2iqa_jax.reporting.html import known, number
from diffv2iqa_jax.reporting.page import TASKS, Run

TEXTS = ("id", "name", "group", "type", "level")  # columns of predictions.csv that stay text
NEEDED = {"quality": ("mos", "score"), "restoration": ("psnr_image", "psnr_restored")}
FIGURE_ROWS = 4  # strips in the headline figure


def write(run: str, out: str | None = None) -> str:
    """Writes the page of a run; an older one is replaced only by a complete new one.

    Args:
      run: folder of one run, or of its stages.
      out: the page's path; RUN/report.html if None.

    Returns:
      The path written.

    Raises:
      ValueError: the folder is missing, is no run, or holds a damaged file; what, why and
        the next step in one line.
    """
    text = page.page(Path(run).resolve().name, read(run))
    path = Path(out) if out else Path(run) / "report.html"
    return _replace(path, lambda part: Path(part).write_text(text, encoding="utf-8"))


def headline_figure(run: str, path: str) -> str:
    """Writes one wide PNG: strips of restored images, and the scatter with its fit.

    A run without opinions shows its PSNR per distortion instead of the scatter.

    Returns:
      The path written.

    Raises:
      ValueError: as `write`; or the run holds nothing to draw.
    """
    runs = read(run)
    strips, columns = _figure_strips(runs)
    draw = _figure_chart(runs)
    if draw is None:
        raise ValueError(f"{run} has no predictions.csv to draw; evaluate the run first")
    return _replace(Path(path), lambda part: charts.headline(strips, columns, draw, part))


def read(folder: str) -> list[Run]:
    """The runs of a folder: itself, or its stages with restoration first.

    Raises:
      ValueError: the folder is missing, is no run, or holds a damaged file.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --workdir of a run")
    marks = ("results.json", "metrics.jsonl")
    stages = [p for p in sorted(root.iterdir()) if any((p / mark).is_file() for mark in marks)]
    # A folder of stages has a config.json too, which names them.
    own = marks if stages else (*marks, "config.json")
    if any((root / name).is_file() for name in own):
        return [_run(root)]
    if not stages:
        raise ValueError(
            f"{folder} is not a run: neither it nor a folder in it has a results.json or a "
            "metrics.jsonl; give the --workdir of a run"
        )
    order = [*TASKS, ""]
    return sorted((_run(p) for p in stages), key=lambda run: order.index(run.task))


def judged(folder: str) -> Run:
    """The quality stage of a folder, named as the user named the folder.

    Raises:
      ValueError: as `read`; or there is no such stage in it.
    """
    found = [run for run in read(folder) if run.task == "quality"]
    if not found:
        raise ValueError(f"{folder}: holds no quality run; give runs of stage 2")
    return found[-1]._replace(name=folder)


def write_tables(folders: list[str], out: str) -> list[str]:
    """Writes tables.md, tables.csv and tables.html of all quality runs below some folders.

    Args:
      folders: one for each method; `NAME=FOLDER` gives it another name than the folder's.
      out: an existing folder, or one to make.

    Returns:
      The paths written.

    Raises:
      ValueError: as `read`; or a folder holds no evaluated quality run, or two have one name.
    """
    entries = [entry for folder in folders for entry in _entries(folder)]
    named = [_named(folder)[0] for folder in folders]
    twice = sorted({n for n in named if named.count(n) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} names two methods; write NAME=FOLDER to tell them apart")
    texts = {
        "tables.md": benchmark.markdown(benchmark.all_tables(entries)),
        "tables.csv": benchmark.as_csv(entries),
        "tables.html": benchmark_page.page(" and ".join(named), entries),
    }
    Path(out).mkdir(parents=True, exist_ok=True)
    write_one = lambda text: lambda part: Path(part).write_text(text, encoding="utf-8")
    return [_replace(Path(out) / name, write_one(text)) for name, text in texts.items()]


def _named(folder: str) -> tuple[str, Path]:
    name, sign, path = folder.partition("=")
    if sign and not Path(folder).exists():
        return name, Path(path)
    return Path(folder).resolve().name, Path(folder)


def _entries(folder: str) -> list[benchmark.Entry]:
    """All evaluations below a folder: of runs on their own test part, and in their eval/."""
    method, root = _named(folder)
    found = []
    for path in sorted(root.rglob("results.json")):
        elsewhere = path.parent.parent.name == "eval"
        home = path.parents[2] if elsewhere else path.parent
        run = _run(path.parent, examples=False)
        if run.task == "quality" and run.results["scores"]:
            config = _json(home / "config.json")
            found.append(benchmark.entry(method, run._replace(config=config), own=not elsewhere))
    if not found:
        raise ValueError(f"{root}: no evaluated quality run in it or below; train one first")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m diffv2iqa_jax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", nargs="+", help="folder of a run, or of its stages")
    parser.add_argument("-o", "--output", help="the page to write (default: RUN/report.html)")
    parser.add_argument("--figure", metavar="PNG", help="write one picture instead of the page")
    parser.add_argument("--ablation", action="store_true", help="table; the first RUN is the base")
    parser.add_argument("--restored", action="store_true", help="table of runs of stage 1")
    parser.add_argument("--tables", action="store_true", help="tables, of one METHOD too")
    args = parser.parse_args(argv)
    try:
        if args.ablation:
            print(ablation.table([judged(run) for run in args.run]))
        elif args.restored:
            print(restoration.table([read(run)[0]._replace(name=run) for run in args.run]))
        elif args.tables or len(args.run) > 1:
            out = args.output or str(_named(args.run[0])[1] / "tables")
            print("\n".join(write_tables(args.run, out)))
        elif args.figure:
            print(headline_figure(args.run[0], args.figure))
        else:
            print(write(args.run[0], args.output))
    except (ValueError, OSError) as error:
        print(f"report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _replace(path: Path, make: Callable[[str], object]) -> str:
    """Lets `make` write beside `path`, then puts the result in its place."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is not a folder; make it first or choose another output")
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        make(part)
        os.chmod(part, 0o644)  # a temporary file is private; a report is to be read
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    return str(path)


def _run(folder: Path, *, examples: bool = True) -> Run:
    results = _json(folder / "results.json")
    if results is not None:
        _check(results, folder / "results.json")
    config = _json(folder / "config.json")
    task = str((results or config or {}).get("task", ""))
    history, damaged = _history(folder / "metrics.jsonl")
    return Run(
        name=folder.resolve().name,
        task=task if task in TASKS else "",
        results=results,
        config=config,
        env=_json(folder / "env.json"),
        history=history,
        damaged=damaged,
        predictions=_predictions(folder / "predictions.csv", task),
        examples=_examples(folder / "examples.npz") if examples else None,
    )


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path} is damaged ({why}); evaluate the run again to rewrite it")


def _json(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"a JSON object was expected, not {type(value).__name__}")
    return value


def _check(results: dict, path: Path) -> None:
    """Refuses results whose shape the page cannot follow."""
    if results.get("task") not in TASKS:
        raise _damaged(path, f"task is {results.get('task')!r}, not one of {list(TASKS)}")
    tables = [results.get(key) or {} for key in ("scores", "per_type", "protocol", "baselines")]
    scores, per_type = tables[:2]
    if not all(isinstance(table, dict) for table in tables):
        raise _damaged(path, "scores, per_type, protocol and baselines must be objects")
    rows = [*scores.values(), *per_type.values()]
    if results["task"] == "quality":
        if not scores and results.get("part") != "none":
            raise _damaged(path, "it holds no scores")
        rows += [v for row in per_type.values() if isinstance(row, dict) for v in row.values()]
        rows += [row.get("fit") or {} for row in scores.values() if isinstance(row, dict)]
    if not all(isinstance(row, dict) for row in rows):
        raise _damaged(path, "the rows of scores and per_type must be objects")


def _history(path: Path) -> tuple[dict[str, dict[int, float]], int]:
    """The log by key and step; a step written twice (a resumed run) keeps the later value."""
    history, damaged = {}, 0
    if not path.is_file():
        return history, damaged
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged += bool(line.strip())  # a killed run leaves half a line
            continue
        for key, value in row.items():
            if known(value):
                history.setdefault(key, {})[step] = float(value)
    return history, damaged


def _predictions(path: Path, task: str) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file, strict=True)
        columns = dict(
            zip(head, zip(*rows, strict=True) if rows else [()] * len(head), strict=True)
        )
        table = {
            key: np.array(values, str)
            if key in TEXTS
            else np.array([float(v) if v else np.nan for v in values])
            for key, values in columns.items()
        }
    except (ValueError, csv.Error) as error:
        raise _damaged(path, error) from error
    lacking = sorted({*TEXTS, *NEEDED.get(task, ())} - set(table))
    if lacking:
        raise _damaged(path, f"no column {', '.join(lacking)}")
    return table


def _examples(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            examples = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    dimensions = {"id": 1, "why": 1, "image": 4, "views": 5, "reference": 4}
    for key, value in examples.items():
        want = dimensions.get(key, 3 if key.startswith("map_") else value.ndim)
        if value.ndim != want or len(value) != len(examples.get("id", ())):
            raise _damaged(path, f"{key} has the shape {value.shape}")
        if key in ("image", "views", "reference") and value.dtype != np.uint8:
            raise _damaged(path, f"{key} is {value.dtype}, not uint8")
    if not {"id", "why", "image"} <= set(examples):
        raise _damaged(path, "it lacks id, why or image")
    return examples


def _figure_strips(runs: list[Run]) -> tuple[list, list[str]]:
    """Strips of a few types, from the run that knows the originals, quality first."""
    able = [r for r in reversed(runs) if r.examples is not None and "views" in r.examples]
    # Then the larger pictures: a quality run may show crops.
    wide = lambda r: r.examples["image"].shape[2]
    able.sort(key=lambda r: ("reference" not in r.examples, -wide(r)))
    if not able:
        return [], []
    examples = able[0].examples
    rows = [i for i, why in enumerate(examples["why"]) if str(why).startswith("type")]
    rows = rows or list(range(len(examples["why"])))
    spread = np.unique(np.linspace(0, len(rows) - 1, min(FIGURE_ROWS, len(rows))).astype(int))
    noisy = range(examples["views"].shape[1] - 1, 0, -1)
    columns = ["$x_{dis}$", *(f"$y_{{t{i}}}$" for i in noisy), "$y_0$", "reference"]
    columns = columns[: len(columns) - ("reference" not in examples)]
    chosen = [rows[i] for i in spread]
    names = [str(examples["why"][i]).removeprefix("type ") for i in chosen]
    images = [page.strip(examples, i)[: len(columns)] for i in chosen]
    return list(zip(names, images, strict=True)), columns


def _figure_chart(runs: list[Run]) -> Callable | None:
    for run in reversed(runs):
        if run.task == "quality" and run.predictions is not None:
            table, found = run.predictions, ((run.results or {}).get("scores") or {}).get("score")
            srcc = number((found or {}).get("srcc"))
            title = f"SRCC {srcc} on {len(table['id'])} images"
            colours, fit = page.colours_of(run), page.fit_of(run, "score")
            return charts.scatter_on(
                table["score"], table["mos"], table["type"].tolist(), colours, fit, title
            )
    for run in reversed(runs):
        if run.task == "restoration" and run.results is not None:
            named = {"all": run.results} | (run.results.get("per_type") or {})
            pairs = [(k, r.get("psnr_image"), r.get("psnr_restored")) for k, r in named.items()]
            pairs = [pair for pair in pairs if known(pair[1]) and known(pair[2])]
            return charts.gains_on(pairs, "PSNR to the original") if pairs else None
    return None


if __name__ == "__main__":
    sys.exit(main())
