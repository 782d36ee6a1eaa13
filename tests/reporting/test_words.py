"""Pages call labels what they are: only people have opinions."""

import json
import re

import pytest

from diffv2iqa_jax import report
from diffv2iqa_jax.data import prepare, reading
from diffv2iqa_jax.data.sets import catalog
from diffv2iqa_jax.reporting import words, write
from diffv2iqa_jax.scoring import scorer
from tests import twins
from tests.pictures import picture
from tests.reporting.test_benchmark import write_run
from tests.reporting.test_report import make_quality

OF_PEOPLE = re.compile(r"\b(people|MOS|human|raters?|opinions?)\b")


def relabelled(folder, **protocol):
    """That run with these facts in its results; returns the visible text of its page."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results["protocol"] |= protocol
    path.write_text(json.dumps(results))
    return visible(write.write(str(folder), str(folder / "page.html")))


def visible(page: str) -> str:
    with open(page, encoding="utf-8") as file:
        return re.sub(r"<style>.*?</style>|<[^>]*>", " ", file.read(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def quality(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "quality"
    make_quality(folder)
    return folder


@pytest.mark.parametrize(
    "labels, said, caution",
    [
        ("MOS", ("Agreement with people", "quality (MOS)", ", MOS 0."), ""),
        ("DMOS", ("Agreement with people", "quality (from DMOS)"), ""),
        (
            "formula FSIM",
            ("Agreement with FSIM", "same order as FSIM", "quality (FSIM)", ", FSIM 0."),
            "The labels are computed by FSIM: these numbers say nothing about people.",
        ),
        (
            "given",
            ("Agreement with the given labels", "quality (given labels)"),
            "The labels are those given.",
        ),
        ("a <b> panel", ("Agreement with the labels (a &lt;b&gt; panel)",), "&lt;b&gt; panel."),
    ],
)
def test_a_page_calls_labels_what_the_set_says_they_are(quality, labels, said, caution):
    text = relabelled(quality, labels=labels)
    assert all(words in text for words in said), [words for words in said if words not in text]
    assert caution in text and ("The labels are" in text) == bool(caution)
    if labels not in ("MOS", "DMOS"):
        assert not OF_PEOPLE.search(text.replace(caution, ""))


@pytest.mark.parametrize(
    "name, labels",
    [("builtin/tiny", words.HAARPSI), ("pristine", words.HAARPSI), ("csv/x", "given"), ("", "MOS")],
)
def test_results_written_before_they_said_so_are_known_by_the_sets_name(name, labels):
    assert words.labels_of({"name": name}) == labels
    assert words.labels_of({"name": name, "labels": "DMOS"}) == "DMOS"


def test_the_tables_say_it_too(tmp_path, monkeypatch):
    for method in ("one", "two"):
        write_run(tmp_path / method / "s", labels="formula FSIM", split=0, seed=0, noise=0.1)
    out = tmp_path / "tables"
    assert report.main([str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(out)]) == 0
    assert "labels formula FSIM" in (out / "tables.md").read_text()
    assert ",labels," in (out / "tables.csv").read_text().splitlines()[0]
    page = visible(out / "tables.html")
    assert "quality (FSIM)" in page and not OF_PEOPLE.search(page)


def test_a_run_on_a_formulas_labels_says_so_from_the_set_to_the_scorer(
    quality_run, loaded_by_crops
):
    text = visible(quality_run / "report.html")
    caution = words.words({"labels": words.HAARPSI}).caution
    assert caution in text and not OF_PEOPLE.search(text.replace(caution, ""))
    assert loaded_by_crops.info.labels == words.HAARPSI
    assert loaded_by_crops(picture()).mos is None


def test_the_starters_labels_are_of_people():
    assert scorer.load("starter", jit_cache=None).info.labels == "MOS"


def test_every_set_says_what_its_labels_are(tmp_path, capsys):
    assert {spec.opinions for spec in catalog.SETS.values()} == {"MOS", "DMOS"}
    for i in range(3):
        twins.picture(tmp_path / f"p{i}.png", i, (10, 9))
    (tmp_path / "l.csv").write_text("image,mos\np0.png,1\np1.png,2\np2.png,3\n")
    base = ["csv", "--source", str(tmp_path / "l.csv"), "--folder", str(tmp_path / "sets")]
    base += ["--low", "1", "--high", "3"]
    for name, more, labels in (
        ("mine", [], "given"),
        ("computed", ["--labels", "formula FSIM"], "formula FSIM"),
    ):
        assert prepare.main([*base, "--name", name, *more]) == 0, capsys.readouterr().err
        assert reading.load(f"csv/{name}", str(tmp_path / "sets")).facts["labels"] == labels
