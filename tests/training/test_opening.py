"""What a run is refused for: the same in a dry run, in one line; the workdir stays as it is."""

import copy
import pathlib
import random
import shutil
import signal

import pytest
from absl import flags

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import main
from diffv2iqa_jax.configs import pristine
from diffv2iqa_jax.data.sets import catalog
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import chain, rules
from tests import runs, tiny, twins
from tests.training.test_run import rated


@pytest.fixture(autouse=True)
def own_flags():
    """The defaults of the command's flags; its handlers of signals are taken away again."""
    flags.FLAGS.mark_as_parsed()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refusals(config: dict, work: pathlib.Path) -> list[str]:
    """What the dry run says, and what the run says; what lies in the workdir stays as it is."""
    said = []
    before = sorted(p.name for p in work.iterdir()) if work.is_dir() else work.exists()
    for start in (main.dry_run, main.train):
        with pytest.raises(ConfigError) as caught:
            main.check(configs.plain(config))
            start(config, str(work))
        said.append(str(caught.value))
        after = sorted(p.name for p in work.iterdir()) if work.is_dir() else work.exists()
        assert after == before, start
    return said


def photos(folder: pathlib.Path, count: int) -> pathlib.Path:
    folder.mkdir()
    for number in range(count):
        twins.picture(folder / f"{number}.png", number, (40, 36))
    return folder


def on_photos(folder, **changes) -> dict:
    """configs/pristine.py, shrunk."""
    few = {"data.name": "pristine", "data.distort.pairs": 1, "data.fractions": (0.5, 0.25, 0.25)}
    settings = {"restorer": tiny.restorer(), **few, **changes}
    return runs.small(pristine.get_config("cpu"), folder, settings)


STAGE_1 = {
    "data.fractions": [((0.5, 0.5, 0.5), "three parts of 1"), ((0.98, 0.01, 0.01), "too few")],
    "data.parts": [("official", "no such split"), ("legacy_maniqa", "only for sets with")],
    "data.name": [("livec", "prepare it with"), ("live_c", "did you mean 'livec'")],
    "data.folder": [("", "name the folder of prepared data sets")],
    "data.batch": [(0, "at least 1"), (6, "must be a multiple of 4 devices")],
    "data.split": [(-1, "must be a whole number, from 0")],
    "data.pp_train": [("crop(16)|flap(1)", "flap"), ("crop(17)", "crops of 17 x 17")],
    "devices.map": [("pmapp", "known are")],
    "devices.fsdp": [(3, "does not divide the 4 devices"), (0, "at least 1")],
    "optim.lr": [(-1.0, "at least 0"), ("fast", "a finite number"), ("", "a finite number")],
    "optim.steps": [(-1, "from 0 to"), (1.5, "a whole number")],
    "optim.frozen": [("none_such", "matches 0 of")],
    "pretrained.restorer": [("none.safetensors", "none.safetensors"), ("tests", "no checkpoint")],
}
STAGE_2 = {
    "restorer.run": [("", "name the workdir of a stage-1 run"), ("none", "holds no checkpoint")],
    "restorer.changes": [
        ({"samplng": {}}, "did you mean 'sampling'"),
        ({"sampling": {"steps": 0}}, "a whole number, from 1"),
    ],
    "restorer.folder": [("s3://bucket/views", "s3:// cannot be used")],
    "pretrained.vit": [("none.safetensors", "none.safetensors")],
    "pretrained.allow_random": [(False, "vit, resnet: random, frozen")],
    "data.pp_train": [("crop({size})|resize(9)", "stored views cannot be resized")],
    "data.pp_test": [("", "gives crops of 32 x 32"), ("shrink(2)", "needs the reference")],
}


@pytest.mark.parametrize("key", STAGE_1)
def test_stage_1_is_refused_by_a_dry_run_as_by_the_run(data, tmp_path, key):
    for value, message in STAGE_1[key]:
        config = runs.stage1(data, **{key: value})
        dry, run = refusals(config, tmp_path / "run")
        assert dry == run and message in run and "\n" not in run, (dry, run)


@pytest.mark.parametrize("key", STAGE_2)
def test_stage_2_is_refused_by_a_dry_run_as_by_the_run(data, restored, tmp_path, key):
    for value, message in STAGE_2[key]:
        config = runs.stage2(data, restored, **{key: value})
        dry, run = refusals(config, tmp_path / "run")
        assert dry == run and message in run and "\n" not in run, (dry, run)


def test_two_stages_are_opened_before_the_first_runs_and_keys_have_their_stage(data, tmp_path):
    stage1, stage2 = runs.stage1(data), runs.stage2(data, "restore")
    for key, value, message in (
        ("optim.lr", -1.0, "config.stages.quality.optim.lr -1.0: must be"),
        ("pretrained.allow_random", False, "config.stages.quality.pretrained.vit=FILE"),
        ("data.fractions", [0.98, 0.01, 0.01], "config.stages.quality.data: 5 groups are too few"),
    ):
        bad = copy.deepcopy(stage2)
        configs.override(bad, {key: value})
        dry, run = refusals({"stages": {"restore": stage1, "quality": bad}}, tmp_path / "run")
        assert dry == run and message in run, (dry, run)


