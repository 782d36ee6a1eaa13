"""Tables of many runs: each data set over its splits, across data sets, by distortion.

Numbers are medians over runs, as is usual in the field, with mean, deviation and every single
value beside them. A method has the name of the folder that holds its runs.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from diffv2iqa_jax.evaluation import correlation, significance
from diffv2iqa_jax.reporting import html
from diffv2iqa_jax.reporting.html import is_number, number
from diffv2iqa_jax.reporting.run import Run
from diffv2iqa_jax.reporting.words import labels_of

MEASURES = ("srcc", "krcc", "plcc", "plcc_fit", "rmse_native")
ALL = " (all)"  # ends the name of a data set that trained with all its images
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
      method: the method's name in the tables.
      learned, tested: names of the data sets of training and of this evaluation.
      own: whether the evaluation is on the run's own test part.
      split, seed: the run's.
      run: what the run's folder holds.
    """

    method: str
    learned: str
    tested: str
    own: bool
    split: int
    seed: int
    run: Run

    def value(self, key: str) -> float:
        """A measure of the main score, NaN where it is not defined."""
        value = self.run.results["scores"]["score"].get(key)
        return float(value) if is_number(value) else np.nan

    @property
    def protocol(self) -> dict[str, Any]:
        """What the evaluation's results say of its data set, split and crops."""
        return self.run.results.get("protocol") or {}


def make_entry(method: str, run: Run, own: bool) -> Entry:
    """The entry of an evaluated quality run, whose configuration says what it learned on.

    Raises:
      ValueError: the run has no configuration or no results of a quality run.
    """
    if run.task != "quality" or run.config is None or not (run.results or {}).get("scores"):
        raise ValueError(f"{run.name}: is no evaluated quality run; give folders of stage 2")
    data, protocol = run.config["data"], run.results.get("protocol") or {}
    return Entry(
        method=method,
        learned=data["name"] + (ALL if data.get("parts") == "all" else ""),
        tested=str(protocol.get("name", data["name"])),
        own=own,
        split=int(data.get("split", 0)),
        seed=int(run.config.get("seed", 0)),
        run=run,
    )


def grouped(entries: Iterable[Entry], *keys: str) -> dict[tuple, list[Entry]]:
    """Groups entries by these fields; inside a group they are sorted by split and seed."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.split, entry.seed)):
        groups.setdefault(tuple(getattr(entry, key) for key in keys), []).append(entry)
    return groups


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Median, mean, deviation and values of every measure over runs; None where undefined."""
    numbers: dict[str, Any] = {"runs": len(entries), "splits": len({e.split for e in entries})}
    for key in MEASURES:
        values = np.array([e.value(key) for e in entries])
        defined = values[np.isfinite(values)]
        numbers[key] = {
            "median": float(np.median(defined)) if len(defined) else None,
            "mean": float(defined.mean()) if len(defined) else None,
            "std": float(defined.std(ddof=1)) if len(defined) > 1 else None,
            "values": [float(v) if np.isfinite(v) else None for v in values],
        }
    numbers["interval"] = _interval(entries)
    return numbers


def marks(methods: dict[str, list[Entry]]) -> dict[str, tuple[str, str]]:
    """Compares methods tested on one set with the best of them: (mark of MARKS, why) each."""
    medians = {method: median_of(entries, "srcc") for method, entries in methods.items()}
    ranked = [method for method, median in medians.items() if median is not None]
    if len(methods) < 2 or not ranked:
        return {method: ("", "") for method in methods}
    best = max(ranked, key=lambda method: medians[method])
    others = [method for method in methods if method != best]
    tests = {method: compare(methods[best], methods[method]) for method in others}
    adjusted = significance.holm([tests[method]["p"] for method in others])
    marked = {best: ("best", "")}
    for method, p in zip(others, adjusted, strict=True):
        test = tests[method]
        if p is None:
            marked[method] = ("unknown", test["reason"])
        else:
            mark = "worse" if p < LEVEL and test["difference"] > 0 else "equal"
            marked[method] = (mark, f"{test['test']}, Δ {test['difference']:+.3f}, p = {p:.2g}")
    return marked


def median_of(entries: list[Entry], key: str) -> float | None:
    """The median of one measure; None where no run has it."""
    values = [e.value(key) for e in entries]
    values = [v for v in values if np.isfinite(v)]
    return float(np.median(values)) if values else None


