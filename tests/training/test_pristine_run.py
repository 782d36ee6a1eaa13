"""Whole runs on pristine photos: the step makes its images, evaluation always sees the same."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import rng
from diffv2iqa_jax.configs import pristine as config
from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.evaluation import full_reference
from diffv2iqa_jax.tasks import distorting, quality
from diffv2iqa_jax.training import checks, setup
from diffv2iqa_jax.types import Task
from tests import runs, tiny
from tests.training.test_logs import COSTS

TYPES = ("white_noise", "jpeg", "contrast", "gaussian_blur")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(10):
        Image.fromarray(scenes.scene(number, 24)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def few_types(monkeypatch):
    """All 25 types compile for long; what is tested here needs four."""

    def plain(key, x, level):
        return 1.0 - x

    functions = {k: f if k in TYPES else plain for k, f in kadid.FUNCTIONS.items()}
    monkeypatch.setattr(kadid, "FUNCTIONS", functions)


def small(folder, **changes) -> dict:
    c = config.get_config("cpu")
    own = {"restorer": tiny.restorer(), "data.distort.types": TYPES, "data.distort.pairs": 4}
    own |= {"data.distort.chains": 0.5, "data.distort.subsample": False}
    own |= {"data.fractions": (0.6, 0.2, 0.2), "data.folder": str(folder), "data.name": "pristine"}
    return runs.small(c, folder, {**own, **changes})


def lines(work) -> list[dict]:
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "train/loss" in row:
            assert row["train/images_per_s"] > 0 and 0 <= row["train/input_wait"] <= 1
    return [{k: v for k, v in row.items() if k not in COSTS} for row in rows]


def test_a_killed_run_on_photos_goes_on_as_if_nothing_had_been(folder, tmp_path):
    assert runs.run(small(folder), str(tmp_path), stop_at=4) == {}  # saved at 2, left after 3
    before = lines(tmp_path)
    results = runs.run(small(folder), str(tmp_path))
    after = lines(tmp_path)
    assert [r for r in after if r["step"] <= 3] == before
    assert [r["step"] for r in after if "train/loss" in r] == [1, 2, 3, 4]
    assert results["images"] == 8 and results["protocol"]["references"] == 2
    assert np.isfinite([results["psnr_image"], results["psnr_restored"]]).all()
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {int(r["level"]) for r in rows} <= set(range(6))


SETTINGS = {"types": TYPES, "clean": 0.2, "chains": 0.5, "levels": (1, 5), "group": 2}
SETTINGS |= {"subsample": False}


def seen(batch, key, **changes) -> dict:
    """The batch that a task gets to learn from."""
    found = []

    def loss(weights, batch, key):
        found.append(batch)
        return jnp.zeros(()), ({}, {})

    task = Task(lambda key, batch: batch["image"].shape, loss, lambda weights, batch: batch)
    made = distorting.distorting(task, **(SETTINGS | changes))
    assert made.init(key, batch) == batch["reference"].shape
    assert made.predict(None, batch) is batch

    def run(batch, key):
        made.loss(None, batch, key)
        return found.pop()

    return jax.tree.map(np.asarray, jax.jit(run)(batch, key))


def test_a_step_distorts_each_reference_by_its_draw_and_labels_it():
    batch = tiny.batch(count=16, size=24)
    batch["reference"] = np.stack([scenes.scene(i, 24) for i in range(16)])
    batch = {k: v for k, v in batch.items() if k not in ("image", "mos")}
    key = rng.stream(0, "train", 7)
    got = seen(batch, key)
    assert got["image"].dtype == np.uint8 and got["image"].shape == batch["reference"].shape
    same = [np.array_equal(*p) for p in zip(got["image"], batch["reference"], strict=True)]
    assert 0 < sum(same) < 9
    want = [
        full_reference.haarpsi(*p, subsample=False)
        for p in zip(batch["reference"], got["image"], strict=True)
    ]
    np.testing.assert_allclose(got["mos"], want, atol=1e-4)
    half = seen({k: v[8:] for k, v in batch.items()}, key)
    assert np.abs(half["image"].astype(int) - got["image"][8:]).mean() < 0.1
    other = seen(batch, rng.stream(0, "train", 8))
    assert not np.array_equal(other["image"], got["image"])


def test_a_rated_image_is_distorted_itself_and_its_quality_discounted():
    """Its reference, where it has one, is something else: the opinion is on the image."""
    batch = tiny.batch(count=8, size=24)
    batch |= {"image": np.stack([scenes.scene(i, 24) for i in range(8)])}
    batch |= {"mos": np.linspace(0.2, 0.9, 8, dtype=np.float32)}
    key = rng.stream(0, "train", 7)
    got = seen(batch, key)
    pairs = zip(batch["image"], got["image"], strict=True)
    want = [full_reference.haarpsi(*pair, subsample=False) for pair in pairs]
    np.testing.assert_allclose(got["mos"], want * batch["mos"], atol=1e-4)
    np.testing.assert_array_equal(got["reference"], batch["reference"])
    left = seen(batch, key, clean=1.0)
    np.testing.assert_array_equal(left["image"], batch["image"])
    np.testing.assert_allclose(left["mos"], batch["mos"], rtol=1e-5)


def test_the_step_labels_a_rated_set_that_is_to_be_distorted():
    config = runs.maniqa_run("nowhere")
    unlabelled = {k: x for k, x in tiny.batch(count=4).items() if k != "mos"}
    key = rng.stream(0, "train")
    weights = jax.eval_shape(setup.make_task(config).init, key, unlabelled)
    with pytest.raises(KeyError, match="mos"):
        jax.eval_shape(setup.make_task(config).loss, weights, unlabelled, key)
    config["data"]["distort"] = dict(SETTINGS)
    checks.check(config)
    value, _ = jax.eval_shape(setup.make_task(config).loss, weights, unlabelled, key)
    assert value.shape == ()


def test_a_rated_set_that_is_to_be_distorted_takes_no_keys_of_evaluation():
    config = runs.maniqa_run("nowhere")
    config["data"]["distort"] = dict(SETTINGS) | {"pairs": 0}
    with pytest.raises(ConfigError, match="config.data.distort.pairs: no such key"):
        checks.check(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.folder", "no/photos/here", "no pictures there; name a folder or a glob"),
        ("data.distort.types", ("blur",), r"config.data.distort: types \['blur'\]: known are"),
        ("data.distort.clean", 1.5, "clean 1.5: must be a share"),
        ("data.distort.pairs", 127, r"pairs 127: must be 0 \(all\) to 126"),
        ("data.distort.test", "nowhere", "no pictures there"),
        ("data.pp_train", "crop(", "crop"),
        ("data.fractions", (0.98, 0.01, 0.01), "too few"),
        ("data.fractions", (0.8, 0.2, 0.0), "no photos to test on: name some in distort.test"),
    ],
)
def test_settings_that_cannot_work_are_refused(folder, tmp_path, key, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        runs.run(small(folder, **{key: value}), str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_a_key_too_many_and_stored_views_are_refused(folder):
    wrong = small(folder)
    wrong["data"]["distort"]["level"] = 3
    with pytest.raises(ConfigError, match="config.data.distort.level: no such key.*'levels'"):
        checks.check(wrong)
    stored = small(folder)
    stored["restorer"] = {"run": "x", "changes": {}, "cached": True, "folder": ""}
    with pytest.raises(ConfigError, match="distorted anew at each step"):
        checks.check(stored)


@pytest.mark.parametrize("row", config.ROWS)
def test_every_row_is_a_whole_configuration_of_at_most_six_million_parameters(row, folder):
    c = configs.plain(config.get_config(row))
    c["data"]["folder"] = str(folder)
    checks.check(c)
    weights = setup.shapes(setup.make_task(c), c["data"]["size"])
    assert 5e5 < sum(x.size for x in jax.tree.leaves(weights.params)) < 6.1e6


def test_the_branches_learn_from_photos_too(folder):
    """The wiring of stage 2: image, label and content are made in the step."""
    c = configs.plain(config.get_config("branches"))
    c["data"]["folder"] = str(folder)
    checks.check(c)
    learner = quality.quality(restorer=tiny.restorer(), model=tiny.model(), loss="mse")
    task = distorting.distorting(learner, **(SETTINGS | {"types": TYPES}))
    batch = {k: v for k, v in tiny.batch(count=4).items() if k not in ("image", "mos")}
    key = rng.stream(0, "train")
    weights = jax.eval_shape(task.init, key, batch)
    value, (metrics, _) = jax.eval_shape(task.loss, weights, batch, key)
    assert value.shape == () and set(metrics) == {"loss", "score_mean"}
