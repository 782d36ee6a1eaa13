"""The ablation table: what each run changes in the first one, and what that does to its scores."""

import json

import numpy as np

from diffv2iqa_jax.config import flat
from diffv2iqa_jax.reporting.html import is_number, markdown_table, number
from diffv2iqa_jax.reporting.run import Run

# Keys that repeat an experiment: runs that differ in no other are one row, with mean and deviation.
REPEATED = ("seed", "restorer.seed", "restorer.run", "restorer.folder", "data.folder")
SAME = ("name", "split_sha256", "pp_test")  # of the protocol; scores compare only where these agree
COLUMNS = {"srcc": "SRCC", "plcc_fit": "PLCC, fitted", "rmse_fit": "RMSE, fitted"}


def changes_table(runs: list[Run]) -> str:
    """Markdown: a row for each experiment, in the order given; the first is the base.

    Raises:
      ValueError: a run is of another task or has no results, or was tested on other images.
    """
    for run in runs:
        if run.task != "quality" or run.results is None or run.config is None:
            raise ValueError(f"{run.name}: is no evaluated quality run; give runs of stage 2")

    others = [run.name for run in runs if _protocol(run) != _protocol(runs[0])]
    if others:
        raise ValueError(
            f"{', '.join(others[:3])}: not tested as {runs[0].name} was "
            f"({', '.join(SAME)} differ), so the scores do not compare; "
            "give runs of one data set, split and crop protocol"
        )
    base_config = flat(runs[0].config)
    experiments: dict[str, list[Run]] = {}
    for run in runs:
        experiments.setdefault(_changes(base_config, flat(run.config)), []).append(run)
    base_runs = next(iter(experiments.values()))
    heads = ["change", "runs", *(text for name in COLUMNS.values() for text in (name, "Δ"))]
    rows = []
    for changes, repeats in experiments.items():
        cells = [changes or "(base)", str(len(repeats))]
        for key in COLUMNS:
            cells += [_mean(repeats, key), _gain(repeats, base_runs, key)]
        rows.append(cells)
    return "\n".join(markdown_table(heads, rows))


def _protocol(run: Run) -> list:
    """What must be the same in all runs."""
    return [(run.results.get("protocol") or {}).get(key) for key in SAME]


def _changes(base: dict, config: dict) -> str:
    """The dotted keys that differ, with their values in `config`; a lost section is one entry."""
    absent = object()
    keys = sorted((base.keys() | config.keys()) - set(REPEATED))
    texts = []
    for key in keys:
        if base.get(key, absent) == config.get(key, absent):
            continue
        path = key.split(".")
        parents = [".".join(path[:n]) for n in range(1, len(path) + 1)]
        lost = [p for p in parents if not any(f"{k}.".startswith(f"{p}.") for k in config)]
        text = f"`{lost[0]}` left out" if lost else f"`{key}` = {json.dumps(config[key])}"
        texts += [text] if text not in texts else []
    return ", ".join(texts)


def _values(runs: list[Run], key: str) -> np.ndarray:
    """A measure of the main score in each run that has it."""
    values = [run.results["scores"]["score"].get(key) for run in runs]
    return np.array([value for value in values if is_number(value)], float)


def _mean(runs: list[Run], key: str) -> str:
    values = _values(runs, key)
    if not len(values):
        return number(None)
    spread = f" ± {number(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{number(values.mean())}{spread}"


def _gain(runs: list[Run], base_runs: list[Run], key: str) -> str:
    values, base_values = _values(runs, key), _values(base_runs, key)
    if runs is base_runs or not len(values) or not len(base_values):
        return ""
    return number(values.mean() - base_values.mean(), sign=True)