def compare(one: list[Entry], other: list[Entry]) -> dict[str, Any]:
    """Tests whether two methods differ.

    Returns:
      p, difference (of SRCC, one minus other), test (which test, in words), reason (why there
      is no p, else None).
    """
    by_split = [grouped(entries, "split") for entries in (one, other)]
    common = [
        split
        for split in by_split[0]
        if split in by_split[1] and _same_images(by_split[0][split], by_split[1][split])
    ]
    srcc = [
        [np.mean([e.value("srcc") for e in splits[split]]) for split in common]
        for splits in by_split
    ]
    signed_ranks = significance.wilcoxon(*srcc)
    if signed_ranks["p"] is not None:
        return signed_ranks | {
            "difference": float(np.median(np.subtract(*srcc))),
            "test": f"signed ranks of {signed_ranks['pairs']} splits",
        }
    for split in common:
        pair = [splits[split] for splits in by_split]
        predictions = [[e.run.predictions for e in entries] for entries in pair]
        if any(columns is None for method in predictions for columns in method):
            continue
        scores = [[columns["score"] for columns in method] for method in predictions]
        first = predictions[0][0]
        bootstrap = significance.difference(*scores, first["mos"], _groups(first), draws=DRAWS)
        where = f"split {split[0]}, {len(pair[0])} and {len(pair[1])} runs"
        return bootstrap | {"test": f"paired bootstrap on {where}"}
    reason = "no test part in common" if not common else signed_ranks["reason"]
    return {"p": None, "difference": None, "test": None, "reason": reason}


def _same_images(one: list[Entry], other: list[Entry]) -> bool:
    """Whether all these entries were tested on the same images with the same opinions."""
    keys = ("name", "split_sha256", "labels_sha256")
    return len({tuple(e.protocol.get(key) for key in keys) for e in (*one, *other)}) == 1


def _groups(columns: dict[str, np.ndarray]) -> np.ndarray:
    """What a bootstrap draws: references, or images where the set names no references."""
    group = columns["group"]
    return group if "" not in group and len(set(group)) < len(group) else columns["id"]


def _interval(entries: list[Entry]) -> list[float] | None:
    """95 % interval of the mean SRCC, where all runs were tested on the same images."""
    predictions = [e.run.predictions for e in entries]
    if any(columns is None for columns in predictions) or not _same_images(entries, entries):
        return None
    mos, group = predictions[0]["mos"], _groups(predictions[0])
    drawn = [
        [correlation.srcc(columns["score"][rows], mos[rows]) for columns in predictions]
        for rows in significance.resamples(group, DRAWS)
    ]
    means = [np.mean(values) for values in drawn if None not in values]
    too_few = len(set(group)) < correlation.LEAST_FOR_CORRELATION
    return None if too_few or not means else np.percentile(means, [2.5, 97.5]).tolist()


class Table(NamedTuple):
    """A table of plain text, to be written as Markdown or HTML.

    Attributes:
      title, note: what stands above and below it.
      head: names of the columns.
      rows: cells; the first of each row is its name.
    """

    title: str
    note: str
    head: list[str]
    rows: list[list[str]]


def all_tables(entries: list[Entry]) -> list[Table]:
    """Every table that the runs can fill: per set, across sets, per type."""
    own = [e for e in entries if e.own]
    tables = [_set_table(tested, of_set) for (tested,), of_set in grouped(own, "tested").items()]
    if len(own) < len(entries):
        tables.append(_across_table(entries))
    for (tested,), of_set in grouped(entries, "tested").items():
        if any(e.run.results.get("per_type") for e in of_set):
            tables.append(_type_table(tested, of_set))
    return tables


def _set_table(tested: str, entries: list[Entry]) -> Table:
    """A row for each method: its runs on their own test parts of one set."""
    methods = {method: of_method for (method,), of_method in grouped(entries, "method").items()}
    marked = marks(methods)
    head = ["Method", "Runs", "SRCC", "mean ± std", "95 %", "PLCC fitted", "KRCC", "RMSE", ""]
    rows, whys = [], []
    for method, of_method in methods.items():
        mark, why = marked[method]
        rows.append([method, *_summary_cells(summary(of_method)), MARKS.get(mark, "")])
        whys += [f"{method}: {why}"] if why else []
    notes = [_protocol(entries), MEANING if len(methods) > 1 else "", *whys, *_cautions(entries)]
    return Table(f"{tested}, own test part", " · ".join(filter(None, notes)), head, rows)


def _summary_cells(numbers: dict[str, Any]) -> list[str]:
    """Runs, median SRCC, mean ± std, interval, and the medians of the other measures."""
    srcc, interval, splits = numbers["srcc"], numbers["interval"], numbers["splits"]
    spread = f" ± {number(srcc['std'])}" if srcc["std"] is not None else ""
    return [
        f"{numbers['runs']} ({splits} split{'s' * (splits > 1)})",
        number(srcc["median"]),
        number(srcc["mean"]) + spread,
        "–" if interval is None else " to ".join(map(number, interval)),
        *(number(numbers[key]["median"]) for key in ("plcc_fit", "krcc", "rmse_native")),
    ]


