"""Writes the page, the figure and the tables of runs, each file complete or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffv2iqa_jax import storage
from diffv2iqa_jax.reporting import benchmark, benchmark_page, charts, page
from diffv2iqa_jax.reporting.html import is_number, number
from diffv2iqa_jax.reporting.run import Run, read, read_json, read_run

PAGES = (".html", ".htm")
FIGURE_ROWS = 4  # strips in the headline figure


def write(run: str, out: str | None = None) -> str:
    """Writes the page of a run; an older page stays until the new one is complete.

    Args:
      run: folder of one run, or of its stages.
      out: the page's path; RUN/report.html if None.

    Returns:
      The path of the page.

    Raises:
      ValueError: the folder is missing, is no run, or holds a damaged file, or the page would have
        another ending than .html; says what, why and the next step in one line.
      OSError: the page cannot be written; nothing of it is left.
    """
    if out:
        storage.ending(out, PAGES)
    folder = storage.path(run)
    name = folder.name if storage.is_remote(run) else folder.resolve().name
    text = page.run_page(name, read(run))
    page_path = storage.path(out) if out else folder / "report.html"
    storage.write(page_path, text)
    return str(page_path)


def headline_figure(run: str, path: str) -> str:
    """Writes one wide picture: strips of restored images, and the scatter with its fit.

    A run without opinions shows its PSNR per distortion instead of the scatter.

    Args:
      path: of the picture; its ending says what it is, one of `charts.FIGURES`.

    Returns:
      The path of the picture.

    Raises:
      ValueError: as `write`; or the run holds nothing to draw.
    """
    storage.ending(path, charts.FIGURES)
    runs = read(run)
    strips, columns = _figure_strips(runs)
    draw = _figure_chart(runs)
    if draw is None:
        raise ValueError(f"{run} has no predictions.csv to draw; evaluate the run first")
    charts.headline(strips, columns, draw, path)
    return path


def write_tables(folders: list[str], out: str) -> list[str]:
    """Writes tables.md, tables.csv and tables.html of all quality runs below some folders.

    Args:
      folders: one for each method, or NAME=FOLDER to name the method otherwise than the folder.
      out: an existing folder, or one to make.

    Returns:
      The paths of the files.

    Raises:
      ValueError: as `read`; or a folder holds no evaluated quality run, or two have one name.
    """
    storage.check_folder(out)
    entries = [entry for folder in folders for entry in entries_below(folder)]
    methods = [name_and_folder(folder)[0] for folder in folders]
    repeated = sorted({method for method in methods if methods.count(method) > 1})
    if repeated:
        raise ValueError(f"{repeated[0]!r} names two methods; write NAME=FOLDER to tell them apart")
    texts = {
        "tables.md": benchmark.as_markdown(benchmark.all_tables(entries)),
        "tables.csv": benchmark.as_csv(entries),
        "tables.html": benchmark_page.methods_page(" and ".join(methods), entries),
    }
    storage.make_folder(out)
    for name, text in texts.items():
        storage.write(storage.path(out) / name, text)
    return [str(storage.path(out) / name) for name in texts]


def name_and_folder(folder: str) -> tuple[str, Path]:
    """Splits NAME=FOLDER; without a name, the method has the folder's."""
    name, equals, path = folder.partition("=")
    if equals and not storage.exists(folder):
        return name, storage.path(path)
    place = storage.path(folder)
    return (place if storage.is_remote(folder) else place.resolve()).name, place


def entries_below(folder: str) -> list[benchmark.Entry]:
    """All evaluations below a folder: of runs on their own test part, and in their eval/.

    Raises:
      ValueError: there is none, or a file is damaged.
    """
    method, root = name_and_folder(folder)
    entries = []
    files = [x for x in storage.files_below(root) if os.path.basename(x) == "results.json"]
    for path in sorted(map(storage.path, files)):
        elsewhere = path.parent.parent.name == "eval"
        run_folder = path.parents[2] if elsewhere else path.parent
        run = read_run(path.parent, examples=False)
        if run.task == "quality" and run.results["scores"]:
            run = run._replace(config=read_json(run_folder / "config.json"))
            entries.append(benchmark.make_entry(method, run, own=not elsewhere))
    if not entries:
        raise ValueError(f"{root}: no evaluated quality run in it or below; train one first")
    return entries


def _figure_strips(runs: list[Run]) -> tuple[list, list[str]]:
    """Strips of a few distortion types, (name, images) each, and the names of the columns.

    Takes the run that holds the originals; of several, the one with the largest pictures (a
    quality run may hold crops only), then the quality run.
    """
    usable = [run for run in reversed(runs) if run.examples and "views" in run.examples]
    if not usable:
        return [], []
    examples = min(
        (run.examples for run in usable),
        key=lambda examples: ("reference" not in examples, -examples["image"].shape[2]),
    )
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
    """Draws the figure's chart on an axes; None where no run has anything to draw."""
    for run in reversed(runs):
        if run.task == "quality" and run.predictions is not None:
            columns, scores = run.predictions, (run.results or {}).get("scores") or {}
            srcc = number((scores.get("score") or {}).get("srcc"))
            title = f"SRCC {srcc} on {len(columns['id'])} images"
            colours, fit = page.colours_of(run), page.fit_of(run, "score")
            drawn = (columns["score"], columns["mos"], columns["type"].tolist())
            return charts.scatter_on(*drawn, colours, fit, title, page.words_of(run).axis)
    for run in reversed(runs):
        if run.task == "restoration" and run.results is not None:
            rows = {"all": run.results} | (run.results.get("per_type") or {})
            gains = [
                (k, row.get("psnr_image"), row.get("psnr_restored")) for k, row in rows.items()
            ]
            gains = [gain for gain in gains if is_number(gain[1]) and is_number(gain[2])]
            return charts.gains_on(gains, "PSNR to the original") if gains else None
    return None
