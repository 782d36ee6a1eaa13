"""The command: exit codes, one-line refusals, signals, the stages of one configuration."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from diffv2iqa_jax import errors
from diffv2iqa_jax.training import chain
from tests import runs

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def settings(apart) -> dict:
    """Of a process that compiles as the tests do, for as many devices: nothing twice."""
    env = {**apart, "PYTHONWARNINGS": "", "PYTHONPATH": str(ROOT)}
    return {"cwd": ROOT, "env": env, "text": True}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "diffv2iqa_jax.main", "--jit_cache=", *arguments]


def call(settings: dict, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, **settings)


def config(tmp_path, data) -> str:
    return runs.two_stages(tmp_path / "two_stages.py", data)


def test_a_stage_that_is_named_runs_first_and_is_found_in_the_workdir():
    stage1, stage2 = {"restorer": {"kind": "diffusion"}}, {"restorer": {"run": "restore"}}
    both = {"stages": {"quality": stage2, "restore": stage1}}
    (first, folder), (second, _) = chain.stages(both, "w")
    assert folder == os.path.join("w", "restore") and "run" not in first["restorer"]
    assert second["restorer"]["run"] == os.path.join("w", "restore")


@pytest.mark.slow
def test_both_stages_run_survive_a_signal_and_resume(tmp_path, data, settings):
    path, work = config(tmp_path, data), tmp_path / "run"
    flags = ("--config", path, "--workdir", str(work))
    with open(tmp_path / "log", "w") as log:
        child = subprocess.Popen(command(*flags), stderr=log, **settings)
    while not (work / "restore" / "checkpoints" / "2").exists():
        assert child.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(120) == errors.EXIT_PREEMPTED
    assert "run the same command to go on" in (tmp_path / "log").read_text()
    assert not (work / "quality" / "results.json").exists()
    done = call(settings, *flags)
    assert done.returncode == 0, done.stderr
    assert (work / "report.html").exists()
    assert json.loads((work / "quality" / "results.json").read_text())["images"] == 16
    again = call(settings, *flags)
    assert again.returncode == 0 and again.stderr.count("is complete") == 2
    for text in (done.stdout, again.stdout):
        assert "quality: SRCC " in text and "restored " in text and ", 16 images" in text
        assert f"report: {work / 'report.html'}" in text


IN_STAGE_1, IN_STAGE_2 = "--config.stages.restore.", "--config.stages.quality."
RUN = ("--workdir", "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([IN_STAGE_1 + "optim.lr=1"], "--config and --workdir must both be given"),
        ([*RUN, "extra"], "argument 'extra'"),
        (["--workdir", ""], "--config and --workdir must both be given"),
        ([*RUN, IN_STAGE_1 + "optim.lrr=1"], "restore.optim.lrr: no such key; did you mean 'lr'?"),
        ([*RUN, IN_STAGE_1 + "optim.xyzzy=1"], "restore.optim.xyzzy: no such key; known are ["),
        ([*RUN, IN_STAGE_1 + "data.name.x=1"], "name.x: no such key; 'builtin/small' is a value"),
        ([*RUN, IN_STAGE_1 + "optim.lr=fast"], "could not convert string to float: 'fast'"),
        ([*RUN, IN_STAGE_1 + "task=paint"], "config.stages.restore.task 'paint'"),
        ([*RUN, IN_STAGE_1 + "optim.lr=nan"], "optim.lr nan: must be a finite number"),
        ([*RUN, "--on", "livec"], "--on livec: goes with --mode evaluate"),
        ([*RUN, "--profile", "5:3"], "--profile 5:3: must be FIRST:LAST, steps from 1"),
        ([*RUN, "--profile", "3:5", "--mode", "views"], "--profile 3:5: goes with --mode train"),
        ([*RUN, "--mode", "views", IN_STAGE_2 + "restorer.cached=False"], "stores no views"),
        (
            [*RUN, "--config", "restore", "--mode", "views"],
            "--mode views: this run stores no views",
        ),
        ([*RUN, "--topology", "v5e:4x4"], "--topology v5e:4x4: goes with --dry_run"),
        ([*RUN, "--dry_run", "--topology", "v5e"], "as in v5e:4x4"),
        ([*RUN, "--config", "quikstart"], "no such configuration; did you mean 'quickstart'?"),
        ([*RUN, "--config", "gone.py"], "--config gone.py: no such file"),
        ([*RUN, "--config", "notes.md"], "notes.md: is no Python file; name FILE.py or one of ["),
        ([*RUN, "--config", "folder.py"], "folder.py: is a folder; name a file in it"),
        ([*RUN, "--config", "leaves.py"], "leaves.py, line 1: raises SystemExit (3); correct it"),
        (
            [*RUN, "--config", "restore", "--mode", "evaluate", "--on", "livec"],
            "restores; it scores",
        ),
        ([*RUN, "--config", "small:startr"], "no such row; did you mean 'starter'?"),
        ([*RUN, "--config", "broken.py"], "broken.py, line 1: imports 'torchvisionn', which is"),
        ([*RUN, "--config", "stages.py"], "config.stages: must be a section of configurations"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, settings, arguments, message):
    (tmp_path / "notes.md").write_text("# Notes\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "broken.py").write_text("import torchvisionn\n")
    (tmp_path / "stages.py").write_text("def get_config():\n    return {'stages': {'a': 1}}\n")
    done = call(settings | {"cwd": tmp_path}, "--config", "quickstart", *arguments)
    assert done.returncode == errors.EXIT_CONFIG
    assert message in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_workdir_is_in_the_home_folder_where_it_says_so(settings, tmp_path):
    env = settings["env"] | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home" / "run").mkdir(parents=True)
    (tmp_path / "home" / "run" / "config.json").write_text("{")
    done = call(
        settings | {"env": env, "cwd": tmp_path},
        "--config",
        "quickstart",
        "--workdir=~/run",
        "--dry_run",
    )
    assert done.returncode == errors.EXIT_CONFIG
    assert str(tmp_path / "home" / "run") in done.stderr, done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_is_no_failure(settings, flag):
    done = call(settings, flag)
    assert done.returncode == 0 and "--workdir" in done.stdout and not done.stderr, done.stderr


@pytest.mark.parametrize(
    ("override", "message", "absent"),
    [
        ("optm.lr=1", "did you mean 'optim'?", {"numpy", "jax", "flax", "tensorflow"}),
        ("data.nme=x", "did you mean 'name'?", {"numpy", "jax", "flax", "tensorflow"}),
        (
            "data.name=livecc",
            "data set 'livecc': no such set; did you mean 'livec'?",
            {"tensorflow"},
        ),
    ],
)
def test_what_refuses_imports_nothing_that_trains(settings, override, message, absent):
    """A wrong key answers before JAX is there, a wrong value before TensorFlow is."""
    code = f"""
import sys
from diffv2iqa_jax import main
sys.argv = ["main", "--config", "quickstart", "--workdir", "run", {IN_STAGE_1 + override!r}]
try:
    code = main.main(main.parse(sys.argv))
except SystemExit as error:
    code = error.code
assert code == {errors.EXIT_CONFIG} and not {absent} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, **settings)
    assert done.returncode == 0 and message in done.stderr, done.stderr


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path, data, settings):
    where = [f"--config.stages.{stage}.data.folder={data}" for stage in ("restore", "quality")]
    where += [IN_STAGE_1 + "data.name=builtin/tiny", IN_STAGE_1 + "data.fractions=(0.6,0.2,0.2)"]
    flags = ("--config", "quickstart", *RUN, "--dry_run", *where)
    done = call(settings | {"cwd": tmp_path}, *flags)
    assert done.returncode == 0, done.stderr
    for word in (
        "parameters",
        "FLOPs",
        "memory",
        "MiB",
        "found",
        "MISSING",
        "4300 steps x 16 images",
    ):
        assert word in done.stdout
    assert not any(tmp_path.iterdir())
