"""The report's HTML and CSS: the elements that make up a page.

Arguments such as `title`, `note` and `cells` are HTML already: callers escape every text of a
run. A page fetches nothing from anywhere.
"""

from html import escape
from typing import Any

import numpy as np


def document(title: str, stages: list[tuple[str, str]]) -> str:
    """The whole page.

    Args:
      title: plain text.
      stages: (heading as plain text, body as HTML).
    """
    links = "".join(f'<a href="#s{i}">{escape(name)}</a>' for i, (name, _) in enumerate(stages))
    nav = f"<nav>{links}</nav>" if len(stages) > 1 else ""
    body = "".join(
        f'<section class="stage" id="s{i}"><h2>{escape(name)}</h2>{content}</section>'
        for i, (name, content) in enumerate(stages)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)} – DiffV2IQA report</title>\n<style>{CSS}</style></head>\n<body>"
        f'<header><p class="kicker">DiffV2IQA report</p><h1>{escape(title)}</h1>{nav}</header>\n'
        f"<main>{body}</main></body></html>\n"
    )


def block(title: str, body: str, note: str = "") -> str:
    """A card: a heading, a note under it, and the body."""
    note = f'<p class="note">{note}</p>' if note else ""
    return f'<section class="block"><h3>{title}</h3>{note}{body}</section>\n'


def missing(what: str) -> str:
    """A line that says what the page lacks."""
    return f'<p class="missing">{what}</p>'


def is_number(value: Any) -> bool:
    """Whether this is a finite number."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and bool(np.isfinite(value))


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """A number as text; a dash for anything that is no finite number."""
    if not is_number(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def difference(value: Any, digits: int = 2) -> str:
    """A signed number: green with an arrow up, or red with an arrow down."""
    text = number(value, digits, sign=True)
    if not any(c in "123456789" for c in text):
        return text
    kind, mark = ("up", "▲") if value > 0 else ("down", "▼")
    return f'<span class="{kind}"><i>{mark}</i> {text}</span>'


def bar(value: Any) -> str:
    """A value of [-1, 1] with a bar of that length; a negative one has another colour."""
    if not is_number(value):
        return "–"
    kind = ' class="bad"' if value < 0 else ""
    width = 100 * min(abs(value), 1)
    return (
        f'<span class="bar"><i{kind} style="width:{width:.1f}%"></i></span><u>{number(value)}</u>'
    )


def table(head: list[str], rows: list[list[str]], groups: list[tuple[str, int]] = ()) -> str:
    """A table; the first cell of a row is its name.

    Args:
      groups: (heading, how many columns it spans), for a line above the head.
    """
    top = "".join(f'<th colspan="{n}" scope="colgroup">{h}</th>' for h, n in groups)
    top = f'<tr class="groups">{top}</tr>' if groups else ""
    head = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{c}</td>" for c in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table><thead>{top}<tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table; all columns but the first are aligned to the right."""
    lines = (head, ["---", *["--:"] * (len(head) - 1)], *rows)
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in lines)
    return ["| " + " | ".join(cells) + " |" for cells in escaped]


def tiles(items: list[tuple[str, str, str]]) -> str:
    """Big numbers: (value, name, meaning in a few words)."""
    cells = (f"<div><b>{v}</b><span>{n}</span><small>{m}</small></div>" for v, n, m in items)
    return f'<div class="tiles">{"".join(cells)}</div>'


def chips(items: list[tuple[str, str]]) -> str:
    """Small labels in a row, each (HTML, colour of its dot or "")."""
    dot = '<i style="background:{}"></i>'
    cells = "".join(f"<li>{dot.format(colour) if colour else ''}{h}</li>" for h, colour in items)
    return f'<ul class="chips">{cells}</ul>' if items else ""


def pictures(columns: list[str], rows: list[tuple[str, list[tuple[str, str, bool]]]]) -> str:
    """Images in aligned columns.

    Args:
      columns: headings.
      rows: (label, images), with an image (data URI, alternative text, pixelated) for each
        column; an empty URI leaves a gap.
    """
    head = "".join(f"<span>{c}</span>" for c in columns)
    lines = [f'<div class="row head"><span></span>{head}</div>']
    for label, images in rows:
        cells = "".join(
            f'<img src="{uri}" alt="{escape(alt)}"{" class=pixel" if pixel else ""}>'
            if uri
            else "<span></span>"
            for uri, alt, pixel in images
        )
        lines.append(f'<div class="row"><div class="label">{label}</div>{cells}</div>')
    grid = f'<div class="grid" style="--n:{len(columns)}">{"".join(lines)}</div>'
    return f'<div class="scroll">{grid}</div>'


def fold(title: str, body: str) -> str:
    """A body that shows when its title is clicked."""
    return f"<details><summary>{title}</summary>{body}</details>"


CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1c2430;--soft:#5d6878;
--line:#e2e6ec;--accent:#3b6fe0;--good:#13795b;--bad:#c0362c;--wash:#eef2fb}
@media(prefers-color-scheme:dark){:root{--bg:#10141a;--card:#181e27;--ink:#e6eaf0;
--soft:#98a4b5;--line:#2a3340;--accent:#7ba2ff;--good:#4fcf9f;--bad:#ff8a7d;--wash:#1d2737}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Arial,sans-serif}
header,main{max-width:1080px;margin:auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:clamp(1.6rem,5vw,2.3rem);line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.5rem;margin:0 0 .75rem;padding-top:1rem}
h3{font-size:1.1rem;margin:0}
h4{font-size:.95rem;margin:1.25rem 0 .5rem}
.kicker{color:var(--accent);font-weight:600;font-size:.85rem;margin:0 0 .25rem}
nav{display:flex;gap:.5rem;margin-top:1rem}
nav a{color:var(--accent);text-decoration:none;background:var(--wash);
padding:.3rem .9rem;border-radius:99px;font-weight:600;font-size:.9rem}
.stage{margin:1.25rem 0 3.5rem}
.block{background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:1.25rem;margin:1.25rem 0}
.lead{font-size:1.15rem;max-width:46rem;margin:.25rem 0 1.25rem}
.note{color:var(--soft);font-size:.9rem;margin:.2rem 0 1rem}
.missing{color:var(--soft);font-size:.9rem;border-left:3px solid var(--line);
padding-left:.75rem;margin:.75rem 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.75rem}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1rem}
.tiles b{display:block;font-size:1.75rem;line-height:1.15;font-variant-numeric:tabular-nums;
white-space:nowrap}
.tiles div>span{font-weight:600;font-size:.9rem}
.tiles small{display:block;color:var(--soft);line-height:1.35;margin-top:.3rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.5rem .6rem;text-align:right;border-top:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;padding-left:0;position:sticky;left:0;background:var(--card)}
thead th{color:var(--soft);font-weight:600;font-size:.8rem;border-top:0;vertical-align:bottom}
.groups th{padding-bottom:.15rem;color:var(--ink);text-align:center}
.groups th:not(:empty){background:linear-gradient(var(--line),var(--line)) no-repeat;
background-position:bottom;background-size:calc(100% - 1.2rem) 1px}
tbody th{font-weight:500}
.settings td,.settings th{text-align:left;white-space:normal;overflow-wrap:anywhere}
.bar{display:inline-block;width:clamp(40px,12vw,120px);height:.55rem;border-radius:99px;
background:var(--wash);margin-right:.6rem;overflow:hidden}
.bar i{display:block;height:100%;border-radius:99px;background:var(--accent)}
td u{display:inline-block;min-width:3.7em;text-decoration:none}
.bar i.bad{background:var(--bad)}
.up{color:var(--good)}.down{color:var(--bad)}
.up i,.down i{font-style:normal;font-size:.7em;vertical-align:.1em}
.tiles .up i,.tiles .down i{font-size:.5em;vertical-align:.3em}
.chips{display:flex;flex-wrap:wrap;gap:.3rem 1rem;list-style:none;padding:0;margin:.75rem 0 0;
color:var(--soft);font-size:.85rem}
.chips b{color:var(--ink);font-weight:500}
.chips i{display:inline-block;width:.65rem;height:.65rem;border-radius:99px;margin-right:.4rem}
.chips .ramp{width:6rem;height:.6rem;border-radius:3px;margin:0 .4rem}
.plots{display:grid;gap:1.25rem;grid-template-columns:repeat(auto-fill,minmax(min(280px,100%),1fr));
margin-top:1rem}
.wide{grid-template-columns:minmax(0,2.1fr) minmax(0,1fr)}
.wide figure:first-child{grid-row:span 2}
.wide figure:only-child{grid-column:1/-1;max-width:720px}
@media(max-width:640px){.wide{grid-template-columns:1fr}}
figure{margin:0}
figcaption{font-size:.85rem;color:var(--soft);margin-bottom:.2rem;overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
svg{width:100%;height:auto;display:block}
svg text{font-family:inherit!important}
.grid{display:grid;gap:.5rem;margin-top:.75rem;min-width:calc(var(--n)*92px)}
.row{display:grid;gap:.5rem;align-items:center;
grid-template-columns:minmax(7.5rem,1.1fr) repeat(var(--n),minmax(0,1fr))}
.head sub{line-height:0}
.head{font-size:.8rem;font-weight:600;color:var(--soft);text-align:center;line-height:1.3;
align-items:end}
.row img{width:100%;display:block;border-radius:6px}
.pixel{image-rendering:pixelated}
.label{font-size:.82rem;line-height:1.4;overflow-wrap:anywhere}
.label small{color:var(--soft);display:block;font-size:.78rem}
@media(max-width:640px){.grid,.row{gap:.3rem;min-width:0}
.row{grid-template-columns:repeat(var(--n),minmax(0,1fr))}
.head{font-size:min(.68rem,calc(14vw/var(--n)))}.head>span:first-child{display:none}
.label{grid-column:1/-1;margin-top:.35rem}.label small{display:inline;margin-left:.5rem}
.row img{border-radius:4px}.block{padding:1rem}}
details{margin-top:.75rem}
summary{cursor:pointer;font-weight:600;color:var(--accent)}
pre{overflow-x:auto;background:var(--bg);border-radius:8px;padding:1rem;font-size:.8rem;
line-height:1.45}
@media print{.block,.tiles div{break-inside:avoid}}
"""
