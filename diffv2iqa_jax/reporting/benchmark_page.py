"""The page of many runs: the tables, a box for each method, and one scatter for each."""

from html import escape

import numpy as np

from diffv2iqa_jax.reporting import benchmark, charts, html
from diffv2iqa_jax.reporting.benchmark import Entry, Table
from diffv2iqa_jax.reporting.page import colours_of, fit_of, words_of


def methods_page(title: str, entries: list[Entry]) -> str:
    """The whole document."""
    tables = "".join(map(_table_block, benchmark.all_tables(entries)))
    sections = [("Tables", tables)]
    own = [entry for entry in entries if entry.own]
    by_set = benchmark.grouped(own, "tested")
    boxes = "".join(_boxes_block(tested, of_set) for (tested,), of_set in by_set.items())
    if boxes:
        sections.append(("Over splits and seeds", boxes))
    sections.append(("Scores against quality", _scatters_block(entries)))
    return html.document(title, sections)


def _table_block(table: Table) -> str:
    cells = [[escape(c) for c in row] for row in table.rows]
    body = html.table([escape(h) for h in table.head], cells)
    notes = "".join(f"<p class='note'>{escape(n)}</p>" for n in table.note.split(" · "))
    return html.block(escape(table.title), body + notes)


def _boxes_block(tested: str, entries: list[Entry]) -> str:
    """SRCC of every run; "" where no method has several runs."""
    methods = benchmark.grouped(entries, "method")
    values = {
        method: [srcc for e in of_method if np.isfinite(srcc := e.value("srcc"))]
        for (method,), of_method in methods.items()
    }
    if max(map(len, values.values())) < 2:
        return ""
    chart = charts.boxes(list(values.values()), "SRCC")
    names = [
        (f"{i + 1} {escape(method)}", charts.COLOURS[i % len(charts.COLOURS)])
        for i, method in enumerate(values)
    ]
    note = "A dot is one run; the box holds the middle half, its line is the median."
    return html.block(escape(tested), f'<div class="plots">{chart}</div>{html.chips(names)}', note)


def _scatters_block(entries: list[Entry]) -> str:
    """Score against quality, for the first run of each method on each set."""
    figures = []
    for key, group in benchmark.grouped(entries, "method", "learned", "tested").items():
        columns = group[0].run.predictions
        if columns is None:
            continue
        colours, fit = colours_of(group[0].run), fit_of(group[0].run, "score")
        points = [colours.get(type, charts.ACCENT) for type in columns["type"].tolist()]
        look = {"size": charts.MEDIUM, "quality": words_of(group[0].run).axis}
        chart = charts.scatter(columns["score"], columns["mos"], points, fit, **look)
        method, learned, tested = map(escape, key)
        where = tested if learned == tested else f"{learned} → {tested}"
        caption = f"<figcaption><b>{method}</b> {where}, split {group[0].split}</figcaption>"
        figures.append(f"<figure>{caption}{chart}</figure>")
    return html.block("First run of each", f'<div class="plots">{"".join(figures)}</div>')
