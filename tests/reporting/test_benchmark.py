"""Tables of many runs: right numbers in the right cells, honest marks, one self-contained page."""

import csv
import io
import json
import re

import numpy as np
import pytest

from diffv2iqa_jax import report
from diffv2iqa_jax.evaluation import correlation
from diffv2iqa_jax.reporting import benchmark, write

TYPES = ("blur", "jpeg")


def write_run(folder, *, name="setA", split=0, seed=0, noise=0.3, on=None, quality=0, **facts):
    """A finished quality run whose score has that error; `on`: its evaluation on another set."""
    home = folder
    folder = folder if on is None else folder / "eval" / on
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng([quality, split, 7])  # the same for all methods
    group = np.repeat(np.arange(20), 6)
    mos = images.uniform(0.1, 0.9, len(group))
    error = np.random.default_rng([seed, split, int(1000 * noise)]).normal(size=len(group))
    score = mos + noise * error
    kind = np.array([TYPES[i % 2] for i in range(len(group))])
    numbers = correlation.summary({"mos": mos, "score": score, "type": kind}, span=100.0)
    protocol = {"name": on or name, "parts": "reference", "split": split, "selection": "last step"}
    protocol |= {"split_sha256": f"{on or name}{split}", "pp_test": "grid(224)", **facts}
    results = {"task": "quality", "step": 9, "part": "test", "protocol": protocol, **numbers}
    (folder / "results.json").write_text(json.dumps(results))
    data = {"name": name, "split": split, "parts": facts.get("parts", "reference")}
    config = {"task": "quality", "seed": seed, "data": data}
    (home / "config.json").write_text(json.dumps(config))
    with (folder / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "name", "group", "type", "level", "mos", "score"])
        rows.writerows(
            [i, f"i{i}", f"g{group[i]}", kind[i], 1, mos[i], score[i]] for i in range(len(mos))
        )
    return numbers["scores"]["score"]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(benchmark, "DRAWS", 150)


@pytest.fixture
def study(tmp_path):
    """Two methods on ten splits of one set; the good one also across sets."""
    truth = {}
    for method, noise in (("good", 0.1), ("bad", 0.5)):
        for split in range(10):
            folder = tmp_path / method / "setA" / f"split-{split}"
            truth[method, split] = write_run(folder, split=split, noise=noise)
    write_run(tmp_path / "good" / "setA" / "all", on="setB", parts="all", quality=1)
    return tmp_path, truth


def entries(*folders):
    return [entry for folder in folders for entry in write.entries_below(str(folder))]


def titled(tables, title):
    return next(table for table in tables if table.title == title)


def test_medians_means_and_every_value_are_those_of_the_runs(study):
    root, truth = study
    summary = benchmark.summary([e for e in entries(root / "good") if e.own])
    values = [truth["good", s]["srcc"] for s in range(10)]
    assert summary["runs"] == summary["splits"] == 10
    assert summary["srcc"]["values"] == pytest.approx(values)
    assert summary["srcc"]["median"] == pytest.approx(np.median(values))
    assert summary["srcc"]["std"] == pytest.approx(np.std(values, ddof=1))
    errors = [100 * truth["good", s]["rmse_fit"] for s in range(10)]
    assert summary["rmse_native"]["median"] == pytest.approx(np.median(errors))
    assert summary["interval"] is None  # ten test parts


def test_a_worse_method_is_marked_by_the_splits_in_common(study):
    root, truth = study
    tables = benchmark.all_tables(entries(root / "good", root / "bad"))
    rows = {row[0]: row for row in titled(tables, "setA, own test part").rows}
    assert rows["good"][-1] == "★" and rows["bad"][-1] == "▼"
    assert rows["good"][1] == "10 (10 splits)"
    assert rows["bad"][2] == f"{np.median([truth['bad', s]['srcc'] for s in range(10)]):.3f}"
    assert "signed ranks of 10 splits" in titled(tables, "setA, own test part").note


def test_few_splits_are_tested_on_the_images_they_share(tmp_path):
    for seed in range(2):
        for method, noise in (("good", 0.1), ("alike", 0.101), ("bad", 0.5)):
            write_run(tmp_path / method / f"seed-{seed}", seed=seed, noise=noise)
    tables = benchmark.all_tables(entries(*(tmp_path / m for m in ("good", "alike", "bad"))))
    rows = {row[0]: row[-1] for row in tables[0].rows}
    assert rows["bad"] == "▼" and {rows["good"], rows["alike"]} == {"★", "≈"}
    assert "paired bootstrap on split 0, 2 and 2 runs" in tables[0].note
    assert "caution: one split only" in tables[0].note
    low, high = map(float, tables[0].rows[0][4].split(" to "))
    assert low < float(tables[0].rows[0][3].split(" ")[0]) < high


