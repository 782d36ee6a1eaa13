"""The command: exit codes, one-line refusals, signals, the stages of one configuration."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from diffv2iqa_jax import main

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
from ml_collections import ConfigDict
from tests import runs

def get_config():
    c = ConfigDict()
    c.stages = dict(
        restore=runs.stage1({folder!r}),
        quality=runs.stage2({folder!r}, "restore"),
    )
    return c
"""


@pytest.fixture
def settings(apart) -> dict:
    """Of a process with one device that compiles as the tests do."""
    env = {**apart, "XLA_FLAGS": "", "PYTHONWARNINGS": "", "PYTHONPATH": str(ROOT)}
    return {"cwd": ROOT, "env": env, "text": True}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "diffv2iqa_jax.main", "--jit_cache=", *arguments]


def call(settings: dict, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, **settings)


def config(tmp_path, data) -> str:
    path = tmp_path / "two_stages.py"
    path.write_text(CONFIG.format(folder=str(data)))
    return str(path)


def test_a_stage_that_is_named_runs_first_and_is_found_in_the_workdir():
    stage = lambda run: {"restorer": {"run": run} if run else {"kind": "diffusion"}}
    both = {"stages": {"quality": stage("restore"), "restore": stage(None)}}
    (first, folder), (second, _) = main.stages(both, "w")
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
    assert child.wait(120) == main.EXIT_PREEMPTED
    assert "run the same command to go on" in (tmp_path / "log").read_text()
    assert not (work / "quality" / "results.json").exists()
    done = call(settings, *flags)
    assert done.returncode == 0, done.stderr
    assert (work / "report.html").exists()
    assert json.loads((work / "quality" / "results.json").read_text())["images"] == 16
    again = call(settings, *flags)
    assert again.returncode == 0 and again.stderr.count("is complete") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.stages.restore.optim.lr=1"], "--workdir must"),
        (["--workdir", "W", "extra"], "argument 'extra'"),
        (["--workdir", "W", "--config.stages.restore.optim.lrr=1"], 'Did you mean "lr" instead'),
        (["--workdir", "W", "--config.stages.restore.optim.xyzzy=1"], "'xyzzy': no such key there"),
        (["--workdir", "W", "--config.stages.restore.task=paint"], "config.task 'paint'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, data, settings, arguments, message):
    arguments = [a.replace("W", str(tmp_path / "run")) for a in arguments]
    done = call(settings, "--config", config(tmp_path, data), *arguments)
    assert done.returncode == main.EXIT_CONFIG
    assert message in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path, data, settings):
    flags = ("--config", config(tmp_path, data), "--workdir", str(tmp_path / "run"), "--dry_run")
    done = call(settings, *flags)
    assert done.returncode == 0, done.stderr
    for word in ("parameters", "FLOPs", "memory", "MiB", "found", "4 steps x 8 images"):
        assert word in done.stdout
    assert not (tmp_path / "run").exists()