def test_photos_that_cannot_train_are_refused_alike(tmp_path):
    folder = photos(tmp_path / "photos", 4)
    (tmp_path / "empty").mkdir()
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "1.png").write_bytes((folder / "1.png").read_bytes()[:900])
    for config, message in (
        (on_photos(tmp_path / "none"), "none"),
        (on_photos(tmp_path / "empty"), "name a folder"),
        (on_photos(""), "name the folder of your photos"),
        (on_photos(photos(tmp_path / "one", 1)), "too few"),
        (on_photos(tmp_path / "damaged", **{"data.fractions": (0.0, 0.5, 0.5)}), "damaged"),
        (on_photos(folder, **{"data.pp_test": "grid(8)"}), "makes several crops of a photo"),
        (on_photos(folder, **{"data.distort.levels": (0, 9)}), "whole numbers from 1 to 5"),
    ):
        dry, run = refusals(config, tmp_path / "run")
        assert dry == run and message in run and "\n" not in run, (dry, run)


def test_sets_that_cannot_train_are_refused_alike(data, tmp_path):
    rated(tmp_path / "sets")
    other = {"data.name": "csv/other", "data.folder": str(tmp_path / "sets")}
    dry, run = refusals(runs.stage1(data, **other), tmp_path / "run")
    assert dry == run and "has no references, which stage 1" in run
    damage = (
        ("dataset_info.json", lambda x: x[: len(x) // 2]),
        ("dataset_info.json", lambda x: b"{}"),
        (".tfrecord", lambda x: x[: len(x) // 2]),
    )
    for number, (name, change) in enumerate(damage):
        folder = tmp_path / f"damaged{number}"
        shutil.copytree(data, folder)
        place = catalog.place("builtin/tiny", str(folder))
        (path,) = (p for p in place.iterdir() if name in p.name)
        path.write_bytes(change(path.read_bytes()))
        dry, run = refusals(runs.stage1(folder), tmp_path / "run")
        assert dry == run and "cannot be read" in run and "\n" not in run, (dry, run)


def test_a_workdir_that_cannot_be_used_is_refused_alike(data, restored, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("[1]")
    config = runs.stage1(data)
    for work, message in (
        ("foreign", "is no run of ours"),
        ("file", "is no run of ours"),
        ("file/run", "is no folder"),
        ("odd", "not readable"),
    ):
        dry, run = refusals(config, tmp_path / work)
        assert dry == run and message in run, (dry, run)
    changed = runs.stage1(data, **{"optim.lr": 0.5})
    dry, run = refusals(changed, restored)
    assert dry == run and "differs in optim.lr (0.001 -> 0.5)" in run
    with pytest.raises(ConfigError, match="holds no checkpoint to evaluate"):
        runs.run(config, tmp_path / "run", mode="evaluate")
    assert not (tmp_path / "run").exists()


def test_what_was_refused_runs_in_the_same_workdir_once_it_is_corrected(data, tmp_path):
    settings = {"optim.steps": 0, "optim.warmup": 0}
    bad = runs.stage1(data, **settings, **{"data.fractions": (0.98, 0.01, 0.01)})
    with pytest.raises(ConfigError, match="too few"):
        runs.run(bad, tmp_path / "run")
    assert runs.run(runs.stage1(data, **settings), tmp_path / "run")["step"] == 0


def test_a_dry_run_says_what_the_backbones_are_and_makes_no_data(data, restored, tmp_path, capsys):
    config = runs.stage2(data, restored)
    main.dry_run(config, str(tmp_path / "run"))
    assert "backbones     vit: random, frozen; resnet: random, frozen" in capsys.readouterr().out
    absent = runs.stage1(tmp_path / "sets")
    main.dry_run(absent, str(tmp_path / "run"))
    assert "MISSING" in capsys.readouterr().out and not list(tmp_path.iterdir())


VALUES = (0, -1, 0.5, 1.5, 10**10, "a string", "", None, True, [], {}, [-1], [None], [[1]], ["x"])
VALUES += (float("nan"), float("inf"), [1, 2, 3], 1e-300)


def places(config: dict, prefix: str = ""):
    """Every key and section, as dotted paths."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from places(value, f"{prefix}{key}.")


@pytest.mark.parametrize("kind", ["stage 1", "stage 2", "one branch"])
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(data, kind):
    """A seeded sample of all of them; what passes the checks must have a shape."""
    base = {
        "stage 1": runs.stage1(data),
        "stage 2": runs.stage2(data, "none"),
        "one branch": runs.maniqa_run(data),
    }[kind]
    draw = random.Random(18)
    for key in draw.sample(sorted(places(base)), 40):
        config = copy.deepcopy(base)
        section, _, last = key.rpartition(".")
        place = config
        for name in section.split(".") if section else ():
            place = place[name]
        place[last] = draw.choice(VALUES)
        try:
            config = configs.plain(config)
            chain.check(config)
        except ConfigError as error:
            assert "\n" not in str(error) and "Error" not in str(error)


def test_every_number_of_every_configuration_has_a_rule():
    for name in configs.names():
        several = configs.plain(configs.load(name))
        for stage in several.get("stages", {"": several}).values():
            for key, value in configs.flat(stage).items():
                if isinstance(value, int | float):
                    config = copy.deepcopy(stage)
                    section, _, last = key.rpartition(".")
                    place = config
                    for part in section.split(".") if section else ():
                        place = place[part]
                    for bad in (float("nan"), "a string", [], -1):
                        place[last] = bad
                        if bad == -1 and key.endswith("swin.scale"):
                            continue
                        with pytest.raises(ConfigError, match=rf"config\.{key} .*: must be"):
                            rules.check(config)
