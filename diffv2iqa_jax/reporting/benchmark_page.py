"""The page of many runs: the tables, a box for each method, and one scatter for each."""

from html import escape

import numpy as np

from diffv2iqa_jax.reporting import benchmark, charts, html
from diffv2iqa_jax.reporting import page as pages
from diffv2iqa_jax.reporting.benchmark import Entry, Table


def page(title: str, entries: list[Entry]) -> str:
    """The whole document."""
    made = benchmark.all_tables(entries)
    parts = [("Tables", "".join(map(_table, made)))]
    own = [e for e in entries if e.own]
    boxes = "".join(_boxes(s, es) for (s,), es in benchmark.grouped(own, "tested").items())
    if boxes:
        parts.append(("Over splits and seeds", boxes))
    parts.append(("Scores against quality", _scatters(entries)))
    return html.document(title, parts)


def _table(table: Table) -> str:
    cells = [[escape(c) for c in row] for row in table.rows]
    body = html.table([escape(h) for h in table.head], cells)
    notes = "".join(f"<p class='note'>{escape(n)}</p>" for n in table.note.split(" · "))
    return html.block(escape(table.title), body + notes)


def _boxes(tested: str, entries: list[Entry]) -> str:
    """SRCC of every run, where there are several of a method."""
    methods = benchmark.grouped(entries, "method")
    values = {
        m: [v for e in es if np.isfinite(v := e.value("srcc"))] for (m,), es in methods.items()
    }
    if max(map(len, values.values())) < 2:
        return ""
    drawn = charts.boxes(list(values.values()), "SRCC")
    colour = lambda place: charts.COLOURS[place % len(charts.COLOURS)]
    names = [(f"{i + 1} {escape(m)}", colour(i)) for i, m in enumerate(values)]
    note = "A dot is one run; the box holds the middle half, its line is the median."
    return html.block(escape(tested), f'<div class="plots">{drawn}</div>{html.chips(names)}', note)


def _scatters(entries: list[Entry]) -> str:
    """The first run of each method on each set."""
    drawn = {}
    for key, es in benchmark.grouped(entries, "method", "learned", "tested").items():
        run = es[0].run
        if run.predictions is None:
            continue
        colours = pages.colours_of(run)
        points = [colours.get(kind, charts.ACCENT) for kind in run.predictions["type"].tolist()]
        table, fit = run.predictions, pages.fit_of(run, "score")
        chart = charts.scatter(table["score"], table["mos"], points, fit, size=charts.MEDIUM)
        method, learned, tested = map(escape, key)
        where = tested if learned == tested else f"{learned} → {tested}"
        caption = f"<figcaption><b>{method}</b> {where}, split {es[0].split}</figcaption>"
        drawn[key] = f"<figure>{caption}{chart}</figure>"
    return html.block("First run of each", f'<div class="plots">{"".join(drawn.values())}</div>')
