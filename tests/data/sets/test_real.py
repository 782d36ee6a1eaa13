"""Real images of the public sets, with their real labels, where they lie beside the project."""

import csv
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax.data import pipeline, prepare, reading, splits
from diffv2iqa_jax.data.sets import catalog, labels, store

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data"
if not SHARED.is_dir():
    pytest.skip(f"no {SHARED}: real images are not here", allow_module_level=True)

SETS = {  # folder of the images -> (set, folder of its labels, name in it)
    "CSIQ": ("csiq", "csiq", "csiq_label.txt"),
    "TID2013": ("tid2013", "tid2013", "mos_with_names.txt"),
    "KonIQ-10k": ("koniq10k", "koniq10k", "koniq10k_distributions_sets.csv"),
    "LIVEC": ("livec", "livec", "live_mos.csv"),
}


def manifest(dataset):
    with open(SHARED / "real" / "manifest.csv", newline="") as file:
        return [r for r in csv.DictReader(file) if r["dataset"] == dataset]


def test_every_real_file_is_stored_as_it_is_and_decodes_as_pillow_does():
    files = sorted(p for p in (SHARED / "real").rglob("*") if p.suffix != ".csv" and p.is_file())
    assert len(files) >= 33
    for path in files:
        data, content = store.encoded(path, catalog.PHOTOS)
        assert data == path.read_bytes(), path
        pixels = np.asarray(pipeline.decoded(data))
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))
        assert content == store.content(pixels)


@pytest.mark.parametrize("dataset", SETS)
def test_a_real_piece_is_prepared_and_marked_incomplete(dataset, tmp_path, capsys):
    name, folder, file = SETS[dataset]
    source, data = tmp_path / "source", tmp_path / "data"
    shutil.copytree(SHARED / "real" / dataset, source / dataset)
    shutil.copy(SHARED / "labels" / folder / file, source / file)
    rows = manifest(dataset)
    for original in {r["ref"] for r in rows} - {""}:  # stand-ins: the originals are not here
        shutil.copy(source / rows[0]["file"], source / original)
    argv = [name, "--source", str(source), "--folder", str(data)]
    assert prepare.main(argv) == 2
    err = capsys.readouterr().err
    assert "missing: " in err and len(err.splitlines()) <= 21
    assert prepare.main([*argv, "--allow_missing"]) == 0
    table = reading.load(name, str(data)).table
    assert len(table["id"]) == len(rows)
    native = dict(zip(table["name"].tolist(), table["native"].tolist(), strict=True))
    for row in rows:
        called = pathlib.Path(row["file"]).name
        called = called.lower() if name == "tid2013" else called
        assert native[called] == pytest.approx(float(row["score"]), abs=1e-3), row


def test_a_part_of_biq2021_is_prepared_with_its_split(tmp_path, capsys):
    source, data = tmp_path / "source", tmp_path / "data"
    (source / "images").mkdir(parents=True)
    lines = (SHARED / "biq2021" / "labels.csv").read_text().splitlines()
    kept = [lines[0], *lines[1:20], *lines[-10:]]
    (source / "labels.csv").write_text("\n".join(kept))
    for row in labels.table(source / "labels.csv"):
        shutil.copy(SHARED / "biq2021" / "images" / row["image"], source / "images")
    assert prepare.main(["biq2021", "--source", str(source), "--folder", str(data)]) == 0
    opened = reading.load("biq2021", str(data))
    train, val, test = splits.choose(opened.table, "official", 0, (0.8, 0.0, 0.2))
    assert (len(train), len(val), len(test)) == (19, 0, 10)
    assert opened.facts["complete"] and opened.facts["lacking"] == 12000 - 29
