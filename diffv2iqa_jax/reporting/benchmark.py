"""Tables of many runs: each data set over its splits, across data sets, by distortion.

Numbers are medians over runs, as the field has it; mean, deviation and every single value stand
beside them. A method's name is that of the folder its runs lie in.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from diffv2iqa_jax.evaluation import correlation, significance
from diffv2iqa_jax.reporting import html
from diffv2iqa_jax.reporting.html import known, number
from diffv2iqa_jax.reporting.run import Run

MEASURES = ("srcc", "krcc", "plcc", "plcc_fit", "rmse_native")
ALL = " (all)"  # after the name of a set all of whose images trained
DRAWS = 1000  # of each bootstrap
LEVEL = 0.05  # of significance, after Holm's correction
MARKS = {"best": "★", "worse": "▼", "equal": "≈", "unknown": "?"}
MEANING = (
    "★ best median SRCC; ▼ significantly below it, ≈ not significantly (p < .05 after Holm's "
    "correction; signed ranks over at least 6 common splits, else a paired bootstrap over the "
    "references of one common test part); ? cannot be tested."
)


class Entry(NamedTuple):
    """One evaluation of one run.

    Attributes:
      method: what the table calls it.
      learned, tested: data sets; `own` says whether it was the run's own test part.
      split, seed: of the run.
      run: what its folder holds.
    """

    method: str
    learned: str
    tested: str
    own: bool
    split: int
    seed: int
    run: Run

    def value(self, key: str) -> float:
        """A number of the main score, NaN where it is not defined."""
        found = self.run.results["scores"]["score"].get(key)
        return float(found) if known(found) else np.nan

    @property
    def facts(self) -> dict[str, Any]:
        return self.run.results.get("protocol") or {}


def entry(method: str, run: Run, own: bool) -> Entry:
    """An evaluated quality run; its configuration says what it learned on.

    Raises:
      ValueError: it has no configuration or no results of a quality run.
    """
    if run.task != "quality" or run.config is None or not (run.results or {}).get("scores"):
        raise ValueError(f"{run.name}: is no evaluated quality run; give folders of stage 2")
    data, facts = run.config["data"], run.results.get("protocol") or {}
    everything = ALL if data.get("parts") == "all" else ""
    tested = str(facts.get("name", data["name"]))
    names = (data["name"] + everything, tested, own)
    return Entry(method, *names, int(data.get("split", 0)), int(run.config.get("seed", 0)), run)


def grouped(entries: Iterable[Entry], *keys: str) -> dict[tuple, list[Entry]]:
    """Entries by these fields, in order of first appearance; within, by split and seed."""
    found: dict[tuple, list[Entry]] = {}
    for e in sorted(entries, key=lambda e: (e.split, e.seed)):
        found.setdefault(tuple(getattr(e, k) for k in keys), []).append(e)
    return found


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Median, mean, deviation and values of every measure over runs; None where undefined."""
    out: dict[str, Any] = {"runs": len(entries), "splits": len({e.split for e in entries})}
    for key in MEASURES:
        values = np.array([e.value(key) for e in entries])
        there = values[np.isfinite(values)]
        out[key] = {
            "median": float(np.median(there)) if len(there) else None,
            "mean": float(there.mean()) if len(there) else None,
            "std": float(there.std(ddof=1)) if len(there) > 1 else None,
            "values": [float(v) if np.isfinite(v) else None for v in values],
        }
    out["interval"] = _interval(entries)
    return out


def marks(methods: dict[str, list[Entry]]) -> dict[str, tuple[str, str]]:
    """For methods tested on one set: (mark of MARKS, why) each."""
    medians = {m: summary_of(es, "srcc") for m, es in methods.items()}
    ranked = [m for m in medians if medians[m] is not None]
    if len(methods) < 2 or not ranked:
        return {m: ("", "") for m in methods}
    best = max(ranked, key=lambda m: medians[m])
    others = [m for m in methods if m != best]
    tests = {m: compare(methods[best], methods[m]) for m in others}
    adjusted = significance.holm([tests[m]["p"] for m in others])
    out = {best: ("best", "")}
    for method, p in zip(others, adjusted, strict=True):
        test = tests[method]
        if p is None:
            out[method] = ("unknown", test["reason"])
        else:
            mark = "worse" if p < LEVEL and test["difference"] > 0 else "equal"
            out[method] = (mark, f"{test['test']}, Δ {test['difference']:+.3f}, p = {p:.2g}")
    return out


