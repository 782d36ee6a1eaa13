"""Reads what a run has saved: its resolved configuration, its weights."""

import jax
import jax.numpy as jnp

from diffv2iqa_jax import rng
from diffv2iqa_jax.tasks import stages
from diffv2iqa_jax.tasks.example import example
from diffv2iqa_jax.types import Weights


def load(folder: str) -> tuple[dict, Weights, int]:
    """Reads a run's newest intact checkpoint: resolved configuration, weights on the host, step.

    Raises:
      FileNotFoundError: there is none.
    """
    from diffv2iqa_jax.training.checkpoint import Checkpoints  # Orbax takes a second

    checkpoints = Checkpoints(folder)
    config = checkpoints.config()
    like = shapes(config, config["data"]["size"])
    weights, step = checkpoints.weights(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
    return config, jax.device_get(weights), step


def shapes(config: dict, size: int) -> Weights:
    """Shapes of the weights of a task's settings; nothing is computed."""
    batch = jax.tree.map(jnp.asarray, example(size))
    task = stages.TASKS[config["task"]](**stages.settings(config))
    return jax.eval_shape(task.init, rng.stream(0, "init"), batch)
