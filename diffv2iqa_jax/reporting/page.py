"""The sections of the report: what was read of a run goes in, HTML comes out.

Every text of a run is escaped here; a section whose file is missing says so.
"""

import json
from html import escape
from typing import Any

import numpy as np

from diffv2iqa_jax.evaluation import correlation
from diffv2iqa_jax.reporting import charts, html
from diffv2iqa_jax.reporting.html import known, number
from diffv2iqa_jax.reporting.run import TASKS, Run

SCORES = {
    "score": "both branches",
    "score_guidance": "guidance branch",
    "score_difference": "difference branch",
}


MAPS = {"score": "viridis", "weight": "magma"}  # colours of the two kinds of patch maps


MOST_STRIPS = 16  # rows of strips; all of 25 types would make the page heavy


SHOWN_KEYS = ("train/loss", "val/", "lr")  # of the log, in this order


def page(title: str, runs: list[Run]) -> str:
    """The whole document, one stage after the other."""
    return html.document(title, [(TASKS.get(run.task, run.name), _stage(run)) for run in runs])


def fit_of(run: Run, key: str) -> correlation.Fit | None:
    """The fitted curve the results hold for a score; None where there is none."""
    saved = ((run.results or {}).get("scores") or {}).get(key, {}).get("fit") or {}
    numbers = saved.get("parameters") or []
    if len(numbers) != {"logistic4": 4, "logistic5": 5, "linear": 3}.get(saved.get("kind")):
        return None
    if not all(map(known, numbers)):
        return None
    return correlation.Fit(**{name: saved.get(name) for name in correlation.Fit._fields})


def colours_of(run: Run) -> dict[str, str]:
    """A colour for each distortion type of the predictions."""
    return charts.palette(sorted(set(run.predictions["type"].tolist()) - {""}))


def strip(examples: dict[str, np.ndarray], row: int) -> list[np.ndarray | None]:
    """Distorted, noisiest to least noisy state, restored, original (None where unknown)."""
    views = examples["views"][row][::-1] if "views" in examples else []
    reference = examples["reference"][row] if "reference" in examples else None
    return [examples["image"][row], *views, reference]


def _stage(run: Run) -> str:
    told = [_gains] if run.task == "restoration" else [_agreement, _scatters, _types]
    sections = [_headline, *told, _strips, _cases, _curves, _settings]
    return "".join(section(run) for section in sections)


def _headline(run: Run) -> str:
    if run.results is None:
        return html.missing("No results.json yet: this run has not been evaluated.")
    if run.results.get("part") == "none":
        return html.missing("All images of the set were for training; --on judges on another.")
    lead, tiles = (_restored if run.task == "restoration" else _judged)(run)
    tiles.append((number(run.results.get("step"), 0), "steps", "of training"))
    cautions = (run.results.get("protocol") or {}).get("warnings") or []
    notes = "".join(html.missing(f"Caution: {escape(str(w))}.") for w in cautions)
    return f'<p class="lead">{lead}</p>{html.tiles(tiles)}{notes}'


def _where(run: Run) -> str:
    """Which images: '288 images of 24 references never seen in training'."""
    part = str(run.results.get("part", "test"))
    text = f"{number(run.results.get('images'), 0)} images"
    table = run.predictions
    groups = set() if table is None else set(table["group"].tolist()) - {""}
    if groups and len(groups) < len(table["id"]):
        text += f" of {len(groups)} references"
    seen = {"test": "never seen in training", "val": "kept aside for choosing the model"}
    return f"{text} {seen.get(part, f'of the part {escape(part)}')}"


def _judged(run: Run) -> tuple[str, list]:
    scores = run.results["scores"]
    found = scores.get("score") or next(iter(scores.values()))
    images = (number(run.results.get("images"), 0), "images", "each judged once")
    if not known(found.get("srcc")):
        why = escape(str(found.get("reason") or "too little to compare"))
        return f"No agreement with people is defined: {why}.", [images]
    lead = f"SRCC <b>{number(found['srcc'])}</b> on {_where(run)}{_interval(run)}."
    return lead, [
        (number(found["srcc"]), "SRCC", "same order as people: 1 is perfect, 0 is chance"),
        (number(found.get("plcc_fit")), "PLCC", "straight-line agreement, after the fit"),
        (number(found.get("rmse_fit")), "RMSE", "typical error after the fit, quality in 0–1"),
        images,
    ]


