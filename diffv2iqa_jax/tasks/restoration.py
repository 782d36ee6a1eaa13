"""Stage 1 as three pure functions: turn a distorted image into its reference."""

import jax

from diffv2iqa_jax.tasks import losses, restorers
from diffv2iqa_jax.types import Batch, Metrics, Params, Task, Weights


def restoration(*, restorer: dict) -> Task:
    """Stage 1: learn to turn a distorted image into its reference.

    Args:
      restorer: settings of `restorers.make`.
    """
    model = restorers.make(**restorer)

    def loss(
        weights: Weights, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Params]]:
        loss_B, stats = model.loss(weights, batch, key)
        value = losses.masked_mean(loss_B, batch["mask"])
        return value, ({"loss": value}, stats)

    def predict(weights: Weights, batch: Batch) -> dict[str, jax.Array]:
        return {"views": model.views(weights, batch).image_BVHWC[:, 1:]}

    return Task(model.init, loss, predict)
