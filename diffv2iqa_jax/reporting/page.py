"""The page of one run: each section turns a `Run` into HTML.

This module escapes every text of a run. A section whose file is missing says so.
"""

import json
from html import escape
from typing import Any

import numpy as np

from diffv2iqa_jax.evaluation import correlation
from diffv2iqa_jax.reporting import charts, html
from diffv2iqa_jax.reporting.html import is_number, number
from diffv2iqa_jax.reporting.run import TASKS, Run
from diffv2iqa_jax.reporting.words import Words, words

SCORES = {
    "score": "both branches",
    "score_guidance": "guidance branch",
    "score_difference": "difference branch",
}


MAPS = {"score": "viridis", "weight": "magma"}  # colours of the two kinds of patch maps
MOST_STRIPS = 16  # rows of strips; all of 25 types would make the page heavy
SHOWN_KEYS = ("train/loss", "val/", "lr")  # of the log, in this order


def run_page(title: str, runs: list[Run]) -> str:
    """The whole document, one stage after the other."""
    return html.document(title, [(TASKS.get(run.task, run.name), _stage(run)) for run in runs])


def fit_of(run: Run, key: str) -> correlation.Fit | None:
    """The fitted curve of a score, from the results; None where they hold none."""
    saved = ((run.results or {}).get("scores") or {}).get(key, {}).get("fit") or {}
    numbers = saved.get("parameters") or []
    if len(numbers) != {"logistic4": 4, "logistic5": 5, "linear": 3}.get(saved.get("kind")):
        return None
    if not all(map(is_number, numbers)):
        return None
    return correlation.Fit(**{name: saved.get(name) for name in correlation.Fit._fields})


def words_of(run: Run) -> Words:
    """How to call the labels of a run's results."""
    return words((run.results or {}).get("protocol"))


def colours_of(run: Run) -> dict[str, str]:
    """A colour for each distortion type of the predictions."""
    return charts.palette(sorted(set(run.predictions["type"].tolist()) - {""}))


def strip(examples: dict[str, np.ndarray], row: int) -> list[np.ndarray | None]:
    """An example's images: distorted, noisiest to least noisy state, restored, original or None."""
    views = examples["views"][row][::-1] if "views" in examples else []
    reference = examples["reference"][row] if "reference" in examples else None
    return [examples["image"][row], *views, reference]


def _stage(run: Run) -> str:
    """All sections of one stage."""
    of_task = [_gains] if run.task == "restoration" else [_agreement, _scatters, _types]
    sections = [_headline, *of_task, _strips, _cases, _curves, _settings]
    return "".join(section(run) for section in sections)


def _headline(run: Run) -> str:
    if run.results is None:
        return html.missing("No results.json yet: this run has not been evaluated.")
    if run.results.get("part") == "none":
        return html.missing("All images of the set were for training; --on judges on another.")
    headline = _restoration_headline if run.task == "restoration" else _quality_headline
    lead, tiles = headline(run)
    tiles.append((number(run.results.get("step"), 0), "steps", "of training"))
    cautions = (run.results.get("protocol") or {}).get("warnings") or []
    notes = "".join(html.missing(f"Caution: {escape(str(w))}.") for w in cautions)
    if run.task == "quality" and words_of(run).caution:
        notes = html.missing(escape(words_of(run).caution)) + notes
    return f'<p class="lead">{lead}</p>{html.tiles(tiles)}{notes}'


def _where(run: Run) -> str:
    """Which images: '288 images of 24 references never seen in training'."""
    part = str(run.results.get("part", "test"))
    text = f"{number(run.results.get('images'), 0)} images"
    columns = run.predictions
    groups = set() if columns is None else set(columns["group"].tolist()) - {""}
    if groups and len(groups) < len(columns["id"]):
        text += f" of {len(groups)} references"
    explained = {"test": "never seen in training", "val": "kept aside for choosing the model"}
    return f"{text} {explained.get(part, f'of the part {escape(part)}')}"


def _quality_headline(run: Run) -> tuple[str, list]:
    """The sentence and the tiles of a quality run."""
    scores = run.results["scores"]
    agreement = scores.get("score") or next(iter(scores.values()))
    images = (number(run.results.get("images"), 0), "images", "each judged once")
    source = escape(words_of(run).source)
    if not is_number(agreement.get("srcc")):
        why = escape(str(agreement.get("reason") or "too little to compare"))
        return f"No agreement with {source} is defined: {why}.", [images]
    lead = f"SRCC <b>{number(agreement['srcc'])}</b> on {_where(run)}{_interval(run)}."
    return lead, [
        (number(agreement["srcc"]), "SRCC", f"same order as {source}: 1 is perfect, 0 is chance"),
        (number(agreement.get("plcc_fit")), "PLCC", "straight-line agreement, after the fit"),
        (number(agreement.get("rmse_fit")), "RMSE", "typical error after the fit, quality in 0–1"),
        images,
    ]