def summary_of(entries: list[Entry], key: str) -> float | None:
    """The median of one measure."""
    values = [e.value(key) for e in entries]
    values = [v for v in values if np.isfinite(v)]
    return float(np.median(values)) if values else None


def compare(one: list[Entry], other: list[Entry]) -> dict[str, Any]:
    """Tests whether two methods differ: {p, difference of SRCC (one less other), test, reason}."""
    parts = [grouped(es, "split") for es in (one, other)]
    common = [k for k in parts[0] if k in parts[1] and _same_images(parts[0][k], parts[1][k])]
    pairs = [[np.mean([e.value("srcc") for e in part[k]]) for k in common] for part in parts]
    signed = significance.wilcoxon(*pairs)
    if signed["p"] is not None:
        off = float(np.median(np.subtract(*pairs)))
        return signed | {"difference": off, "test": f"signed ranks of {signed['pairs']} splits"}
    for k in common:
        a, b = parts[0][k], parts[1][k]
        tables = [e.run.predictions for e in (*a, *b)]
        if any(t is None for t in tables):
            continue
        scores = [[e.run.predictions["score"] for e in es] for es in (a, b)]
        found = significance.difference(*scores, tables[0]["mos"], _groups(tables[0]), draws=DRAWS)
        where = f"split {k[0]}, {len(a)} and {len(b)} runs"
        return found | {"test": f"paired bootstrap on {where}"}
    reason = "no test part in common" if not common else signed["reason"]
    return {"p": None, "difference": None, "test": None, "reason": reason}


def _same_images(one: list[Entry], other: list[Entry]) -> bool:
    keys = ("name", "split_sha256", "labels_sha256")
    facts = [tuple(e.facts.get(k) for k in keys) for e in (*one, *other)]
    return len(set(facts)) == 1


def _groups(table: dict[str, np.ndarray]) -> np.ndarray:
    """What a bootstrap draws: references, or images where none are named."""
    group = table["group"]
    return group if "" not in group and len(set(group)) < len(group) else table["id"]


def _interval(entries: list[Entry]) -> list[float] | None:
    """95 % interval of the mean SRCC, where all runs were tested on the same images."""
    tables = [e.run.predictions for e in entries]
    if any(t is None for t in tables) or not _same_images(entries, entries):
        return None
    mos, group = tables[0]["mos"], _groups(tables[0])
    drawn = [
        [correlation.srcc(t["score"][r], mos[r]) for t in tables]
        for r in significance.resamples(group, DRAWS)
    ]
    means = [np.mean(values) for values in drawn if None not in values]
    few = len(set(group)) < correlation.LEAST_FOR_CORRELATION
    return None if few or not means else np.percentile(means, [2.5, 97.5]).tolist()


class Table(NamedTuple):
    """One table, ready to be drawn.

    Attributes:
      title, note: plain text.
      head: names of the columns.
      rows: cells of plain text, the first of them the row's name.
    """

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def all_tables(entries: list[Entry]) -> list[Table]:
    """Every table the runs fill: per set, across sets, per type."""
    own = [e for e in entries if e.own]
    other = [e for e in entries if not e.own]
    made = [_per_set(tested, es) for (tested,), es in grouped(own, "tested").items()]
    if other:
        made.append(_across(entries))
    for (tested,), es in grouped(entries, "tested").items():
        if any(e.run.results.get("per_type") for e in es):
            made.append(_per_type(tested, es))
    return made


def _per_set(tested: str, entries: list[Entry]) -> Table:
    methods = {m: es for (m,), es in grouped(entries, "method").items()}
    marked = marks(methods)
    head = ["Method", "Runs", "SRCC", "mean ± std", "95 %", "PLCC fitted", "KRCC", "RMSE", ""]
    rows, whys = [], []
    for method, es in methods.items():
        s = summary(es)
        mark, why = marked[method]
        spread = f" ± {number(s['srcc']['std'])}" if s["srcc"]["std"] is not None else ""
        low_high = "–" if s["interval"] is None else " to ".join(map(number, s["interval"]))
        middle = [number(s[k]["median"]) for k in ("plcc_fit", "krcc", "rmse_native")]
        runs = f"{s['runs']} ({s['splits']} split{'s' * (s['splits'] > 1)})"
        rows.append(
            [method, runs, number(s["srcc"]["median"]), number(s["srcc"]["mean"]) + spread]
            + [low_high, *middle, MARKS.get(mark, "")]
        )
        whys += [f"{method}: {why}"] if why else []
    notes = [_protocol(entries), MEANING if len(methods) > 1 else "", *whys, *_cautions(entries)]
    return Table(f"{tested}, own test part", " · ".join(filter(None, notes)), head, rows)


