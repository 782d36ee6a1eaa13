"""What a training step holds at once, as the compiler says it: split parameters save memory."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def measure(*changes: dict) -> list[dict]:
    """Of each change to the configuration, what `temporaries` prints."""
    command = [sys.executable, "-m", "tests.training.temporaries", *map(json.dumps, changes)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_split_four_ways_a_step_holds_less_than_two_fifths_and_reduces_to_shares():
    whole, split = measure({"devices.fsdp": 1}, {"devices.fsdp": 4})
    assert split["temporary"] <= 0.4 * whole["temporary"]
    # Each split leaf is gathered for the forward and, but for the first one, the backward pass.
    assert split["reduce-scatter"] < split["all-gather"] < 2 * split["reduce-scatter"]
    assert "reduce-scatter" not in whole and "all-gather" not in whole


@pytest.mark.slow
def test_computing_blocks_again_a_step_holds_less_than_two_thirds():
    small = {"data.size": 32, "restorer.net.multipliers": [1, 1], "restorer.net.res_blocks": 3}
    kept, again = measure(*(small | {"optim.remat": kind} for kind in ("none", "blocks")))
    assert again["temporary"] <= 0.66 * kept["temporary"]