def _interval(run: Run) -> str:
    table = run.predictions
    if table is None:
        return ""
    grouped = "" not in table["group"] and len(set(table["group"])) < len(table["group"])
    by = table["group"] if grouped else table["id"]
    found = correlation.srcc_interval(table["score"], table["mos"], by)
    if found is None:
        return ""
    low, high = (number(value) for value in found)
    what = "references" if grouped else "images"
    return f" (95&nbsp;% interval {low} to {high}, bootstrap over {what})"


def _minus(a: Any, b: Any) -> float | None:
    return a - b if known(a) and known(b) else None


def _restored(run: Run) -> tuple[str, list]:
    r = run.results
    before, after = r.get("psnr_image"), r.get("psnr_restored")
    gain = _minus(after, before)
    lead = (
        f"Restoration changes PSNR to the pristine original by "
        f"<b>{number(gain, 2, sign=True)} dB</b> (from {number(before, 2)} to "
        f"{number(after, 2)} dB) on {_where(run)}."
    )
    better = _minus(r.get("ssim_restored"), r.get("ssim_image"))
    return lead, [
        (html.difference(gain), "dB gain", "above 0, the restored image is nearer"),
        (number(after, 2), "dB PSNR", "restored against original"),
        (number(r.get("ssim_restored")), "SSIM", "structure kept: 1 is identical"),
        (html.difference(better, 3), "SSIM gain", "over the distorted image"),
        (number(r.get("images"), 0), "images", "each restored once"),
    ]


def _agreement(run: Run) -> str:
    if run.results is None:
        return ""
    keys = ("srcc", "krcc", "plcc", "plcc_fit", "rmse", "rmse_fit")
    rows, remarks = [], []
    for key, found in run.results["scores"].items():
        fit, label = found.get("fit") or {}, escape(SCORES.get(key, key))
        kind = escape(str(fit.get("kind", "–")))
        rows.append([label, *(number(found.get(k)) for k in keys), kind])
        reason = found.get("reason") or fit.get("reason")
        remarks += [f"{label}: {escape(str(reason))}."] if reason else []
        falls = fit.get("increasing") is False
        remarks += [f"{label}: the score falls where quality rises."] if falls else []
    head = ["Score", "SRCC", "KRCC", "raw", "fitted", "raw", "fitted", "curve"]
    groups = [("", 3), ("PLCC", 2), ("RMSE", 2), ("Fit", 1)]
    body = html.table(head, rows, groups) + "".join(map(html.missing, remarks))
    protocol = (run.results.get("protocol") or {}).items()
    body += html.chips([(f"{escape(str(k))} <b>{escape(str(v))}</b>", "") for k, v in protocol])
    note = "Fitted numbers follow a monotone curve from score to quality; ranks need none."
    return html.block("Agreement with people", body + _baselines(run), note)


def _baselines(run: Run) -> str:
    baselines = run.results.get("baselines")
    if not baselines:
        return ""
    ours = (run.results["scores"].get("score") or {}).get("srcc")
    named = [("<b>this run</b>", ours)]
    named += [(escape(str(name)), value) for name, value in baselines.items()]
    named.sort(key=lambda pair: -pair[1] if known(pair[1]) else 2)
    table = html.table(["Method", "SRCC"], [[name, html.bar(v)] for name, v in named])
    return f"<h4>Beside simple baselines</h4>{table}"


def _scatters(run: Run) -> str:
    title, table = "Score against quality", run.predictions
    if table is None:
        return html.block(title, html.missing("No predictions.csv in this run."))
    colours = colours_of(run)
    points = [colours.get(kind, charts.ACCENT) for kind in table["type"].tolist()]
    drawn, size = "", charts.LARGE
    for key in (key for key in table if key.startswith("score")):
        chart = charts.scatter(table[key], table["mos"], points, fit_of(run, key), size=size)
        caption = f"<figcaption><b>{escape(SCORES.get(key, key))}</b></figcaption>"
        drawn += f"<figure>{caption}{chart}</figure>"
        size = charts.MEDIUM
    legend = html.chips([(escape(name), colour) for name, colour in colours.items()])
    note = "One point is one image; the line is the fitted curve."
    return html.block(title, f'{legend}<div class="plots wide">{drawn}</div>', note)