def _across_table(entries: list[Entry]) -> Table:
    """Rows: sets learned on; columns: sets tested on; cells: SRCC / fitted PLCC."""
    columns = list(dict.fromkeys(e.tested for e in sorted(entries, key=lambda e: not e.own)))
    by_row: dict[str, list[Entry]] = {}
    for (method, learned), of_row in grouped(entries, "method", "learned").items():
        by_row.setdefault(f"{method}: {learned.removesuffix(ALL)}", []).extend(of_row)
    rows = [
        [name, *(_across_cell([e for e in of_row if e.tested == tested]) for tested in columns)]
        for name, of_row in by_row.items()
    ]
    note = (
        "Learned on all of the row's set, tested on all of the column's, without tuning; SRCC / "
        "PLCC after a fit on the tested set; medians of (runs). † learned on a training part; "
        "° own test part."
    )
    cautions = _cautions([e for e in entries if not e.own])
    return Table("Across data sets", " · ".join([note, *cautions]), ["Learned on", *columns], rows)


def _across_cell(entries: list[Entry]) -> str:
    """Runs that learned on all of the set, else on a part of it, else of the set tested on."""
    elsewhere = [e for e in entries if not e.own]
    learned_all = [e for e in elsewhere if e.learned.endswith(ALL)]
    for used, mark in ((learned_all, ""), (elsewhere, "†"), (entries, "°")):
        if used:
            several = f" ({len(used)})" if len(used) > 1 else ""
            values = (number(median_of(used, key)) for key in ("srcc", "plcc_fit"))
            return " / ".join(values) + mark + several
    return "–"


def _type_table(tested: str, entries: list[Entry]) -> Table:
    """Rows: types of distortion; columns: methods; cells: the median SRCC within the type."""
    columns = grouped(entries, "method", "learned")
    one_set = len({learned for _, learned in columns}) == 1
    names = [method if one_set else f"{method}: {learned}" for method, learned in columns]
    types = sorted({type for e in entries for type in e.run.results.get("per_type") or {}})
    rows = []
    for type in types:
        cells = []
        for of_column in columns.values():
            per_type = [e.run.results["per_type"].get(type, {}) for e in of_column]
            values = [scores.get("score", {}).get("srcc") for scores in per_type]
            values = [value for value in values if is_number(value)]
            cells.append(number(float(np.median(values))) if values else "–")
        rows.append([type, *cells])
    return Table(f"{tested}, SRCC by distortion", "Medians over runs.", ["Type", *names], rows)


def _protocol(entries: list[Entry]) -> str:
    """The runs' protocol in one line; (!) marks what differs between them."""
    texts = []
    for key in ("parts", "fractions", "size", "pp_test", "selection", "grouped_by"):
        values = list(dict.fromkeys(str(e.protocol.get(key)) for e in entries))
        texts.append(f"{key} {values[0] if len(values) == 1 else ' or '.join(values) + ' (!)'}")
    labels = dict.fromkeys(labels_of(e.protocol) for e in entries)
    return "Protocol: " + ", ".join([*texts, f"labels {' or '.join(labels)}"])


def _cautions(entries: list[Entry]) -> list[str]:
    texts = [f"caution: {w}" for e in entries for w in e.protocol.get("warnings") or []]
    splits = {e.split for e in entries}
    if any(e.own for e in entries) and len(splits) == 1:
        texts.append("caution: one split only")
    return list(dict.fromkeys(texts))


def as_markdown(tables: list[Table]) -> str:
    """All tables as one Markdown text."""
    texts = []
    for table in tables:
        lines = html.markdown_table(table.head, table.rows)
        texts.append("\n".join([f"## {table.title}", "", *lines, "", table.note, ""]))
    return "\n".join(texts)


PROTOCOL = ("parts", "fractions", "pp_test", "references", "split_sha256", "names_sha256")


def as_csv(entries: list[Entry]) -> str:
    """One row for each evaluation, with its protocol; quotes what a spreadsheet would run."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["method", "learned", "tested", "own", "split", "seed", "images", *MEASURES]
        + [*PROTOCOL, "labels", "warnings"]
    )
    for e in sorted(entries, key=lambda e: e[:6]):
        numbers = ["" if np.isnan(v) else f"{v:.6f}" for v in map(e.value, MEASURES)]
        writer.writerow(
            [*map(_harmless, (e.method, e.learned, e.tested)), int(e.own), e.split, e.seed]
            + [e.run.results.get("images"), *numbers]
            + [_harmless(e.protocol.get(key, "")) for key in PROTOCOL]
            + [_harmless(labels_of(e.protocol))]
            + [_harmless("; ".join(e.protocol.get("warnings") or []))]
        )
    return stream.getvalue()


def _harmless(value: Any) -> str:
    """As text that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
