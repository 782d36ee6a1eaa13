"""Reads a run's folder: results, log, predictions, examples."""

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffv2iqa_jax import storage
from diffv2iqa_jax.reporting.html import is_number

TASKS = {"restoration": "Restoration", "quality": "Quality"}  # in the order of a page


class Run(NamedTuple):
    """One stage of a run as its folder holds it; None where a file is missing.

    Attributes:
      name: the folder's name.
      task: one of TASKS, or "" where no file says it.
      results: the numbers of the evaluation.
      config: the resolved configuration.
      env: versions, devices and arguments.
      history: {key: {step: value}}, the log; {} where there is none.
      damaged: how many lines of the log are unreadable.
      predictions: columns (N,), a row per image; numbers are float64, missing ones NaN.
      examples: columns (K, ...), images with their views and maps.
    """

    name: str
    task: str
    results: dict | None
    config: dict | None
    env: dict | None
    history: dict[str, dict[int, float]]
    damaged: int
    predictions: dict[str, np.ndarray] | None
    examples: dict[str, np.ndarray] | None


TEXTS = ("id", "name", "group", "type", "level")  # columns of predictions.csv that stay text
# Further columns that the pages need.
NEEDED = {"quality": ("mos", "score"), "restoration": ("psnr_image", "psnr_restored")}


def read(folder: str) -> list[Run]:
    """Reads the runs of a folder: the folder itself, or its stages with restoration first.

    Raises:
      ValueError: the folder is missing, is no run, or holds a damaged file.
    """
    root = storage.path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --workdir of a run")
    marks = ("results.json", "metrics.jsonl")
    stages = [p for p in sorted(root.iterdir()) if any((p / mark).exists() for mark in marks)]
    # A folder of stages has a config.json too, which names them; it does not mark a run there.
    root_marks = marks if stages else (*marks, "config.json")
    if any((root / mark).exists() for mark in root_marks):
        return [read_run(root)]
    if not stages:
        raise ValueError(
            f"{folder} is not a run: neither it nor a folder in it has a results.json or a "
            "metrics.jsonl; give the --workdir of a run"
        )
    order = [*TASKS, ""]
    return sorted((read_run(p) for p in stages), key=lambda run: order.index(run.task))


def quality_run(folder: str) -> Run:
    """Reads the quality stage of a folder; its name is the folder as the user wrote it.

    Raises:
      ValueError: as `read`; or the folder holds no quality stage.
    """
    runs = [run for run in read(folder) if run.task == "quality"]
    if not runs:
        raise ValueError(f"{folder}: holds no quality run; give runs of stage 2")
    return runs[-1]._replace(name=folder)


def read_run(folder: Path, *, examples: bool = True) -> Run:
    """Reads one run's folder, without its examples if not `examples`.

    Raises:
      ValueError: a file is damaged.
    """
    results = read_json(folder / "results.json")
    if results is not None:
        _check(results, folder / "results.json")
    config = read_json(folder / "config.json")
    task = str((results or config or {}).get("task", ""))
    history, damaged = _history(folder / "metrics.jsonl")
    return Run(
        name=folder.name or folder.resolve().name,
        task=task if task in TASKS else "",
        results=results,
        config=config,
        env=read_json(folder / "env.json"),
        history=history,
        damaged=damaged,
        predictions=_predictions(folder / "predictions.csv", task),
        examples=_examples(folder / "examples.npz") if examples else None,
    )


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path} is damaged ({why}); evaluate the run again to rewrite it")


def read_json(path: Path) -> dict | None:
    """Reads a JSON object; None if there is no such file.

    Raises:
      ValueError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"a JSON object was expected, not {type(value).__name__}")
    return value


def _check(results: dict, path: Path) -> None:
    """Raises ValueError for results that are not nested as the page needs them."""
    if results.get("task") not in TASKS:
        raise _damaged(path, f"task is {results.get('task')!r}, not one of {list(TASKS)}")
    sections = [results.get(key) or {} for key in ("scores", "per_type", "protocol", "baselines")]
    scores, per_type = sections[:2]
    if not all(isinstance(section, dict) for section in sections):
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
    """The log by key and step, and how many of its lines are unreadable.

    A step that stands twice in the log (of a resumed run) keeps its later value.
    """
    history, damaged = {}, 0
    if not path.exists():
        return history, damaged
    for line in storage.lines(path):
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged += bool(line.strip())  # a killed run leaves half a line
            continue
        for key, value in row.items():
            if is_number(value):
                history.setdefault(key, {})[step] = float(value)
    return history, damaged


def _predictions(path: Path, task: str) -> dict[str, np.ndarray] | None:
    """Reads the columns of predictions.csv; None if there is no such file."""
    if not path.exists():
        return None
    try:
        text = path.read_bytes().decode("utf-8")
        head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        texts = zip(*rows, strict=True) if rows else [()] * len(head)
        columns = {key: _column(key, cells) for key, cells in zip(head, texts, strict=True)}
    except (ValueError, csv.Error) as error:
        raise _damaged(path, error) from error
    lacking = sorted({*TEXTS, *NEEDED.get(task, ())} - set(columns))
    if lacking:
        raise _damaged(path, f"no column {', '.join(lacking)}")
    return columns


def _column(key: str, cells: Sequence[str]) -> np.ndarray:
    """One of TEXTS as text, any other as numbers, NaN where a cell is empty."""
    if key in TEXTS:
        return np.array(cells, str)
    return np.array([float(cell) if cell else np.nan for cell in cells])


def _examples(path: Path) -> dict[str, np.ndarray] | None:
    """Reads the arrays of examples.npz; None if there is no such file."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            examples = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    dimensions = {"id": 1, "why": 1, "image": 4, "views": 5, "reference": 4}
    for key, value in examples.items():
        ndim = dimensions.get(key, 3 if key.startswith("map_") else value.ndim)
        if value.ndim != ndim or len(value) != len(examples.get("id", ())):
            raise _damaged(path, f"{key} has the shape {value.shape}")
        if key in ("image", "views", "reference") and value.dtype != np.uint8:
            raise _damaged(path, f"{key} is {value.dtype}, not uint8")
    if not {"id", "why", "image"} <= set(examples):
        raise _damaged(path, "it lacks id, why or image")
    return examples