def test_other_test_parts_are_not_compared(tmp_path):
    write_run(tmp_path / "one" / "r", split_sha256="a")
    write_run(tmp_path / "two" / "r", split_sha256="b", noise=0.5)
    tables = benchmark.all_tables(entries(tmp_path / "one", tmp_path / "two"))
    assert [row[-1] for row in tables[0].rows] == ["★", "?"]
    assert "no test part in common" in tables[0].note


def test_across_sets_and_by_type(study):
    root, _ = study
    tables = benchmark.all_tables(entries(root / "good"))
    across = titled(tables, "Across data sets")
    assert across.head == ["Learned on", "setA", "setB"]
    cells = {row[0]: row[1:] for row in across.rows}
    assert list(cells) == ["good: setA"] and cells["good: setA"][0].endswith("° (10)")
    assert re.fullmatch(r"0\.\d{3} / 0\.\d{3}", cells["good: setA"][1])
    write_run(root / "good" / "setA" / "split-0", on="setB", quality=1)
    across = titled(benchmark.all_tables(entries(root / "good")), "Across data sets")
    assert across.rows[0][2] == cells["good: setA"][1]  # what all of A taught goes before
    kinds = titled(tables, "setA, SRCC by distortion")
    assert [row[0] for row in kinds.rows] == list(TYPES)


def test_warnings_stand_under_the_table(tmp_path):
    write_run(tmp_path / "m" / "r", warnings=["legacy-release split: for comparison"])
    tables = benchmark.all_tables(entries(tmp_path / "m"))
    assert "caution: legacy-release split: for comparison" in tables[0].note
    assert "legacy-release" in benchmark.as_csv(entries(tmp_path / "m"))


def test_undefined_numbers_are_dashes(tmp_path):
    write_run(tmp_path / "m" / "r")
    path = tmp_path / "m" / "r" / "results.json"
    results = json.loads(path.read_text())
    for key in ("srcc", "plcc_fit", "rmse_native", "krcc"):
        results["scores"]["score"][key] = None
    path.write_text(json.dumps(results))
    tables = benchmark.all_tables(entries(tmp_path / "m"))
    assert tables[0].rows[0][2] == "–"
    row = next(csv.DictReader(io.StringIO(benchmark.as_csv(entries(tmp_path / "m")))))
    assert row["srcc"] == ""


def test_markdown_has_a_cell_for_each_column(study):
    root, _ = study
    text = benchmark.as_markdown(benchmark.all_tables(entries(root / "good", root / "bad")))
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        widths = {line.count("|") for line in block.splitlines()}
        assert len(widths) == 1
    assert text.count("## ") >= 3


def test_csv_holds_every_run_and_runs_nothing(tmp_path):
    write_run(tmp_path / "m" / "r", name="=cmd()")
    rows = list(csv.DictReader(io.StringIO(benchmark.as_csv(entries(tmp_path / "m")))))
    assert len(rows) == 1 and rows[0]["tested"] == "'=cmd()"
    assert float(rows[0]["srcc"]) > 0.5 and rows[0]["images"] == "120"


def test_the_command_writes_three_files(study, capsys):
    root, _ = study
    out = root / "out"
    argv = [f"first <one>={root / 'good'}", str(root / "bad"), "-o", str(out)]
    assert report.main(argv) == 0
    assert sorted(p.name for p in out.iterdir()) == ["tables.csv", "tables.html", "tables.md"]
    page = (out / "tables.html").read_text()
    assert "first &lt;one&gt;" in page and "first <one>" not in page
    assert page.count("<svg") == 1 + 3 and 'aria-label="SRCC of every run"' in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)  # nothing from elsewhere
    assert report.main(["--tables", str(root / "bad")]) == 0
    assert (root / "bad" / "tables" / "tables.md").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{root}/good", "{root}/empty"], "no evaluated quality run in it"),
        (["{root}/good", "{root}/copy/good"], "'good' names two methods"),
        (["--tables", "{root}/broken"], "is damaged"),
    ],
)
def test_what_cannot_be_tabled_is_one_line(argv, message, study, capsys):
    root, _ = study
    (root / "empty").mkdir()
    write_run(root / "copy" / "good" / "r")
    write_run(root / "broken" / "r")
    (root / "broken" / "r" / "results.json").write_text("{")
    assert report.main([a.format(root=root) for a in argv]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
