import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax import report
from diffv2iqa_jax.evaluation import correlation
from diffv2iqa_jax.reporting import run, write

TYPES = ("blur", "jpeg", "noise", "<b>odd</b> $x_{")
SIZE = 64


def picture(rng):
    """A smooth image with an edge: something to distort."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    waves = [np.sin(rng.uniform(3, 9) * x + rng.uniform(3, 9) * y + c) for c in range(3)]
    image = 128 + 70 * np.stack(waves, -1) + 40 * (x + y > rng.uniform(0.6, 1.4))[..., None]
    return image.clip(0, 255)


def examples(rng, ids, why, maps=False):
    reference = np.stack([picture(rng) for _ in ids])

    def noisy(std):
        return (reference + std * rng.normal(size=reference.shape)).clip(0, 255).astype(np.uint8)

    out = {
        "id": np.array(ids, np.int32),
        "why": np.array(why),
        "image": noisy(25),
        "views": np.stack([noisy(5), noisy(35), noisy(70)], 1),
        "reference": reference.astype(np.uint8),
    }
    for key in ("guidance", "difference") if maps else ():
        out[f"map_score_{key}"] = rng.uniform(0, 1, (len(ids), 14, 14)).astype(np.float32)
        out[f"map_weight_{key}"] = rng.beta(2, 5, (len(ids), 14, 14)).astype(np.float32)
    return out


def write_table(path, columns):
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))


def write_common(folder, task, values, evaluated):
    folder.mkdir(parents=True)
    config = {"task": task, "seed": 0, "model": {"note": "<script>alert(1)</script>"}}
    (folder / "config.json").write_text(json.dumps(config))
    env = {"versions": {"jax": "0.10.0", "numpy": "2.1"}, "devices": ["cpu:0", "cpu:1"]}
    (folder / "env.json").write_text(json.dumps(env))
    rng = np.random.default_rng(1)
    lines = [
        {"step": s, "train/loss": 40 * np.exp(-s / 80) + 0.3 * rng.uniform(), "lr": 1e-4,
         "train/images_per_s": 60 + rng.normal()}
        for s in range(1, 601, 4)
    ]  # fmt: skip
    lines += [{"step": s, **{k: v * s / 600 for k, v in values.items()}} for s in evaluated]
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + '\n{"step": 600, "train/lo')  # killed


def base_columns(n):
    return {
        "id": list(range(n)),
        "name": [f"I{i % 24:02d}_{i}.png" for i in range(n)],
        "group": [f"I{i % 24:02d}" for i in range(n)],
        "type": [TYPES[i % 4] for i in range(n)],
        "level": [1 + i % 5 for i in range(n)],
    }


WHY = ["best", "worst", *(f"type {kind} level 4" for kind in TYPES)]
IDS = [4, 9, 12, 13, 14, 15]


def make_quality(folder, n=288):
    rng = np.random.default_rng(0)
    write_common(folder, "quality", {"val/srcc": 0.82, "val/plcc": 0.84}, range(100, 601, 100))
    columns = base_columns(n)
    mos = rng.uniform(size=n).round(4)
    for key, noise in (("score", 0.12), ("score_guidance", 0.16), ("score_difference", 0.2)):
        columns[key] = (1 / (1 + np.exp(-4 * (mos - 0.4))) + noise * rng.normal(size=n)).round(5)
    columns = {k: columns[k] for k in list(columns)[:5]} | {"mos": mos} | columns
    write_table(folder / "predictions.csv", columns)
    table = {k: np.array(v) for k, v in columns.items()}
    protocol = {"size": "224", "crops": "center", "sampler": "50 steps"}
    results = {"task": "quality", "step": 600, "part": "test", "protocol": protocol}
    results |= correlation.summary(table) | {"baselines": {"sharpness": 0.41, "mean <i>": -0.1}}
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    np.savez(folder / "examples.npz", **examples(rng, IDS, WHY, maps=True))


def make_restoration(folder, n=96):
    rng = np.random.default_rng(0)
    write_common(folder, "restoration", {"val/psnr_restored": 27.0}, (300, 600))
    columns = base_columns(n)
    before = rng.normal(24, 2, n)
    gain = np.array([2.2, 1.1, 4.0, -0.6])[np.arange(n) % 4]
    columns |= {"psnr_image": before, "psnr_restored": before + gain + 0.3 * rng.normal(size=n)}
    columns |= {"ssim_image": rng.uniform(0.6, 0.8, n), "ssim_restored": rng.uniform(0.7, 0.9, n)}
    write_table(folder / "predictions.csv", columns)
    keys = ("psnr_image", "psnr_restored", "ssim_image", "ssim_restored")

    def means(rows):
        return {"images": int(sum(rows))} | {k: float(columns[k][rows].mean()) for k in keys}

    kinds = np.array(columns["type"])
    results = {"task": "restoration", "step": 600, "part": "test"} | means(kinds != "")
    results["per_type"] = {kind: means(kinds == kind) for kind in TYPES}
    (folder / "results.json").write_text(json.dumps(results))
    np.savez(folder / "examples.npz", **examples(rng, IDS, WHY))


def written(*args):
    """The page that `report.write` made."""
    return Path(write.write(*map(str, args))).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with both stages."""
    root = tmp_path_factory.mktemp("runs") / "kadid & co"
    make_quality(root / "quality")
    make_restoration(root / "restore")
    return root