def _across(entries: list[Entry]) -> Table:
    """Rows: what was learned on; columns: what was tested on; SRCC / fitted PLCC."""
    columns = list(dict.fromkeys(e.tested for e in sorted(entries, key=lambda e: not e.own)))
    rows: dict[str, list[Entry]] = {}
    for (method, learned), es in grouped(entries, "method", "learned").items():
        rows.setdefault(f"{method}: {learned.removesuffix(ALL)}", []).extend(es)
    cell = lambda es, tested: _across_cell([e for e in es if e.tested == tested])
    lines = [[name, *(cell(es, tested) for tested in columns)] for name, es in rows.items()]
    note = (
        "Learned on all of the row's set, tested on all of the column's, without tuning; SRCC / "
        "PLCC after a fit on the tested set; medians of (runs). † learned on a training part; "
        "° own test part."
    )
    cautions = _cautions([e for e in entries if not e.own])
    return Table("Across data sets", " · ".join([note, *cautions]), ["Learned on", *columns], lines)


def _across_cell(here: list[Entry]) -> str:
    """What all of the set taught comes first, then what a part of it did."""
    choices = [[e for e in here if not e.own and e.learned.endswith(ALL)]]
    choices += [[e for e in here if not e.own], here]
    for used, mark in zip(choices, ("", "†", "°"), strict=True):
        if used:
            several = f" ({len(used)})" if len(used) > 1 else ""
            values = (number(summary_of(used, key)) for key in ("srcc", "plcc_fit"))
            return " / ".join(values) + mark + several
    return "–"


def _per_type(tested: str, entries: list[Entry]) -> Table:
    columns = grouped(entries, "method", "learned")
    names = [
        m if len({k[1] for k in columns}) == 1 else f"{m}: {learned}" for m, learned in columns
    ]
    kinds = sorted({k for e in entries for k in e.run.results.get("per_type") or {}})
    rows = []
    for kind in kinds:
        cells = []
        for es in columns.values():
            found = [e.run.results["per_type"].get(kind, {}).get("score", {}) for e in es]
            values = [f.get("srcc") for f in found if known(f.get("srcc"))]
            cells.append(number(float(np.median(values))) if values else "–")
        rows.append([kind, *cells])
    return Table(f"{tested}, SRCC by distortion", "Medians over runs.", ["Type", *names], rows)


def _protocol(entries: list[Entry]) -> str:
    """What the runs share of their protocol, and where they do not."""
    texts = []
    for key in ("parts", "fractions", "size", "pp_test", "selection", "grouped_by"):
        values = list(dict.fromkeys(str(e.facts.get(key)) for e in entries))
        texts.append(f"{key} {values[0] if len(values) == 1 else ' or '.join(values) + ' (!)'}")
    return "Protocol: " + ", ".join(texts)


def _cautions(entries: list[Entry]) -> list[str]:
    texts = [f"caution: {w}" for e in entries for w in e.facts.get("warnings") or []]
    splits = {e.split for e in entries}
    if any(e.own for e in entries) and len(splits) == 1:
        texts.append("caution: one split only")
    return list(dict.fromkeys(texts))


def markdown(tables: list[Table]) -> str:
    """All tables as one Markdown text."""
    out = []
    for t in tables:
        lines = html.markdown(t.head, t.rows)
        out.append("\n".join([f"## {t.title}", "", *lines, "", t.note, ""]))
    return "\n".join(out)


FACTS = ("parts", "fractions", "pp_test", "references", "split_sha256", "names_sha256")


def as_csv(entries: list[Entry]) -> str:
    """One row for each evaluation, with its protocol; what a spreadsheet would run is quoted."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["method", "learned", "tested", "own", "split", "seed", "images", *MEASURES]
        + [*FACTS, "warnings"]
    )
    for e in sorted(entries, key=lambda e: e[:6]):
        numbers = ["" if np.isnan(v) else f"{v:.6f}" for v in map(e.value, MEASURES)]
        facts = [_text(e.facts.get(k, "")) for k in FACTS]
        writer.writerow(
            [*map(_text, (e.method, e.learned, e.tested)), int(e.own), e.split, e.seed]
            + [e.run.results.get("images"), *numbers, *facts]
            + [_text("; ".join(e.facts.get("warnings") or []))]
        )
    return stream.getvalue()


def _text(value: Any) -> str:
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
