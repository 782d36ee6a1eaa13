"""Writes the page, the figure and the tables of runs; complete or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffv2iqa_jax.reporting import benchmark, benchmark_page, charts, page
from diffv2iqa_jax.reporting.html import known, number
from diffv2iqa_jax.reporting.run import Run, read, read_json, read_run

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
    entries = [entry for folder in folders for entry in entries(folder)]
    named = [named(folder)[0] for folder in folders]
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


def named(folder: str) -> tuple[str, Path]:
    name, sign, path = folder.partition("=")
    if sign and not Path(folder).exists():
        return name, Path(path)
    return Path(folder).resolve().name, Path(folder)


def entries(folder: str) -> list[benchmark.Entry]:
    """All evaluations below a folder: of runs on their own test part, and in their eval/."""
    method, root = named(folder)
    found = []
    for path in sorted(root.rglob("results.json")):
        elsewhere = path.parent.parent.name == "eval"
        home = path.parents[2] if elsewhere else path.parent
        run = read_run(path.parent, examples=False)
        if run.task == "quality" and run.results["scores"]:
            config = read_json(home / "config.json")
            found.append(benchmark.entry(method, run._replace(config=config), own=not elsewhere))
    if not found:
        raise ValueError(f"{root}: no evaluated quality run in it or below; train one first")
    return found


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
