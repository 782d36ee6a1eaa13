"""An ablation table: what each run changes of the first one, and what that does to its scores."""

import json

import numpy as np

from diffv2iqa_jax.config import flat
from diffv2iqa_jax.reporting.html import known, markdown, number
from diffv2iqa_jax.reporting.run import Run

# These make no other experiment: repeats with other seeds are one row, with mean and deviation.
REPEATED = ("seed", "restorer.seed", "restorer.run", "restorer.folder", "data.folder")
SAME = ("name", "split_sha256", "pp_test")  # of the protocol, or scores do not compare
COLUMNS = {"srcc": "SRCC", "plcc_fit": "PLCC, fitted", "rmse_fit": "RMSE, fitted"}


def table(runs: list[Run]) -> str:
    """Markdown: a row for each experiment, in the order given; the first is the base.

    Raises:
      ValueError: a run is of another task or has no results, or was tested on other images.
    """
    for run in runs:
        if run.task != "quality" or run.results is None or run.config is None:
            raise ValueError(f"{run.name}: is no evaluated quality run; give runs of stage 2")
    protocol = lambda run: [(run.results.get("protocol") or {}).get(key) for key in SAME]
    odd = [run.name for run in runs if protocol(run) != protocol(runs[0])]
    if odd:
        raise ValueError(
            f"{', '.join(odd[:3])}: not tested as {runs[0].name} was ({', '.join(SAME)} differ), "
            "so the scores do not compare; give runs of one data set, split and crop protocol"
        )
    base = flat(runs[0].config)
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(_changes(base, flat(run.config)), []).append(run)
    first = next(iter(rows.values()))
    heads = ["change", "runs", *(text for name in COLUMNS.values() for text in (name, "Δ"))]
    lines = []
    for changes, found in rows.items():
        cells = [changes or "(base)", str(len(found))]
        for key in COLUMNS:
            cells += [_mean(found, key), _gain(found, first, key)]
        lines.append(cells)
    return "\n".join(markdown(heads, lines))


def _changes(base: dict, config: dict) -> str:
    """The dotted keys that differ and their values here; a branch left out is one entry."""
    gone = object()
    keys = sorted(base.keys() | config.keys())
    odd = [k for k in keys if base.get(k, gone) != config.get(k, gone) and k not in REPEATED]
    texts = []
    for key in odd:
        path = key.split(".")
        parents = [".".join(path[:n]) for n in range(1, len(path) + 1)]
        lost = [p for p in parents if not any(f"{k}.".startswith(f"{p}.") for k in config)]
        text = f"`{lost[0]}` left out" if lost else f"`{key}` = {json.dumps(config[key])}"
        texts += [text] if text not in texts else []
    return ", ".join(texts)


def _values(runs: list[Run], key: str) -> np.ndarray:
    scores = [run.results["scores"]["score"].get(key) for run in runs]
    return np.array([s for s in scores if known(s)], float)


def _mean(runs: list[Run], key: str) -> str:
    values = _values(runs, key)
    if not len(values):
        return number(None)
    spread = f" ± {number(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{number(values.mean())}{spread}"


def _gain(runs: list[Run], base: list[Run], key: str) -> str:
    ours, theirs = _values(runs, key), _values(base, key)
    if runs is base or not len(ours) or not len(theirs):
        return ""
    return number(ours.mean() - theirs.mean(), sign=True)