def _interval(run: Run) -> str:
    columns = run.predictions
    if columns is None:
        return ""
    grouped = "" not in columns["group"] and len(set(columns["group"])) < len(columns["group"])
    group = columns["group"] if grouped else columns["id"]
    interval = correlation.srcc_interval(columns["score"], columns["mos"], group)
    if interval is None:
        return ""
    low, high = map(number, interval)
    drawn = "references" if grouped else "images"
    return f" (95&nbsp;% interval {low} to {high}, bootstrap over {drawn})"


def _minus(a: Any, b: Any) -> float | None:
    return a - b if is_number(a) and is_number(b) else None


def _restoration_headline(run: Run) -> tuple[str, list]:
    """The sentence and the tiles of a restoration run."""
    results = run.results
    before, after = results.get("psnr_image"), results.get("psnr_restored")
    gain = _minus(after, before)
    lead = (
        f"Restoration changes PSNR to the pristine original by "
        f"<b>{number(gain, 2, sign=True)} dB</b> (from {number(before, 2)} to "
        f"{number(after, 2)} dB) on {_where(run)}."
    )
    ssim_gain = _minus(results.get("ssim_restored"), results.get("ssim_image"))
    return lead, [
        (html.difference(gain), "dB gain", "above 0, the restored image is nearer"),
        (number(after, 2), "dB PSNR", "restored against original"),
        (number(results.get("ssim_restored")), "SSIM", "structure kept: 1 is identical"),
        (html.difference(ssim_gain, 3), "SSIM gain", "over the distorted image"),
        (number(results.get("images"), 0), "images", "each restored once"),
    ]


def _agreement(run: Run) -> str:
    if run.results is None:
        return ""
    keys = ("srcc", "krcc", "plcc", "plcc_fit", "rmse", "rmse_fit")
    rows, remarks = [], []
    for name, agreement in run.results["scores"].items():
        fit, label = agreement.get("fit") or {}, escape(SCORES.get(name, name))
        kind = escape(str(fit.get("kind", "–")))
        rows.append([label, *(number(agreement.get(key)) for key in keys), kind])
        reason = agreement.get("reason") or fit.get("reason")
        remarks += [f"{label}: {escape(str(reason))}."] if reason else []
        falls = fit.get("increasing") is False
        remarks += [f"{label}: the score falls where quality rises."] if falls else []
    head = ["Score", "SRCC", "KRCC", "raw", "fitted", "raw", "fitted", "curve"]
    groups = [("", 3), ("PLCC", 2), ("RMSE", 2), ("Fit", 1)]
    body = html.table(head, rows, groups) + "".join(map(html.missing, remarks))
    protocol = (run.results.get("protocol") or {}).items()
    body += html.chips([(f"{escape(str(k))} <b>{escape(str(v))}</b>", "") for k, v in protocol])
    note = "Fitted numbers follow a monotone curve from score to quality; ranks need none."
    title = f"Agreement with {escape(words_of(run).source)}"
    return html.block(title, body + _baselines(run), note)


def _baselines(run: Run) -> str:
    baselines = run.results.get("baselines")
    if not baselines:
        return ""
    own_srcc = (run.results["scores"].get("score") or {}).get("srcc")
    methods = [("<b>this run</b>", own_srcc)]
    methods += [(escape(str(name)), srcc) for name, srcc in baselines.items()]
    methods.sort(key=lambda method: -method[1] if is_number(method[1]) else 2)
    table = html.table(["Method", "SRCC"], [[name, html.bar(srcc)] for name, srcc in methods])
    return f"<h4>Beside simple baselines</h4>{table}"


def _scatters(run: Run) -> str:
    title, columns = "Score against quality", run.predictions
    if columns is None:
        return html.block(title, html.missing("No predictions.csv in this run."))
    colours = colours_of(run)
    points = [colours.get(type, charts.ACCENT) for type in columns["type"].tolist()]
    figures, size = "", charts.LARGE  # the first, which is the main score, is the larger one
    for key in (key for key in columns if key.startswith("score")):
        look = {"size": size, "quality": words_of(run).axis}
        chart = charts.scatter(columns[key], columns["mos"], points, fit_of(run, key), **look)
        caption = f"<figcaption><b>{escape(SCORES.get(key, key))}</b></figcaption>"
        figures += f"<figure>{caption}{chart}</figure>"
        size = charts.MEDIUM
    legend = html.chips([(escape(name), colour) for name, colour in colours.items()])
    note = "One point is one image; the line is the fitted curve."
    return html.block(title, f'{legend}<div class="plots wide">{figures}</div>', note)