def _types(run: Run) -> str:
    if run.results is None:
        return ""
    title, per_type = "Per distortion", run.results.get("per_type")
    if not per_type:
        return html.block(title, html.missing("This data set names no distortion types."))
    first, *others = run.results["scores"]
    head = ["Type", "Images", *(escape(SCORES.get(key, key)) for key in (first, *others))]
    rows = []
    for kind, found in per_type.items():
        main = found.get(first, {})
        cells = [number(main.get("images"), 0), html.bar(main.get("srcc"))]
        cells += [number(found.get(key, {}).get("srcc")) for key in others]
        cells += [number(main.get(key)) for key in ("krcc", "plcc", "rmse")]
        rows.append((main.get("srcc"), [escape(kind), *cells]))
    rows.sort(key=lambda row: -row[0] if known(row[0]) else 2)
    groups = [("", 2), ("SRCC", 1 + len(others)), (escape(SCORES.get(first, first)), 3)]
    table = html.table([*head, "KRCC", "PLCC raw", "RMSE raw"], [row for _, row in rows], groups)
    return html.block(title, table, "Agreement within one type, best first.")


def _gains(run: Run) -> str:
    if run.results is None:
        return ""

    def row(name, r):
        psnr, ssim = ([r.get(f"{m}_image"), r.get(f"{m}_restored")] for m in ("psnr", "ssim"))
        cells = [*(number(v, 2) for v in psnr), html.difference(_minus(*psnr[::-1]))]
        cells += [*(number(v) for v in ssim), html.difference(_minus(*ssim[::-1]), 3)]
        return [name, number(r.get("images"), 0), *cells]

    per_type = run.results.get("per_type") or {}
    rows = [row("<b>all</b>", run.results)]
    rows += [row(escape(kind), found) for kind, found in sorted(per_type.items())]
    head = ["Type", "Images", *("distorted", "restored", "gain") * 2]
    table = html.table(head, rows, [("", 2), ("PSNR in dB", 3), ("SSIM", 3)])
    note = "Fidelity to the pristine original before and after restoration, mean over images."
    return html.block("Gain per distortion", table, note)


def _facts(run: Run, row: int) -> dict[str, Any]:
    """The row of the predictions that belongs to an example; {} where there is none."""
    table = run.predictions
    found = [] if table is None else np.flatnonzero(table["id"] == str(run.examples["id"][row]))
    return {key: column[found[0]].item() for key, column in table.items()} if len(found) else {}


def _label(run: Run, row: int) -> str:
    facts, why = _facts(run, row), str(run.examples["why"][row])
    kind = " ".join(str(facts.get(k, "")) for k in ("type", "level")).strip()
    lines = [] if why.startswith("type ") else [escape(kind)]
    lines += [escape(str(facts.get("name", f"image {run.examples['id'][row]}")))]
    if "psnr_image" in facts:
        gain = html.difference(_minus(facts["psnr_restored"], facts["psnr_image"]))
        lines += [f"{number(facts['psnr_image'], 1)} dB {gain}"]
    elif "score" in facts:
        off = number(_minus(facts["score"], facts["mos"]), 2, sign=True)
        lines += [f"score {number(facts['score'], 2)}, MOS {number(facts['mos'], 2)} ({off})"]
    small = "".join(f"<small>{line}</small>" for line in lines if line)
    return f"<b>{escape(why.removeprefix('type '))}</b>{small}"


def _picture(image, alt: str, exact: bool = True) -> tuple[str, str, bool]:
    if image is None:
        return "", "", False
    return charts.data_uri(image, exact=exact), alt, max(image.shape[:2]) <= charts.SMALL


def _strip_rows(run: Run, rows: list[int]) -> str:
    examples = run.examples
    noisy = range(examples["views"].shape[1] - 1, 0, -1)
    columns = ["distorted<br>x<sub>dis</sub>", *(f"noisy<br>y<sub>t{i}</sub>" for i in noisy)]
    columns += ["restored<br>y<sub>0</sub>", "original<br>reference"][
        : 1 + ("reference" in examples)
    ]
    names = ["distorted", *["noisy state"] * len(noisy), "restored", "original"]
    lines = []
    for row in rows:
        images = zip(strip(examples, row)[: len(columns)], names, strict=False)
        pictures = [_picture(image, name, name != "noisy state") for image, name in images]
        lines.append((_label(run, row), pictures))
    return html.pictures(columns, lines)


