"""Several real processes on this host: both stages, signals, kills, and what is refused."""

import ast
import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from diffv2iqa_jax import errors
from tests import runs
from tests.launch.slurm import free_ports
from tests.training.test_run import rated

ROOT = pathlib.Path(__file__).parents[2]


class Started:
    """The processes of one run, each with its output in a file.

    Args:
      each: further flags of each process.
      cwd: the folder of each; the same one if there is only one.
    """

    def __init__(self, env, config, work, *each, logs, devices=1, cwd=(ROOT,)):
        (port,) = free_ports(1)
        flags = f"--xla_force_host_platform_device_count={devices}"
        env = {**env, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "XLA_FLAGS": flags}
        base = [sys.executable, "-m", "diffv2iqa_jax.main", "--jit_cache=", "--config", config]
        base += ["--workdir", str(work)]
        if len(each) > 1:
            base += ["--coordinator", f"localhost:{port}", "--num_processes", str(len(each))]
        self._logs = [logs / f"output-{port}-{index}" for index in range(len(each))]
        self.children = []
        for index, more in enumerate(each):
            own = ["--process_id", str(index)] if len(each) > 1 else []
            with open(self._logs[index], "w") as file:
                how = {"stdout": file, "stderr": subprocess.STDOUT, "env": env}
                place = cwd[index % len(cwd)]
                child = subprocess.Popen([*base, *own, *more], cwd=place, **how)
            self.children.append(child)

    def ended(self, within: float) -> list[int]:
        """Exit codes; fails where a process is still there after so many seconds."""
        until = time.monotonic() + within
        try:
            return [child.wait(max(until - time.monotonic(), 0.1)) for child in self.children]
        except subprocess.TimeoutExpired:
            raise AssertionError("\n----\n".join(self.output())) from None
        finally:
            for child in self.children:
                child.kill()

    def output(self) -> list[str]:
        return [path.read_text() for path in self._logs]

    def until(self, condition, within: float = 200) -> None:
        """Waits for something in the workdir while all processes are there."""
        until = time.monotonic() + within
        while not condition():
            ended = [child.poll() for child in self.children]
            assert set(ended) == {None} and time.monotonic() < until, self.output()
            time.sleep(0.1)


@pytest.fixture
def config(tmp_path, data):
    """Writes the configuration of two stages, of so many steps each; returns its file."""

    def write(steps: int = 6) -> str:
        path = tmp_path / f"two_stages_{steps}.py"
        return runs.two_stages(path, data, **{"optim.steps": steps})

    return write


def saved(work: pathlib.Path, stage: str) -> list[int]:
    folder = work / stage / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def numbers(work: pathlib.Path, stage: str) -> tuple[dict, list, dict]:
    """What a stage came to: the results, the predictions, the losses by step."""
    folder = work / stage
    results = json.loads((folder / "results.json").read_text())
    with open(folder / "predictions.csv") as file:
        rows = list(csv.reader(file))
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    curves = {}
    for line in lines:
        kept = {k: v for k, v in line.items() if k.startswith("val/") or k == "train/loss"}
        curves.setdefault(line["step"], {}).update(kept)
    return results, rows, curves


def leaves(tree, at=""):
    """Numbers of nested dicts and lists by their path; of texts that are none, the text."""
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in pairs for k, v in leaves(value, f"{at}/{key}").items()}
    try:
        return {at: float(tree)}
    except (TypeError, ValueError):
        return {at: tree}


def assert_same(one: pathlib.Path, other: pathlib.Path, stage: str, rtol: float) -> None:
    for left, right in zip(numbers(one, stage), numbers(other, stage), strict=True):
        left, right = leaves(left), leaves(right)
        assert left.keys() == right.keys()
        for path, value in left.items():
            if isinstance(value, float):
                # The table's sixth decimal may round either way.
                np.testing.assert_allclose(right[path], value, rtol=rtol, atol=1.5e-6 * (rtol > 0))
            elif "restorer_from" not in path and "/run" not in path:
                assert right[path] == value, path


@pytest.mark.minutes
def test_signals_and_kills_of_two_processes_leave_the_numbers_of_one(tmp_path, apart, config):
    file = config()
    alone = tmp_path / "alone"
    assert Started(apart, file, alone, [], logs=tmp_path, devices=2).ended(300) == [0]
    work = tmp_path / "two"

    two = Started(apart, file, work, [], [], logs=tmp_path)
    two.until(lambda: 2 in saved(work, "restore"))
    two.children[1].send_signal(signal.SIGTERM)
    assert two.ended(30) == [errors.EXIT_PREEMPTED] * 2, two.output()
    assert all("run the same command to go on" in text for text in two.output())
    assert not (work / "quality").exists()

    two = Started(apart, file, work, [], [], logs=tmp_path)
    two.until(lambda: saved(work, "quality"))
    two.children[1].kill()
    begin = time.monotonic()
    codes = two.ended(30)
    assert time.monotonic() - begin < 20 and codes == [errors.EXIT_LOST, -9], two.output()
    assert "lost" in two.output()[0] and "run the same command again" in two.output()[0]

    # Another map goes on with the same state, and its processes average their gradients too.
    other = ["--config.stages.quality.devices.map=pmap"]
    two = Started(apart, file, work, other, other, logs=tmp_path)
    assert two.ended(300) == [0, 0], two.output()
    for stage in ("restore", "quality"):
        assert_same(alone, work, stage, rtol=1e-6)
        starts = (work / stage / "logs" / "process-1.log").read_text()
        assert "process 1: started, one of 2" in starts
    assert (work / "report.html").exists()


