"""Stage 1 as three pure functions: turn a distorted image into its reference."""

import jax

from diffv2iqa_jax.tasks import losses, restorers
from diffv2iqa_jax.types import Batch, Task, Weights


def restoration(*, restorer: dict) -> Task:
    """Stage 1: learn to turn a distorted image into its reference."""
    r = restorers.make(**restorer)

    def loss(weights: Weights, batch: Batch, key: jax.Array):
        loss_B, stats = r.loss(weights, batch, key)
        value = losses.masked_mean(loss_B, batch["mask"])
        return value, ({"loss": value}, stats)

    def predict(weights: Weights, batch: Batch):
        return {"views": r.views(weights, batch).image_BVHWC[:, 1:]}

    return Task(r.init, loss, predict)
