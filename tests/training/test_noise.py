"""The noise of a training step depends on the seed, the step and the image, and on nothing else."""

import functools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from diffv2iqa_jax.tasks import quality, restoration
from diffv2iqa_jax.training import optim, sharding, steps
from diffv2iqa_jax.training.state import TrainState
from tests import tiny

RATE = 0.5
RESTORER = tiny.restorer(net={"multipliers": (1,), "dropout": RATE})
SWIN = {"depths": (2,), "heads": (2,), "mlp": 16, "dropout": RATE, "drop_path": RATE}
GUIDANCE = tiny.guidance(tab={"dropout": RATE}, swin=SWIN, dropout=RATE)
TASKS = {
    "restoration": lambda: restoration.restoration(restorer=RESTORER),
    "quality": lambda: quality.quality(
        restorer=RESTORER, model={"branches": {"guidance": GUIDANCE}}, loss="mse"
    ),
}
SGD = {"name": "sgd", "lr": 0.1, "schedule": "constant", "period": 0, "warmup": 0, "steps": 2}


@functools.cache
def losses(stage: str, devices: int = 1, accumulate: int = 1) -> list[float]:
    """Of two steps: the second also says whether the first one's gradient was the same."""
    where = sharding.make("jit", devices=jax.devices()[:devices])
    task, (tx, rate) = TASKS[stage](), optim.make(**SGD, weight_decay=0.0, clip=1.0)
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), tiny.batch(count=1)))
    state = where.spread(TrainState.create(weights, tx, "^restorer/" * (stage == "quality")))
    gradients = where.gradients(steps.make_gradients(task, seed=0, accumulate=accumulate))
    step = where.train(steps.make_train_step(gradients, tx, average=0.9, rate=rate), state)
    values = []
    for i in range(2):
        state, metrics = step(state, where.put(tiny.batch(i, count=16, views=3)))
        values.append(float(metrics["loss"]))
    return values


@pytest.mark.parametrize("stage", TASKS)
def test_four_devices_drop_as_one(stage):
    np.testing.assert_allclose(losses(stage, 4), losses(stage), rtol=2e-6)


def test_eight_devices_with_two_micro_batches_drop_as_one(apart):
    script = (
        "import json; from tests.training.test_noise import TASKS, losses; "
        "print(json.dumps({s: losses(s, 8, 2) for s in TASKS}))"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=apart | flags, capture_output=True, check=True
    )
    for stage, found in json.loads(done.stdout.splitlines()[-1]).items():
        np.testing.assert_allclose(found, losses(stage), rtol=2e-6)
