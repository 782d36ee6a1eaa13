"""The step itself, on a problem whose gradient is known: fit a line to points."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffv2iqa_jax.tasks import losses
from diffv2iqa_jax.training import sharding, steps
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.types import Task, Weights

G = np.random.default_rng(0)
BATCH = {
    "x": G.normal(size=(8, 3)).astype(np.float32),
    "y": G.normal(size=8).astype(np.float32),
    "mask": np.ones(8, np.float32),
}
START = np.array([0.5, -1.0, 2.0], np.float32)


def loss(weights, batch, key):
    out = jnp.sum(batch["x"] * weights.params["line"]["w"][None], axis=1)
    value = losses.masked_mean((out - batch["y"]) ** 2, batch["mask"])
    noise = jax.random.uniform(key)
    seen = weights.stats["seen"] + 1.0
    return value, ({"loss": value, "noise": noise}, {"seen": seen})


def predict(weights, batch):
    return {"score": batch["x"] @ weights.params["line"]["w"], "other": batch["y"]}


LINE = Task(
    lambda key, batch: Weights({"line": {"w": jnp.array(START)}}, {"seen": jnp.zeros(())}),
    loss,
    predict,
)


def run(*, accumulate=1, devices=4, taken=1, seed=0, average=0.9, map="jit"):
    """State and metrics after some steps at learning rate 0.1."""
    where = sharding.make(map, devices=jax.devices()[:devices])
    tx = optax.sgd(0.1)
    state = where.init(
        lambda key: TrainState.create(LINE.init(key, BATCH), tx, ""), jax.random.key(0)
    )
    gradients = where.gradients(steps.make_gradients(LINE, seed=seed, accumulate=accumulate))
    step = steps.make_train_step(gradients, tx, average=average, rate=lambda step: 0.1 * (step + 1))
    step = where.train(step, state)
    seen = []
    for _ in range(taken):
        state, metrics = step(state, where.put(BATCH))
        seen.append(jax.device_get(where.single(metrics)))
    return jax.device_get(where.single(state)), seen


def gradient(w):
    return 2 * BATCH["x"].T @ (BATCH["x"] @ w - BATCH["y"]) / 8


@pytest.mark.parametrize("map", ["jit", "pmap"])
@pytest.mark.parametrize(("devices", "accumulate"), [(1, 1), (1, 2), (1, 4), (4, 1), (4, 2)])
def test_a_step_follows_the_mean_gradient_of_the_whole_batch(map, devices, accumulate):
    state, (metrics,) = run(accumulate=accumulate, map=map, devices=devices)
    want = START - 0.1 * gradient(START)
    np.testing.assert_allclose(state.trainable["line/w"], want, rtol=1e-5)
    error = BATCH["x"] @ START - BATCH["y"]
    np.testing.assert_allclose(metrics["loss"], np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient(START)), rtol=1e-5)
    assert state.step == 1 and state.stats["seen"] == accumulate


def test_the_average_forgets_the_first_steps_then_decays_as_told():
    first, _ = run(taken=1)
    new = first.trainable["line/w"]
    np.testing.assert_allclose(first.average["line/w"], 0.1 * START + 0.9 * new, rtol=1e-5)
    second, _ = run(taken=2, average=0.15)  # less than 2 / 11
    want = 0.15 * first.average["line/w"] + 0.85 * second.trainable["line/w"]
    np.testing.assert_allclose(second.average["line/w"], want, rtol=1e-5)


def test_each_step_has_its_own_key_and_rate_and_a_seed_repeats():
    _, seen = run(taken=3)
    noise = [float(metrics["noise"]) for metrics in seen]
    assert len(set(noise)) == 3
    assert noise == [float(metrics["noise"]) for metrics in run(taken=3, devices=1)[1]]
    assert noise != [float(metrics["noise"]) for metrics in run(taken=3, seed=1)[1]]
    np.testing.assert_allclose([metrics["lr"] for metrics in seen], [0.1, 0.2, 0.3], rtol=1e-6)


def test_predictions_are_of_all_rows_in_order_and_only_what_was_named():
    for map in sharding.MAPS:
        where = sharding.make(map)
        weights = where.spread(LINE.init(None, None))
        batch = where.put(BATCH)
        out = where.fetch(where.predict(steps.make_predict_step(LINE, ("score",)))(weights, batch))
        assert set(out) == {"score"}
        np.testing.assert_allclose(out["score"], BATCH["x"] @ START, rtol=1e-5)
    assert set(steps.make_predict_step(LINE)(LINE.init(None, None), BATCH)) == {"score", "other"}