def _strips(run: Run) -> str:
    title, examples = "What the restorer sees and makes", run.examples
    if examples is None:
        return html.block(title, html.missing("No examples.npz in this run."))
    if "views" not in examples or not examples["views"].shape[1]:
        return html.block(title, html.missing("This run works without restored views."))
    rows = [i for i, why in enumerate(examples["why"]) if str(why).startswith("type")]
    note = "From the distorted image, through noisy states kept on the way, to the restored one."
    return html.block(title, _strip_rows(run, rows[:MOST_STRIPS]), note) if rows else ""


def _cases(run: Run) -> str:
    if run.examples is None:
        return ""
    rows = [i for i, why in enumerate(run.examples["why"]) if str(why) in ("best", "worst")]
    if not rows:
        return ""
    if run.task == "restoration" and "views" in run.examples:
        return html.block("Best and worst cases", _strip_rows(run, rows))
    keys = [f"map_{kind}_{branch}" for branch in ("guidance", "difference") for kind in MAPS]
    keys = [key for key in keys if key in run.examples]
    columns = ["distorted", *(["restored"] if "views" in run.examples else [])]
    columns += [f"{key.split('_')[2]}<br>patch {key.split('_')[1]}" for key in keys]
    body = html.pictures(
        columns,
        [(_label(run, row), _case(run, row, keys)) for row in rows],
    )
    ramps = []
    for key in keys:
        _, kind, branch = key.split("_")
        low, high = (number(v, 2) for v in _span(run.examples[key]))
        ramp = f'<i class="ramp" style="background:{charts.gradient(MAPS[kind])}"></i>'
        ramps.append((f"{branch} {kind} <b>{low}</b>{ramp}<b>{high}</b>", ""))
    note = "With the score each patch got and the weight it had in each branch's mean."
    return html.block("Best and worst cases", body + html.chips(ramps), note if keys else "")


def _case(run: Run, row: int, keys: list[str]) -> list[tuple[str, str, bool]]:
    image = run.examples["image"][row]
    pictures = [_picture(image, "distorted")]
    if "views" in run.examples:
        pictures.append(_picture(strip(run.examples, row)[-2], "restored"))
    for key in keys:
        values, colours = run.examples[key], MAPS[key.split("_")[1]]
        overlay = charts.heat_map(image, values[row], _span(values), colours)
        pictures.append(_picture(overlay, key, exact=False))
    return pictures


def _span(values: np.ndarray) -> tuple[float, float]:
    """The ends of a map's colours, the same for all examples so that they compare."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _curves(run: Run) -> str:
    title = "Learning curves"
    keys = [k for prefix in SHOWN_KEYS for k in sorted(run.history) if k.startswith(prefix)]
    if not keys:
        return html.block(title, html.missing("No metrics.jsonl in this run."))
    drawn = ""
    for key in keys:
        last = run.history[key][max(run.history[key])]
        name = f"<figcaption><b>{escape(key)}</b> last {last:.4g}</figcaption>"
        drawn += f"<figure>{name}{charts.curve(run.history[key])}</figure>"
    speed = list(run.history.get("train/images_per_s", {}).values())
    notes = [f"Median speed {np.median(speed):.4g} images per second."] if speed else []
    notes += [f"Damaged lines of the log left out: {run.damaged}."] if run.damaged else []
    return html.block(title, f'<div class="plots">{drawn}</div>', " ".join(notes))


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in _flat(v, f"{name}.{k}" if name else k)]
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(name, text)]


def _settings(run: Run) -> str:
    body = html.missing("No config.json in this run.")
    if run.config is not None:
        text = escape(json.dumps(run.config, indent=2, ensure_ascii=False))
        body = html.fold("Configuration", f"<pre>{text}</pre>")
    if run.env is None:
        body += html.missing("No env.json in this run.")
    else:
        rows = [[escape(name), escape(text)] for name, text in _flat(run.env)]
        table = html.table(["Name", "Value"], rows)
        body += html.fold("Versions and devices", f'<div class="settings">{table}</div>')
    return html.block("How it was made", body)
