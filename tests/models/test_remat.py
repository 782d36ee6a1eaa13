"""Blocks computed twice give the same gradients, in every kind of net that is trained."""

import functools

import jax
import numpy as np
import pytest

from diffv2iqa_jax.models import remat
from diffv2iqa_jax.models.layers import BATCH_AXES
from diffv2iqa_jax.tasks import quality, restoration
from diffv2iqa_jax.types import Weights
from tests import tiny

# Dropout is on: a block computed again must drop the same.
UNET = tiny.restorer(net={"dropout": 0.2, "attn_res": (8,)})
BRANCHES = {
    "guidance": tiny.guidance(dropout=0.1, tab={"dropout": 0.1}),
    "difference": tiny.difference(resnet=tiny.resnet(norm="batch")),
}
VCR = {"kind": "autoencoder", "net": {"width": 2}, "loss": "mse", "noise": ()}
VCR |= {"views_dtype": "float32", "seed": 0, "dtype": "float32"}
TASKS = {
    "autoencoder": restoration.restoration(restorer=VCR),
    "unet": restoration.restoration(restorer=UNET),
    "branches": quality.quality(restorer=UNET, model={"branches": BRANCHES}, loss="mse"),
}


def gradients(task, kind, batch):
    """Function of the weights: their gradients and statistics, on one device."""

    def loss(params, weights):
        with remat.recomputing(kind):
            value, (_, stats) = task.loss(Weights(params, weights.stats), batch, jax.random.key(1))
        return value, stats

    def one(weights):
        return jax.grad(loss, has_aux=True)(weights.params, weights)

    return functools.reduce(
        lambda f, axis: jax.vmap(f, None, None, axis_name=axis, axis_size=1), BATCH_AXES, one
    )


@pytest.mark.parametrize("name", TASKS)
def test_computing_blocks_again_changes_no_gradient(name):
    task, batch = TASKS[name], tiny.batch(count=2, views=3)
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), batch))
    kept, again = (gradients(task, kind, batch) for kind in remat.KINDS)
    assert str(jax.make_jaxpr(again)(weights)).count("remat") >= 5
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, jax.jit(again)(weights), jax.jit(kept)(weights))
