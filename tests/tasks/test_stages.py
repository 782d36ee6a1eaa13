"""Both stages as a run has them: compiled over four devices, with Adam."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax import rng
from diffv2iqa_jax.tasks import quality, restoration
from diffv2iqa_jax.training import optim, sharding, steps
from diffv2iqa_jax.training.state import TrainState
from tests import tiny

RESTORER = tiny.restorer(net={"multipliers": (1,)})
TASKS = {
    "restoration": restoration.restoration(restorer=RESTORER),
    "quality": quality.quality(restorer=RESTORER, model=tiny.model(w2="learned"), loss="huber"),
}
FROZEN = {"restoration": "", "quality": "^restorer/|/vit/"}
ADAM = {"name": "adam", "lr": 1e-2, "schedule": "constant", "period": 0, "warmup": 0, "steps": 20}


@functools.cache
def trained(stage):
    """First state, state after 20 steps on one batch, and the losses."""
    where = sharding.make("jit")
    tx, rate = optim.make(**ADAM, weight_decay=1e-5, clip=1.0)
    batch = tiny.batch(views=3)

    def make(key):
        return TrainState.create(TASKS[stage].init(key, batch), tx, FROZEN[stage])

    state = where.init(make, jax.random.key(0))
    first = jax.tree.map(jnp.copy, state)
    gradients = where.gradients(steps.make_gradients(TASKS[stage], seed=0))
    step = where.train(steps.make_train_step(gradients, tx, average=0.9, rate=rate), state)
    losses = []
    for _ in range(20):
        state, metrics = step(state, where.put(batch))
        losses.append(float(metrics["loss"]))
    return first, state, np.array(losses)


@pytest.mark.parametrize("stage", TASKS)
def test_the_loss_is_finite_and_falls(stage):
    _, _, losses = trained(stage)
    assert np.all(np.isfinite(losses))
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()


def test_frozen_parameters_do_not_move_and_all_others_do():
    first, last, _ = trained("quality")
    assert first.fixed.keys() == last.fixed.keys() != set()
    assert {name.split("/")[0] for name in last.fixed} == {"restorer", "quality"}
    jax.tree.map(np.testing.assert_array_equal, last.fixed, first.fixed)
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(last.opt_state)}
    assert not any("restorer/" in name or "/vit/" in name for name in names)
    still = [k for k, x in last.trainable.items() if np.array_equal(x, first.trainable[k])]
    assert not still


def test_a_learned_weight_of_the_second_branch_starts_at_one():
    first, last, _ = trained("quality")
    assert first.trainable["quality/w2"] == 1 != last.trainable["quality/w2"]


def test_the_quality_stage_starts_from_random_weights_of_the_right_shape():
    first, _, _ = trained("quality")
    again = jax.eval_shape(TASKS["quality"].init, jax.random.key(0), tiny.batch(count=1))

    def shape(x):
        return (x.shape, str(x.dtype))

    assert jax.tree.map(shape, again) == jax.tree.map(shape, first.weights())


@pytest.mark.parametrize("stage", TASKS)
def test_padding_has_no_say_in_the_loss(stage):
    task = TASKS[stage]
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), tiny.batch(count=1)))
    loss = jax.jit(lambda batch: task.loss(weights, batch, rng.stream(0, "train"))[0])
    batch = tiny.batch(views=3) | {"mask": np.array([1.0] * 5 + [0.0] * 3, np.float32)}
    other = tiny.batch(seed=1, views=3)
    noise = {k: np.concatenate([batch[k][:5], other[k][5:]]) for k in batch if k != "mask"}
    np.testing.assert_allclose(loss(batch | noise), loss(batch), rtol=1e-5)


def test_a_step_keeps_the_structure_of_statistics_that_pretrained_weights_left_out():
    """Placing weights by their paths drops empty parts; a step that adds one cannot be stored."""
    model = {"branches": {"guidance": tiny.guidance(select=((0,),), noise_width=0)}}
    task = quality.quality(restorer={"kind": "none"}, model=model, loss="mse")
    batch = tiny.batch(count=1)
    made = task.init(jax.random.key(0), batch)
    for stats in (made.stats, {}):
        _, (_, after) = task.loss(made.replace(stats=stats), batch, jax.random.key(1))
        assert jax.tree.structure(after) == jax.tree.structure(stats)


def test_a_prediction_holds_scores_maps_and_views():
    task = TASKS["quality"]
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), tiny.batch(count=1)))
    predict = jax.jit(steps.make_predict_step(task))
    batch = tiny.batch()
    out = predict(weights, batch)
    want = {"score": (8,), "parts": (8, 2), "views": (8, 3, 16, 16, 3)}
    for name in ("guidance", "difference"):
        want |= {f"score_{name}": (8,), f"weight_{name}": (8,)}
        want |= {f"map_score_{name}": (8, 4, 4), f"map_weight_{name}": (8, 4, 4)}
    assert {name: x.shape for name, x in out.items()} == want
    np.testing.assert_allclose(out["parts"].sum(1), out["score"], rtol=1e-6)
    # A score is a function of the image: another order, and what fills up the batch.
    rows = np.array([5, 3, 3, 3, 3, 3, 3, 3])
    turned = predict(weights, {name: x[rows] for name, x in batch.items()})
    np.testing.assert_allclose(turned["score"], out["score"][rows], rtol=1e-5, atol=1e-5)
    stored = predict(weights, batch | {"views": np.asarray(out["views"])})
    np.testing.assert_allclose(stored["score"], out["score"], rtol=1e-5)


def test_the_branch_loss_asks_each_branch_for_its_share_of_the_whole_score():
    """mse(S1 + w2 S2) + weight * mean of mse(2 S1) and mse(2 w2 S2)."""
    batch, key = tiny.batch(views=3), rng.stream(0, "train")
    made = {"restorer": RESTORER, "model": tiny.model(w2=3.0), "loss": "mse"}
    weights = tiny.random(jax.eval_shape(TASKS["quality"].init, jax.random.key(0), batch))

    def of(task):
        return jax.jit(lambda: task.loss(weights, batch, key)[0])()

    out = jax.jit(quality.quality(**made).predict)(weights, batch)
    each = [2 * out["score_guidance"], 2 * 3.0 * out["score_difference"]]
    own = np.mean([np.mean((x - batch["mos"]) ** 2) for x in each])
    plain, more = of(quality.quality(**made)), of(quality.quality(**made, branch_loss=0.5))
    np.testing.assert_allclose(more - plain, 0.5 * own, rtol=1e-4)


def test_settings_that_make_no_stage_are_refused():
    with pytest.raises(ValueError, match="loss 'l4': known are .*mse"):
        quality.quality(restorer=tiny.restorer(), model=tiny.model(), loss="l4")
    with pytest.raises(ValueError, match="known are .*guidance"):
        quality.quality(restorer={"kind": "none"}, model={"branches": {"x": {}}}, loss="mse")
