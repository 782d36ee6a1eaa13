"""The loop: both stages run, resume to the same numbers, and refuse what cannot work."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.data import reading, stored_views
from diffv2iqa_jax.data.sets import store
from diffv2iqa_jax.data.sets.catalog import Row, Set
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import checks, stopping, view_cache
from tests import runs, tiny, twins
from tests.training.test_logs import COSTS, traced


def lines(work) -> list[dict]:
    return [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]


def untimed(rows: list[dict]) -> list[dict]:
    """Without what depends on the clock and the machine."""
    return [{k: v for k, v in row.items() if k not in COSTS} for row in rows]


def predictions(work) -> list[dict]:
    with open(work / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_stage_1_leaves_a_whole_run_folder(restored):
    results = json.loads((restored / "results.json").read_text())
    assert results["task"] == "restoration" and results["step"] == 4
    assert np.isfinite([results["psnr_image"], results["psnr_restored"]]).all()
    assert len(predictions(restored)) == results["images"] == 16  # one reference of six
    assert results["protocol"]["selection"] == "last step"
    assert [x["step"] for x in lines(restored) if "train/loss" in x] == [1, 2, 3, 4]
    assert [x["step"] for x in lines(restored) if "val/psnr_restored" in x] == [2, 4]
    names = {"config.json", "env.json", "examples.npz", "report.html", "checkpoints"}
    assert names <= set(os.listdir(restored))


def test_stage_2_scores_every_test_image_once(quality_run):
    results = json.loads((quality_run / "results.json").read_text())
    rows = predictions(quality_run)
    assert len({r["id"] for r in rows}) == len(rows) == results["images"] == 16
    assert set(results["scores"]) == {"score", "score_guidance", "score_difference"}
    for row in rows:  # the sum, as the paper has it
        parts = float(row["score_guidance"]) + float(row["score_difference"])
        assert float(row["score"]) == pytest.approx(parts, abs=2e-6)
    assert len({r["group"] for r in rows}) == results["protocol"]["references"] == 1


def rated(folder, count=24) -> None:
    """A set csv/other of pictures of 20 x 18 pixels, prepared in `folder`."""
    names = [f"p{i:02d}.png" for i in range(count)]
    rows = [Row(n, folder / "raw" / n, None, i, n) for i, n in enumerate(names)]
    for i, row in enumerate(rows):
        twins.picture(row.image, i, (20, 18))
    part = ["train" if i < 16 else "test" for i in range(count)]
    rows = [r._replace(part=p) for r, p in zip(rows, part, strict=True)]
    spec = Set("other", count, 0, 0, 50, True, "")
    store.build("csv/other", str(folder), spec, rows, complete=True, lacking=3)


def test_a_finished_run_is_evaluated_on_all_of_another_set(data, restored, quality_run, tmp_path):
    work = tmp_path / "run"
    shutil.copytree(quality_run, work)
    before = (work / "results.json").read_bytes()
    rated(data)
    config = runs.stage2(data, restored)
    results = runs.run(config, work, mode="evaluate", on="csv/other", report=True)
    assert (work / "results.json").read_bytes() == before
    out = work / "eval" / "csv-other"
    assert json.loads((out / "results.json").read_text()) == results
    assert results["images"] == 24 and len(predictions(out)) == 24
    protocol = results["protocol"]
    assert protocol["name"] == "csv/other" and protocol["scale"] == [0, 50]
    found = results["scores"]["score"]
    assert found["rmse_native"] == pytest.approx(50 * found["rmse_fit"])
    assert protocol["warnings"] == ["a part of the data set: 3 of its images are not in it"]
    native = [float(r["native"]) for r in predictions(out)]
    assert native == [*range(24)] and float(predictions(out)[12]["mos"]) == pytest.approx(0.24)
    assert (out / "report.html").exists() and len(stored_views.index(out / "views").ids) == 24


def test_a_pool_teaches_nothing(data, restored, tmp_path):
    row = Row("a.png", twins.picture(tmp_path / "a.png", size=(20, 18)), None, None, "a.png")
    store.build("pool/one", str(data), Set("one", 1, 0, 0, 1, True, ""), [row])
    config = runs.stage2(data, restored, **{"data.name": "pool/one", "data.parts": "all"})
    with pytest.raises(ConfigError, match="no opinions to learn from"):
        runs.run(config, tmp_path / "run")


def test_what_was_trained_on_everything_has_no_own_test(data, restored, tmp_path):
    config = runs.stage2(data, restored, **{"data.parts": "all", "every": runs.SELDOM})
    results = runs.run(config, tmp_path / "run", report=True)
    assert results["part"] == "none" and results["images"] == 0 and results["scores"] == {}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "All images of the set were for training" in page
    assert runs.run(config, tmp_path / "run") == results  # is complete


def test_cached_views_are_what_the_restorer_computes(data, restored, tmp_path):
    """On whole pictures: the same weights score the same with the cache and without it."""
    whole = {
        "data.size": 32,
        "data.pp_train": "",
        "data.pp_test": "",
        "model.branches.guidance.vit": tiny.guidance()["vit"] | {"image_size": 32},
        "optim.steps": 2,
    }
    runs.run(runs.stage2(data, restored, **whole), tmp_path / "run")
    want = predictions(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "views")
    config = runs.stage2(data, restored, **whole, **{"restorer.cached": False})
    configs.write_json(str(tmp_path / "run" / "config.json"), config)
    runs.run(config, str(tmp_path / "run"), mode="evaluate")
    got = predictions(tmp_path / "run")
    assert [r["id"] for r in got] == [r["id"] for r in want]
    for a, b in zip(got, want, strict=True):
        assert float(a["score"]) == pytest.approx(float(b["score"]), abs=1e-5)


@pytest.mark.parametrize("stage", ["restoration", "quality"])
def test_a_killed_run_ends_where_an_unbroken_one_does(data, restored, quality_run, tmp_path, stage):
    config = runs.stage1(data) if stage == "restoration" else runs.stage2(data, restored)
    whole, broken = restored if stage == "restoration" else quality_run, tmp_path / "broken"
    assert runs.run(config, broken, stop_at=4) == {}  # leaves after 3, saved at 2
    runs.run(config, broken)
    results = [json.loads((work / "results.json").read_text()) for work in (whole, broken)]
    assert results[0] == results[1]
    assert untimed(lines(broken)) == untimed(lines(whole))
    assert predictions(broken) == predictions(whole)


def test_a_finished_run_says_so_and_does_nothing(data, restored, caplog):
    before = sorted((p, p.stat().st_mtime_ns) for p in restored.rglob("*"))
    with caplog.at_level("INFO"):
        runs.run(runs.stage1(data), str(restored))
    assert "is complete" in caplog.text
    assert sorted((p, p.stat().st_mtime_ns) for p in restored.rglob("*")) == before


def test_asked_to_stop_it_saves_and_goes_on_later(data, restored, tmp_path):
    calls = iter([False, True])
    with pytest.raises(stopping.Preempted, match="saved at step 1 of 4"):
        runs.run(runs.stage1(data), str(tmp_path / "run"), stop=lambda: next(calls))
    results = runs.run(runs.stage1(data), tmp_path / "run", profile="1:3")
    assert results == json.loads((restored / "results.json").read_text())
    assert traced(tmp_path / "run") == [2, 3]
    log = (tmp_path / "run" / "logs" / "process-0.log").read_text()
    assert log.count("process 0: started, one of 1") == 2
    assert (
        ": in training, saved at step 1 of 4" in log
        and "Preempted" not in log
        and "Traceback" not in log
    )
    costs = [x["train/goodput"] for x in lines(tmp_path / "run") if "train/goodput" in x]
    assert len(costs) == 4 and all(0 < share <= 1 for share in costs)


def test_pmap_and_jit_train_alike(data, restored, tmp_path):
    plain = json.loads((restored / "results.json").read_text())
    config = runs.stage1(data, **{"devices.map": "pmap", "every": runs.SELDOM})
    got = runs.run(config, tmp_path / "run")
    assert got["psnr_restored"] == pytest.approx(plain["psnr_restored"], abs=1e-3)


def test_another_configuration_in_a_used_workdir_is_refused(data, restored):
    with pytest.raises(ConfigError, match=r"differs in optim.lr \(0.001 -> 0.1\)"):
        runs.run(runs.stage1(data, **{"optim.lr": 0.1}), str(restored))


def test_the_views_pass_goes_on_where_it_stopped(data, restored, tmp_path, monkeypatch):
    work = tmp_path / "run"
    config = runs.stage2(data, restored)
    monkeypatch.setattr(stored_views, "BYTES", 6 * 3 * 32 * 32 * 3 * 4)  # of 6 images
    asked = iter([False, True])
    with pytest.raises(stopping.Preempted):
        runs.run(config, str(work), mode="views", stop=lambda: next(asked))
    held = [len(load_file(p)) for p in sorted((work / "views").glob("*.safetensors"))]
    assert held == [6, 6, 4]  # the shard begun is written too
    runs.run(config, str(work), mode="views")
    made = sorted((work / "views").glob("*.safetensors"))
    assert sum(len(load_file(p)) for p in made) == 96 and not (work / "results.json").exists()
    whole, times = [p.read_bytes() for p in made], [p.stat().st_mtime_ns for p in made]
    for path in made[:2]:
        path.unlink()
    runs.run(config, str(work), mode="views")
    assert [p.read_bytes() for p in made] == whole
    assert [p.stat().st_mtime_ns for p in made[2:]] == times[2:]
    other = runs.stage2(data, restored, **{"restorer.changes": {"sampling": {"steps": 3}}})
    other["restorer"]["folder"] = str(work / "views")
    with pytest.raises(ConfigError, match="made otherwise, differing in restorer.sampling.steps"):
        runs.run(other, tmp_path / "other")


def test_stored_views_have_the_settings_of_the_stage_1_run(data, restored, quality_run):
    folder = quality_run / "views"
    meta = json.loads((folder / view_cache.META).read_text())
    assert meta["restorer"] == runs.stage1(data)["restorer"]
    source = reading.load("builtin/tiny", str(data))
    np.testing.assert_array_equal(stored_views.index(str(folder)).ids, source.table["id"])


def test_the_other_preset_trains_too(data, restored, tmp_path):
    changes = {"optim.steps": 2, "every": runs.SELDOM}
    config = runs.stage2(data, restored, "release", **changes)
    results = runs.run(config, tmp_path / "run")
    assert results["images"] == 16
    assert all(np.isfinite(x["train/loss"]) for x in lines(tmp_path / "run") if "train/loss" in x)


REFUSED = {
    "data.batch": (7, "must be a multiple of 4 devices"),
    "every.save": (0, "must be a whole number, at least 1"),
    "optim.name": ("adamm", "known are"),
    "optim.frozen": ("nothing_like_it", "matches 0 of"),
    "optim.rates": ((("nothing_like_it", 2.0),), "matches nothing trained"),
    "devices.map": ("pmapp", "known are"),
    "devices.fsdp": (3, "does not divide"),
    "data.name": ("builtin/huge", "did you mean .builtin/full"),
    "data.pp_train": ("crop(16)|flap(0.5)", "flap"),
    "restorer.kind": ("diffuse", "known are"),
    "restorer.prediction": ("noise", "known are"),
    "restorer.sampling.keep": ((1, 9), r"lie in \[1, 3\]"),
    "restorer.net.attn_res": ((7,), "only has levels"),
    "restorer.net.groups": (3, "does not divide"),
    "restorer.schedule.name": ("cosin", "known are"),
    "restorer.views_dtype": ("int4", "known are"),
    "task": ("restore", "known are"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_written(data, tmp_path, key):
    value, message = REFUSED[key]
    config = runs.stage1(data, **{key: value})
    work = tmp_path / "run"
    with pytest.raises(ConfigError, match=message) as caught:
        runs.run(config, work)
    assert "\n" not in str(caught.value)
    assert not work.exists()


@pytest.mark.parametrize(
    ("section", "key", "near"),
    [("optim", "lrr", "lr"), ("data", "batches", "batch"), ("restorer", "predict", "prediction")],
)
def test_a_key_that_nobody_reads_is_an_error_naming_the_nearest(data, tmp_path, section, key, near):
    config = runs.stage1(data)
    config[section][key] = 1
    with pytest.raises(ConfigError, match=f"config.{section}.{key}: no such key.*{near!r}"):
        runs.run(config, tmp_path / "run")


def test_a_run_that_is_no_stage_1_is_refused(data, quality_run, tmp_path):
    for run, message in ((tmp_path / "none", "no checkpoint"), (quality_run, "is a quality run")):
        with pytest.raises(ConfigError, match=message):
            runs.run(runs.stage2(data, run), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_restorer_that_would_be_trained_in_stage_2_is_refused(data, restored, tmp_path):
    config = runs.stage2(data, restored, **{"optim.frozen": ""})
    with pytest.raises(ConfigError, match="must match the restorer"):
        runs.run(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path):
    config = runs.stage1(data, **{"optim.lr": 1e30, "optim.clip": 0.0, "optim.name": "sgd"})
    with pytest.raises(FloatingPointError, match="step"):
        runs.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_views_of_two_sizes_are_refused(data, restored, tmp_path):
    config = runs.stage2(data, restored, **{"data.pp_test": "resize(24)|grid({size})"})
    with pytest.raises(ConfigError, match="must start with the same resize, or none"):
        runs.run(config, tmp_path / "run")
    config["restorer"]["cached"] = False
    checks.check(config)