def _types(run: Run) -> str:
    if run.results is None:
        return ""
    title, per_type = "Per distortion", run.results.get("per_type")
    if not per_type:
        return html.block(title, html.missing("This data set names no distortion types."))
    main, *others = run.results["scores"]
    head = ["Type", "Images", *(escape(SCORES.get(key, key)) for key in (main, *others))]
    rows = []
    for type, by_score in per_type.items():
        agreement = by_score.get(main, {})
        cells = [number(agreement.get("images"), 0), html.bar(agreement.get("srcc"))]
        cells += [number(by_score.get(key, {}).get("srcc")) for key in others]
        cells += [number(agreement.get(key)) for key in ("krcc", "plcc", "rmse")]
        rows.append((agreement.get("srcc"), [escape(type), *cells]))
    rows.sort(key=lambda row: -row[0] if is_number(row[0]) else 2)
    groups = [("", 2), ("SRCC", 1 + len(others)), (escape(SCORES.get(main, main)), 3)]
    table = html.table([*head, "KRCC", "PLCC raw", "RMSE raw"], [row for _, row in rows], groups)
    return html.block(title, table, "Agreement within one type, best first.")


def _gains(run: Run) -> str:
    if run.results is None:
        return ""

    per_type = run.results.get("per_type") or {}
    rows = [_gain_row("<b>all</b>", run.results)]
    rows += [_gain_row(escape(type), means) for type, means in sorted(per_type.items())]
    head = ["Type", "Images", *("distorted", "restored", "gain") * 2]
    table = html.table(head, rows, [("", 2), ("PSNR in dB", 3), ("SSIM", 3)])
    note = "Fidelity to the pristine original before and after restoration, mean over images."
    return html.block("Gain per distortion", table, note)


def _gain_row(name: str, means: dict) -> list[str]:
    cells = [name, number(means.get("images"), 0)]
    for measure, digits, gain_digits in (("psnr", 2, 2), ("ssim", 3, 3)):
        before, after = means.get(f"{measure}_image"), means.get(f"{measure}_restored")
        gain = html.difference(_minus(after, before), gain_digits)
        cells += [number(before, digits), number(after, digits), gain]
    return cells


def _prediction(run: Run, row: int) -> dict[str, Any]:
    """The row of the predictions that belongs to an example; {} where there is none."""
    columns, id = run.predictions, str(run.examples["id"][row])
    rows = [] if columns is None else np.flatnonzero(columns["id"] == id)
    return {key: column[rows[0]].item() for key, column in columns.items()} if len(rows) else {}


def _label(run: Run, row: int) -> str:
    """Why an example was chosen, its distortion, its name, and how it was predicted."""
    prediction, why = _prediction(run, row), str(run.examples["why"][row])
    distortion = " ".join(str(prediction.get(k, "")) for k in ("type", "level")).strip()
    lines = [] if why.startswith("type ") else [escape(distortion)]
    lines += [escape(str(prediction.get("name", f"image {run.examples['id'][row]}")))]
    if "psnr_image" in prediction:
        psnr = prediction["psnr_image"]
        gain = html.difference(_minus(prediction["psnr_restored"], psnr))
        lines += [f"{number(psnr, 1)} dB {gain}"]
    elif "score" in prediction:
        score, mos = prediction["score"], prediction["mos"]
        error = number(_minus(score, mos), 2, sign=True)
        short = escape(words_of(run).short)
        lines += [f"score {number(score, 2)}, {short} {number(mos, 2)} ({error})"]
    small = "".join(f"<small>{line}</small>" for line in lines if line)
    return f"<b>{escape(why.removeprefix('type '))}</b>{small}"


def _picture(image: np.ndarray | None, alt: str, exact: bool = True) -> tuple[str, str, bool]:
    """An image as `html.pictures` takes it; None is a gap."""
    if image is None:
        return "", "", False
    return charts.data_uri(image, exact=exact), alt, max(image.shape[:2]) <= charts.SMALL


def _strip_rows(run: Run, rows: list[int]) -> str:
    """The strips of these examples, one below the other."""
    examples = run.examples
    noisy = range(examples["views"].shape[1] - 1, 0, -1)
    columns = ["distorted<br>x<sub>dis</sub>", *(f"noisy<br>y<sub>t{i}</sub>" for i in noisy)]
    columns += ["restored<br>y<sub>0</sub>", "original<br>reference"][
        : 1 + ("reference" in examples)
    ]
    names = ["distorted", *["noisy state"] * len(noisy), "restored", "original"]
    strips = []
    for row in rows:
        images = zip(strip(examples, row)[: len(columns)], names, strict=False)
        pictures = [_picture(image, name, name != "noisy state") for image, name in images]
        strips.append((_label(run, row), pictures))
    return html.pictures(columns, strips)


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
    """An example's image, its restoration, and its maps of these keys over the image."""
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
    figures = ""
    for key in keys:
        last = run.history[key][max(run.history[key])]
        caption = f"<figcaption><b>{escape(key)}</b> last {last:.4g}</figcaption>"
        figures += f"<figure>{caption}{charts.curve(run.history[key])}</figure>"
    speed = list(run.history.get("train/images_per_s", {}).values())
    notes = [f"Median speed {np.median(speed):.4g} images per second."] if speed else []
    notes += [f"Damaged lines of the log left out: {run.damaged}."] if run.damaged else []
    return html.block(title, f'<div class="plots">{figures}</div>', " ".join(notes))


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested dicts as (dotted name, text) pairs."""
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
