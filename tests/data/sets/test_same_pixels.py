"""A file scored by itself is the same pixels as in its set, whatever its file says of them."""

import csv
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax import score
from diffv2iqa_jax.data import evaluation, prepare, reading
from diffv2iqa_jax.pp import decode
from tests import pictures, runs

SHAPE = (20, 36)
PHOTOS = {  # file -> what it is saved with
    "plain.jpg": {"quality": 90},
    "p3.png": {"icc_profile": pictures.display_p3()},
    "p3.jpg": {"icc_profile": pictures.display_p3(), "quality": 90},
    "turned.jpg": {"exif": pictures.turned(6), "quality": 90},
    "turned.png": {"exif": pictures.turned(6)},
    "turned_p3.jpg": {"exif": pictures.turned(6), "icc_profile": pictures.display_p3()},
    "phone.mpo": {"save_all": True, "append_images": [Image.new("RGB", (36, 20))]},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos as phones write them, and their table of labels."""
    folder = tmp_path_factory.mktemp("tagged")
    for seed, (name, settings) in enumerate(PHOTOS.items()):
        image = Image.fromarray(pictures.picture(*SHAPE, seed=seed))
        image.save(folder / name, **settings)
    lines = [f"{name},{place}" for place, name in enumerate(PHOTOS)]
    (folder / "labels.csv").write_text("\n".join(["image,mos", *lines]))
    return folder


def prepared(name, photos, data, *options) -> str:
    """The set csv/`name` of the photos, prepared in the folder `data`."""
    argv = ["csv", "--name", name, "--source", photos / "labels.csv", "--folder", data]
    assert prepare.main([str(a) for a in (*argv, "--low", 0, "--high", 9, *options)]) == 0
    return f"csv/{name}"


def as_stored(name, data) -> dict[str, np.ndarray]:
    """The pixels of each image of a set as evaluation has them, their content numbers checked."""
    source, found = reading.load(name, str(data)), {}
    for batch in evaluation.whole(source, source.table["id"], batch=1):
        (image,), (content,), (id,) = batch["image"], batch["content"], batch["id"]
        assert content == zlib.crc32(image)
        found[source.table["name"][id]] = image
    return found


def test_a_tagged_photo_is_scored_as_it_was_evaluated(
    photos, data, restored, by_crops, loaded_by_crops, tmp_path
):
    name = prepared("tagged", photos, data)
    for file, pixels in as_stored(name, data).items():
        np.testing.assert_array_equal(pixels, decode.read(photos / file).image_HWC, file)
    work = tmp_path / "run"
    shutil.copytree(by_crops, work)
    config = runs.stage2(data, restored, **{"restorer.cached": False})
    runs.run(config, work, mode="evaluate", on=name)
    with open(work / "eval" / "csv-tagged" / "predictions.csv", newline="") as file:
        want = {row["name"]: float(row["score"]) for row in csv.DictReader(file)}
    assert want.keys() == PHOTOS.keys()
    loaded_by_crops.forget()
    for file, value in want.items():
        assert float(loaded_by_crops(photos / file)) == pytest.approx(value, abs=1e-5), file


def test_prepare_and_score_ignore_tags_by_the_same_options(
    photos, packed, loaded_by_crops, tmp_path, capsys
):
    ignore = ("--icc", "ignore", "--orientation", "ignore")
    name = prepared("raw", photos, tmp_path, *ignore)
    how = decode.Reading(icc="ignore", orientation="ignore")
    for file, pixels in as_stored(name, tmp_path).items():
        np.testing.assert_array_equal(pixels, decode.read(photos / file, how).image_HWC, file)
        assert pixels.shape[:2] == SHAPE
    facts = reading.load(name, str(tmp_path)).facts
    assert (facts["icc"], facts["orientation"]) == ("ignore", "ignore")
    argv = [photos / "turned_p3.jpg", "--weights", packed, "--jit_cache", "", *ignore, "-q"]
    capsys.readouterr()
    assert score.main([str(a) for a in argv]) == 0
    want = loaded_by_crops(as_stored(name, tmp_path)["turned_p3.jpg"])
    assert float(capsys.readouterr().out) == pytest.approx(float(want), abs=1e-5)