def test_what_differs_between_processes_is_said_by_each_before_anything_is_made(
    tmp_path, apart, config
):
    file, (here, there) = config(), (tmp_path / "here", tmp_path / "there")
    here.mkdir()
    there.mkdir()
    batch, lr = "--config.stages.restore.data.batch=", "--config.stages.restore.optim.lr="
    cases = [
        ([[f"{lr}.1"], [f"{lr}.2"]], {}, "stages.restore.optim.lr (0.1 -> 0.2)"),
        ([[], ["--config.stages.restore.optm=1"]], {}, "stages.restore.optm: no such key"),
        ([[f"{batch}7"]] * 2, {}, "batch"),
        ([[], ["--mode=evaluate"]], {}, "mode ('train' -> 'evaluate')"),
        ([[], []], {"cwd": (here, there)}, "wrote is not there for process"),
    ]
    for each, how, text in cases:
        two = Started(apart, file, "run", *each, logs=tmp_path, **({"cwd": (here,)} | how))
        assert two.ended(60) == [errors.EXIT_CONFIG] * 2, two.output()
        for output in two.output():
            assert text in output and "Traceback" not in output, output
        assert not list(here.iterdir()) and not list(there.iterdir())


def test_a_disk_that_is_full_is_one_line(tmp_path, apart, config):
    """On a disk of 500 kB, which a user may make in a namespace of its own."""
    (disk := tmp_path / "disk").mkdir()
    mounted = f'mount -t tmpfs -o size=500k none {disk} && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    try:
        allowed = subprocess.run([*inside, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no namespaces for users here")
    command = [sys.executable, "-m", "diffv2iqa_jax.main", "--jit_cache=", "--config", config()]
    env = {**apart, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    how = {"env": env, "capture_output": True, "text": True, "timeout": 200}
    done = subprocess.run([*inside, *command, "--workdir", str(disk / "run")], **how)
    assert done.returncode == errors.EXIT_CONFIG
    lines = done.stderr.splitlines()
    assert "No space left on device" in lines[-1] and lines[-1].startswith("error: ")
    assert len(lines) < 12, done.stderr


STEPS = """
import sys, time
from diffv2iqa_jax.training import processes
from diffv2iqa_jax.training.stopping import Stop

port, count, index, asked = map(int, sys.argv[1:])
processes.start(f"localhost:{port}", count, index)
stop, steps = Stop(), 0
while not stop():
    steps += 1
    time.sleep(0.002 * (index + 1))  # each at its own pace
    if (index, steps) == (asked, 100):
        stop.ask()
print(processes.exchange("steps", str(steps)))
processes.end()
"""


@pytest.mark.parametrize("asked", [0, 2])
def test_one_that_is_asked_to_stop_stops_all_at_the_same_step(asked):
    """Without a collective they are not even held together by their devices."""
    (port,) = free_ports(1)
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": env}
    command = [sys.executable, "-c", STEPS, str(port), "3"]
    children = [subprocess.Popen([*command, str(i), str(asked)], **how) for i in range(3)]
    said = {child.communicate(timeout=100)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    (steps,) = (ast.literal_eval(text) for text in said)
    assert len(set(steps)) == 1 and int(steps[0]) > 100


def test_what_one_process_is_refused_for_claims_nothing(tmp_path, apart, data):
    """A folder that is there on one host alone: the first process must not have begun."""
    hosts = [tmp_path / "host0", tmp_path / "host1"]
    for host in hosts:
        host.mkdir()
    rated(hosts[0] / "sets")
    changes = {"data.name": "csv/other", "data.parts": "official"}
    file = tmp_path / "one.py"
    made = f"runs.maniqa_run('sets', **{changes})"
    file.write_text(f"from tests import runs\n\ndef get_config():\n    return {made}\n")
    work = tmp_path / "run"
    two = Started(apart, str(file), work, [], [], logs=tmp_path, cwd=hosts)
    assert two.ended(100) == [2, 2], two.output()
    assert all("data set 'csv/other' is not in sets: prepare it" in text for text in two.output())
    assert not work.exists()


@pytest.mark.minutes
def test_a_silent_process_ends_the_others(tmp_path, apart, config):
    """It lives, but does nothing: as a host that swaps, or waits for a disk."""
    two = Started(apart, config(4000), tmp_path / "run", [], [], logs=tmp_path)
    two.until(lambda: saved(tmp_path / "run", "restore"))
    two.children[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        assert two.children[0].wait(40) == errors.EXIT_LOST, two.output()
    finally:
        two.children[1].kill()
        two.ended(5)
    assert time.monotonic() - begin < 20
    assert "process 1 was lost, no sign of life" in two.output()[0]


@pytest.mark.minutes
def test_a_run_that_is_killed_at_any_moment_comes_to_the_same_numbers(tmp_path, apart, config):
    file, alone, work = config(), tmp_path / "alone", tmp_path / "killed"
    assert Started(apart, file, alone, [], logs=tmp_path).ended(300) == [0]
    draw = random.Random(0)
    for _ in range(int(os.environ.get("KILLS", "3"))):
        one = Started(apart, file, work, [], logs=tmp_path)
        time.sleep(draw.uniform(4, 30))
        one.children[0].kill()
        assert one.ended(10)[0] in (0, -9)
    assert Started(apart, file, work, [], logs=tmp_path).ended(300) == [0]
    for stage in ("restore", "quality"):
        assert_same(alone, work, stage, rtol=0)
