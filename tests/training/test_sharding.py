"""The stages' real steps: equal on any number of devices, and cheap in what devices exchange."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.tasks import quality, restoration
from diffv2iqa_jax.training import optim, sharding, steps
from diffv2iqa_jax.training.state import TrainState
from tests import tiny

RESTORER = tiny.restorer(net={"multipliers": (1,)}, sampling={"steps": 3})


def make_quality(norm):
    """The stage with the branch that has a BatchNorm, the one thing where images could meet."""
    branch = tiny.difference(resnet=tiny.resnet(norm=norm))
    return quality.quality(
        restorer=RESTORER, model={"branches": {"difference": branch}}, loss="mse"
    )


STAGES = {
    "restoration": (restoration.restoration(restorer=RESTORER), ""),
    "quality": (make_quality("batch"), "restorer"),
}
SGD = {"name": "sgd", "lr": 0.1, "schedule": "cosine", "period": 0, "warmup": 0, "steps": 4}


def begin(stage, where, accumulate=1):
    """The stage's first state and its mapped training step."""
    task, frozen = STAGES[stage]
    tx, rate = optim.make(**SGD, weight_decay=0.0, clip=1.0)
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), tiny.batch(count=1)))
    state = TrainState.create(weights, tx, frozen)
    gradients = where.gradients(steps.make_gradients(task, seed=0, accumulate=accumulate))
    step = steps.make_train_step(gradients, tx, average=0.9, rate=rate)
    return where.spread(state), where.train(step, state)


@functools.cache
def three_steps(stage, map="jit", count=1, fsdp=1, accumulate=1):
    """Losses and gradient norms of three steps, and the last state."""
    where = sharding.make(map, fsdp=fsdp, devices=jax.devices()[:count])
    state, step = begin(stage, where, accumulate)
    seen = []
    for i in range(3):
        state, metrics = step(state, where.put(tiny.batch(i, views=3)))
        metrics = jax.device_get(where.single(metrics))
        seen.append([metrics["loss"], metrics["grad_norm"]])
    return np.array(seen), jax.device_get(where.single(state))


def same(got, want):
    """With SGD: Adam would hide a gradient that is some number of devices too large."""
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    for part in ("trainable", "average", "stats"):
        jax.tree.map(close, getattr(got[1], part), getattr(want[1], part))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("map", "fsdp"), [("jit", 1), ("jit", 2), ("pmap", 1)])
def test_four_devices_train_as_one(stage, map, fsdp, monkeypatch):
    monkeypatch.setattr(sharding, "STATE_MIN", 64)
    same(three_steps(stage, map, 4, fsdp), three_steps(stage))


def test_accumulating_takes_the_same_steps():
    same(three_steps("restoration", accumulate=4), three_steps("restoration"))


def test_fsdp_splits_large_leaves_and_only_these(monkeypatch):
    monkeypatch.setattr(sharding, "STATE_MIN", 64)
    state = {"large": jnp.zeros((3, 6, 8)), "odd": jnp.zeros((9, 9)), "small": jnp.zeros((2, 8))}
    spread = sharding.make("jit", fsdp=2).spread(state)
    local = {name: x.addressable_shards[0].data.shape for name, x in spread.items()}
    assert local == {"large": (3, 6, 4), "odd": (9, 9), "small": (2, 8)}


def test_the_state_is_donated_and_frozen_parameters_stay_bit_for_bit():
    where = sharding.make("jit", devices=jax.devices()[:1])
    before, step = begin("quality", where)
    fixed = jax.tree.map(jnp.copy, before.fixed)
    after, _ = step(before, where.put(tiny.batch(views=3)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert any(name.startswith("restorer/") for name in fixed)
    jax.tree.map(np.testing.assert_array_equal, after.fixed, fixed)


def collectives(hlo: str) -> dict[bool, list[str]]:
    """Result types of a compiled program's all-reduces; key True: outside of any loop."""
    types, entry = {True: [], False: []}, False
    for line in hlo.splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        match = re.search(r"= (.*?) all-reduce(-start)?\(", line)
        if match:
            types[entry].append(match[1])
    return types


def bytes_of(types: list[str]) -> int:
    parts = [part for one in types for part in re.findall(r"(\w+)\[([\d,]*)\]", one)]
    assert {kind for kind, _ in parts} == {"f32"}
    return sum(4 * math.prod(int(n) for n in sides.split(",") if n) for _, sides in parts)


def test_devices_exchange_each_trainable_gradient_once_however_many_micro_batches():
    where, batch = sharding.make("jit"), tiny.batch(count=16)  # no stored views: the chain runs
    task = make_quality("group")
    tx, rate = optim.make(**SGD, weight_decay=0.0, clip=1.0)

    def make(key):
        return TrainState.create(task.init(key, batch), tx, "restorer")

    state = jax.eval_shape(make, jax.random.key(0))
    gradients = where.gradients(steps.make_gradients(task, seed=0, accumulate=4))
    step = steps.make_train_step(gradients, tx, average=0.9, rate=rate)
    all_reduces = collectives(where.train(step, state).lower(state, batch).compile().as_text())
    sent = sum(x.size for x in state.trainable.values())
    assert sum(x.size for x in state.fixed.values()) > 1000
    assert not all_reduces[False]
    assert bytes_of(all_reduces[True]) == 4 * (sent + 2)  # and the loss and the mean score


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"map": "vmap"}, r"devices.map 'vmap': known are \['jit', 'pmap'\]"),
        ({"map": "jit", "fsdp": 3}, "devices.fsdp 3: does not divide the 4 devices"),
        ({"map": "pmap", "fsdp": 2}, "devices.fsdp 2: pmap replicates"),
    ],
)
def test_devices_that_are_not_there_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sharding.make(**settings)