@pytest.fixture(scope="module")
def html(made):
    return written(made)


@pytest.fixture
def quality(made, tmp_path):
    """One quality run to break."""
    return shutil.copytree(made / "quality", tmp_path / "run")


class Balance(HTMLParser):
    """Holds what is open; nothing may be at the end."""

    VOID = {"meta", "img", "br", "path", "use", "image", "rect"}

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(html):
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert not {"script", "link", "iframe", "object"} & set(parser.tags)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*', html) == []
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_every_section_is_there_restoration_first(html):
    titles = [
        "Restoration", "Gain per distortion", "What the restorer sees", "Best and worst cases",
        "Learning curves", "How it was made", "Quality", "Agreement with people",
        "Score against quality", "Per distortion", "Best and worst cases", "Learning curves",
    ]  # fmt: skip
    heads = re.findall(r"<h[23]>(.*?)</h[23]>", html)
    place = -1
    for title in titles:
        place = next(i for i, head in enumerate(heads) if i > place and head.startswith(title))


def test_the_headline_says_what_was_measured(html, made):
    srcc = json.loads((made / "quality/results.json").read_text())["scores"]["score"]["srcc"]
    lead = f"SRCC <b>{srcc:.3f}</b> on 288 images of 24 references never seen in training"
    assert lead in html and "bootstrap over references" in html
    assert "Damaged lines of the log left out: 1." in html
    assert '<span class="down"><i>▼</i> −0.' in html and '<span class="up"><i>▲</i> +' in html


def test_texts_of_the_run_are_escaped(html):
    assert "&lt;script&gt;alert(1)" in html and "<script" not in html
    assert "&lt;b&gt;odd&lt;/b&gt; $x_{" in html and "<b>odd" not in html
    assert "mean &lt;i&gt;" in html and "kadid &amp; co" in html


def test_the_same_run_gives_the_same_page(made, html, tmp_path):
    assert written(made, tmp_path / "again.html") == html


@pytest.mark.parametrize("gone", ["results.json", "metrics.jsonl", "config.json", "env.json",
                                  "predictions.csv", "examples.npz"])  # fmt: skip
def test_a_missing_file_is_said_not_fatal(quality, gone):
    (quality / gone).unlink()
    assert f"No {gone}" in written(quality)


