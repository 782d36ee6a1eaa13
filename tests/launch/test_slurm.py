"""launch/slurm.sbatch in a real SLURM: two tasks train, what stopped is queued again."""

import pathlib
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def submit(cluster, python: pathlib.Path, folder: pathlib.Path, *argv: str, **env: str) -> str:
    """The number of a job whose `python` is the one of that folder."""
    env = {**cluster.env, "PATH": f"{python}:{cluster.env['PATH']}", **env}
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
