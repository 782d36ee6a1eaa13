"""From a resolved configuration to what a run works with: task, optimiser, compiled steps."""

import jax
import jax.numpy as jnp

from diffv2iqa_jax import rng
from diffv2iqa_jax.config import call
from diffv2iqa_jax.distortions.names import PAIRS
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.tasks import distorting as tasks_distorting
from diffv2iqa_jax.tasks import stages
from diffv2iqa_jax.tasks.example import example
from diffv2iqa_jax.training import optim
from diffv2iqa_jax.training.state import check_rates, partition
from diffv2iqa_jax.types import Task, Weights


def distorting(task: Task, pairs: int = 0, test: str = "", **settings) -> Task:
    """The task on images that each step distorts; `pairs` and `test` are of evaluation."""
    if not 0 <= pairs <= len(PAIRS):
        raise ValueError(f"pairs {pairs}: must be 0 (all) to {len(PAIRS)}")
    return tasks_distorting.distorting(task, **settings)


def optimiser(config: dict):
    """(update rule, learning rate) of the configuration."""
    other = ("frozen", "accumulate", "average")
    settings = {k: v for k, v in config["optim"].items() if k not in other}
    return call(optim.make, "optim", settings)


def make_task(config: dict) -> Task:
    """The task of a resolved configuration."""
    task = call(stages.TASKS[config["task"]], config["task"], stages.settings(config))
    if "distort" in config["data"]:
        task = call(distorting, "data.distort", config["data"]["distort"], task=task)
    return task


def shapes(task: Task, size: int, frozen: str = "", rates: tuple = ()) -> Weights:
    """Shapes of the task's weights for images of `size`; nothing is computed.

    Raises:
      ConfigError: the task cannot be built, or an expression of the optimiser matches nothing.
    """
    batch = jax.tree.map(jnp.asarray, example(size))
    try:
        found = jax.eval_shape(task.init, rng.stream(0, "init"), batch)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"config, with data.size {size}: {str(error).splitlines()[0]}") from error
    trained, _ = call(partition, "optim", {"frozen": frozen}, params=found.params)
    call(check_rates, "optim", {"rates": rates}, names=trained)
    return found