def test_undefined_numbers_are_dashes_with_a_reason(quality):
    table = {"mos": np.arange(9.0), "score": np.ones(9), "type": np.array([""] * 9)}
    results = {"task": "quality", "step": 2, "part": "test", "protocol": {}}
    (quality / "results.json").write_text(json.dumps(results | correlation.summary(table)))
    text = written(quality)
    assert "No agreement with people is defined: score is constant" in text
    assert "names no distortion types" in text and "nan" not in text.lower().split("</style>")[1]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("results.json", "{", "results.json is damaged"),
        ("results.json", "[1]", "a JSON object was expected, not list"),
        ("results.json", '{"task": "other"}', "task is 'other', not one of"),
        ("results.json", '{"task": "quality", "scores": [1]}', "must be objects"),
        ("results.json", '{"task": "quality", "scores": {"score": 1}}', "must be objects"),
        ("results.json", '{"task": "quality", "scores": {}}', "no scores"),
        ("config.json", "nothing", "config.json is damaged"),
        ("predictions.csv", "id,name\n1", "predictions.csv is damaged"),
        ("predictions.csv", "id,name\n1,a\n", "no column group, level, mos, score, type"),
        ("predictions.csv", "id,mos\n1,high\n", "predictions.csv is damaged"),
        ("examples.npz", "PK", "examples.npz is damaged"),
    ],
)
def test_damage_is_one_line_and_nothing_is_written(quality, capsys, name, content, why):
    (quality / name).write_text(content)
    before = sorted(quality.iterdir())
    assert report.main([str(quality)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and why in err and "again" in err
    assert sorted(quality.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"views": np.zeros((6, 4, 4), np.uint8)}, "views has the shape"),
        ({"image": np.zeros((6, 4, 4, 3), np.float32)}, "image is float32, not uint8"),
        ({"why": np.array([{}] * 6, object)}, "examples.npz is damaged"),
    ],
)
def test_examples_of_a_wrong_kind_are_refused(quality, change, why):
    with np.load(quality / "examples.npz") as file:
        np.savez(quality / "examples.npz", **(dict(file) | change))
    with pytest.raises(ValueError, match=why):
        write.write(str(quality))


def test_what_is_no_run_is_refused(tmp_path, quality, capsys):
    (tmp_path / "empty").mkdir()
    for args, why in [
        ([str(tmp_path / "gone")], "is not a folder"),
        ([str(tmp_path / "empty")], "is not a run"),
        ([str(quality), "-o", str(tmp_path / "gone/x.html")], "is no folder; make it first"),
    ]:
        assert report.main(args) == 2
        assert why in capsys.readouterr().err
    assert list((tmp_path / "empty").iterdir()) == []


def test_stages_are_shown_also_beside_the_config_that_names_them(made, tmp_path):
    folder = tmp_path / "stages"
    shutil.copytree(made, folder)
    (folder / "config.json").write_text('{"stages": {}}')
    assert [run.task for run in run.read(str(folder))] == ["restoration", "quality"]


def test_a_run_in_training_has_a_page_too(made, tmp_path):
    shutil.copy(made / "quality/metrics.jsonl", tmp_path)
    text = written(tmp_path)
    assert "has not been evaluated" in text and "val/srcc" in text


@pytest.mark.parametrize("stage", ["", "quality", "restore"])
def test_the_figure_is_wide(made, tmp_path, stage):
    path = str(tmp_path / "figure.png")
    assert report.main([str(made / stage), "--figure", path]) == 0
    with Image.open(path) as image:
        width, height = image.size
    assert width > 1.8 * height and [p.name for p in tmp_path.iterdir()] == ["figure.png"]


def test_a_report_needs_neither_jax_nor_tensorflow(made, tmp_path):
    args = ["-m", "diffv2iqa_jax.report", str(made), "-o", str(tmp_path / "r.html")]
    command = [sys.executable, "-X", "importtime", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "r.html")
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "numpy" in imported and not {"jax", "flax", "tensorflow", "clu"} & imported
