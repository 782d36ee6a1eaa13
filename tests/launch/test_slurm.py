"""launch/slurm.sbatch in a real SLURM: two tasks train, what stopped is queued again."""

import json
import pathlib
import re
import sys
import time

import pytest

from tests.launch import slurm

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = str(ROOT / "launch" / "slurm.sbatch")
REASON = slurm.missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
TWO = ("--ntasks-per-node=2", "--overcommit")  # the script asks for one task on each node
# Leaves the first time with the code of its place in the list, later with 0.
STAND_IN = """#!/bin/bash
[ -n "$SLURM_RESTART_COUNT" ] && exit 0
codes=(${@: -7:1}) && code=${codes[${@: -1}]}
[ "$code" -gt 128 ] && kill -$((code - 128)) $$
exit "$code"
"""
STEPS = 200
CONFIG = """
from ml_collections import ConfigDict
from tests import runs

def get_config():
    every = dict(log=1, evaluate=400, save=50)
    return ConfigDict(runs.stage1({folder!r}, **{{"optim.steps": {steps}, "every": every}}))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def submit(cluster, python: pathlib.Path, folder: pathlib.Path, *argv: str, **env: str) -> str:
    """The number of a job whose `python` is the one of that folder."""
    env = {**cluster.env, **env, "PATH": f"{python}:{cluster.env['PATH']}"}
    return cluster.run("sbatch", "--parsable", *TWO, *argv, env=env, cwd=folder).strip()


def hurry(cluster, number: str) -> None:
    """Waits for a job to be queued again, and lets it begin: SLURM holds it for two minutes.

    Two seconds it needs: within the same second slurmd refuses it as the one that it has ended.
    """
    until = time.monotonic() + 90
    while (job := cluster.job(number))["Restarts"] == "0":
        assert job["JobState"] not in ENDED and time.monotonic() < until, job
        time.sleep(0.2)
    cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now+2")


@pytest.mark.parametrize(
    ("codes", "ends", "restarts"),
    [
        ("0 0", "0:0", "0"),
        ("75 75", "0:0", "1"),  # stopped and saved
        ("71 137", "0:0", "1"),  # one was killed, the other lost it
        ("2 71", "2:0", "0"),  # one refused, the other lost it
        ("71 1", "1:0", "0"),
        ("70 70", "70:0", "0"),
        ("127 127", "127:0", "0"),  # no python
    ],
)
def test_what_stopped_or_lost_a_process_is_queued_again(cluster, tmp_path, codes, ends, restarts):
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    number = submit(cluster, tmp_path, tmp_path, SCRIPT, codes)
    if restarts != "0":
        hurry(cluster, number)
    job = cluster.wait(number, ENDED, 30)
    assert (job["ExitCode"], job["Restarts"]) == (ends, restarts)


def test_it_is_queued_again_so_often_and_no_more(cluster, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 75\n")
    (tmp_path / "python").chmod(0o755)
    job = cluster.wait(submit(cluster, tmp_path, tmp_path, SCRIPT, RESTARTS="0"), ENDED, 30)
    assert (job["ExitCode"], job["Restarts"]) == ("75:0", "0")


@pytest.fixture
def settings(cluster, apart) -> dict[str, str]:
    """Environment of a job that runs this Python, one device for each task."""
    env = {**apart, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "XLA_FLAGS": ""}
    # As behind a firewall: what the tasks say to one another may not go that way.
    env |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return env | {"SLURM_CONF": cluster.env["SLURM_CONF"]}


def train(cluster, tmp_path, data, settings, **more: str) -> tuple[str, pathlib.Path]:
    """A job that trains on two tasks: its number, and what it writes."""
    (tmp_path / "config.py").write_text(CONFIG.format(folder=str(data), steps=STEPS))
    argv = (SCRIPT, "--config", "config.py", "--workdir", "run")
    python = pathlib.Path(sys.executable).parent
    number = submit(cluster, python, tmp_path, *argv, **settings, **more)
    return number, tmp_path / f"diffv2iqa-{number}.out"


def test_two_tasks_see_one_another_behind_a_proxy(cluster, tmp_path, data, settings):
    number, out = train(cluster, tmp_path, data, settings, MODULE="preflight")
    job = cluster.wait(number, ENDED, 120)
    assert job["ExitCode"] == "0:0", out.read_text()
    assert re.search(r"^0: ok +processes +2 on", out.read_text(), re.M)
    assert re.search(r"^0: ok +collective +a sum over 2 devices", out.read_text(), re.M)


@pytest.mark.minutes
def test_two_tasks_train_and_a_signal_makes_them_go_on_from_where_they_were(
    cluster, tmp_path, data, settings
):
    number, out = train(cluster, tmp_path, data, settings)
    until = time.monotonic() + 300
    while not (tmp_path / "run" / "checkpoints" / "50").is_dir():
        assert cluster.job(number)["JobState"] not in ENDED and time.monotonic() < until, out
        time.sleep(0.1)
    cluster.run("scancel", "--signal=TERM", number)
    hurry(cluster, number)
    job = cluster.wait(number, ENDED, 300)
    said = out.read_text()
    assert (job["ExitCode"], job["Restarts"]) == ("0:0", "1"), said
    assert "exit code 75: queued again (1 of 20)" in said
    steps = [int(step) for step in re.findall(rf"starting at step (\d+) of {STEPS}", said)]
    assert min(steps) == 0 and 50 <= max(steps) < STEPS, said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["step"] == STEPS
