"""Every row of every configuration is complete and has a loss; one of each kind trains."""

import functools

import jax
import numpy as np
import pytest

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.config import override
from diffv2iqa_jax.configs import (
    diffv2iqa,
    maniqa,
    pristine,
    quickstart,
    restore,
    small,
    sr3,
    vcrnet,
)
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.models.layers import BATCH_AXES
from diffv2iqa_jax.tasks import restorers, stages
from diffv2iqa_jax.training import checks, setup, sharding, steps
from diffv2iqa_jax.training.state import TrainState
from tests import tiny

TABLES = {
    "restore": (restore, restore.ROWS),
    "pristine": (pristine, pristine.ROWS),
    "sr3": (sr3, sr3.ROWS),
    "maniqa": (maniqa, maniqa.ROWS),
    "vcrnet": (vcrnet, vcrnet.ROWS),
    "diffv2iqa": (diffv2iqa, diffv2iqa.ROWS),
    "small": (small, small.ROWS),
}
ALL = [(name, row) for name, (_, rows) in TABLES.items() for row in rows]
STAGES = ((1, 3, 1, 1, 4), (1, 3, 2, 2, 4), (1, 3, 2, 2, 4), (1, 3, 2, 2, 4), (1, 3, 2, 2, 4))
# What a full-size setting becomes; functions see its value.
NARROW = {
    "net": {
        "inner": 4,
        "multipliers": lambda m: (1, 2),
        "res_blocks": 1,
        "image_size": 32,
        "groups": 4,
        "width": 2,
        "scale_width": 2,
        "hidden": 8,
    },
    "vit": {"image_size": 16, "patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp": 8},
    "swin": {"depths": (1,), "heads": (2,), "mlp": 8},
    "resnet": {"blocks": (1, 1), "width": 8, "classes": lambda n: min(n, 5)},
    "guidance": {
        "select": lambda views: tuple(tuple({b // 6 for b in blocks}) for blocks in views),
        "reduce": lambda widths: (8,) * len(widths),
        "width": 8,
        "tabs": 1,
        "noise_width": lambda n: n and 1 + n // 192,
    },
    "difference": {"positions": 16, "tabs": 1},
    "data": {"size": 16, "batch": 4},
}


def narrow(config: dict) -> dict:
    out = {}
    for key, value in config.items():
        if isinstance(value, dict):
            value = narrow(value)
            for name, small in NARROW.get(key, {}).items():
                if name in value:
                    value[name] = small(value[name]) if callable(small) else small
        out[key] = "float32" if key == "dtype" else value
    return out


def resolved(config: dict, stage1: dict) -> dict:
    """With the settings of a stage-1 restorer in the place of its run's name."""
    named = config["restorer"]
    if "run" not in named:
        return config
    changes = configs.flat(named["changes"])
    return {**config, "restorer": override(stage1, changes)}


def tiny_config(name: str, row: str) -> dict:
    config = narrow(configs.plain(TABLES[name][0].get_config(row)))
    base = vcrnet.get_config("restoration") if row == "autoencoder" else restore.get_config()
    config = resolved(config, narrow(configs.plain(base))["restorer"])
    if "vcrnet" in config.get("model", {}).get("branches", {}):
        config["model"]["branches"]["vcrnet"]["net"] |= {"stages": STAGES, "stem": 4, "head": 8}
    return config


# Rows whose steps are made of different parts, less those whose parts whole runs train: restore's
# base and so sr3's 16_128, DiffV2IQA's paper and release, MANIQA (tests/training). The others
# change numbers, losses or switches of these, and have tests of their own for what they change.
DISTINCT = (
    ("sr3", "unconditional"),
    ("vcrnet", "restoration"),
    ("vcrnet", "quality"),
    ("diffv2iqa", "trained_backbones"),
    ("small", "starter"),
)


@pytest.mark.parametrize(("name", "row"), ALL, ids=str)
def test_a_row_passes_the_checks_and_has_a_loss_of_one_number(name, row):
    checks.check(configs.plain(TABLES[name][0].get_config(row)))
    _, task, batch = task_of(name, row)

    def loss(weights, batch):  # within axes, as the step's average over devices needs
        mapped = functools.reduce(
            lambda f, axis: jax.vmap(f, None, None, axis_name=axis, axis_size=1),
            BATCH_AXES,
            task.loss,
        )
        return mapped(weights, batch, jax.random.key(0))

    weights = jax.eval_shape(task.init, jax.random.key(0), batch)
    value, (metrics, stats) = jax.eval_shape(loss, weights, batch)
    assert value.shape == metrics["loss"].shape == ()
    assert jax.tree.structure(stats) == jax.tree.structure(weights.stats)


@pytest.mark.parametrize(("name", "row"), DISTINCT, ids=str)
def test_a_row_trains_two_steps_that_keep_the_state_as_it_is(name, row):
    step, first, batch = step_of(name, row)
    step, state = jax.jit(step), first
    for _ in range(2):
        state, metrics = step(state, batch)
        assert np.isfinite(metrics["loss"])
    assert jax.tree.map(kind, state) == jax.tree.map(kind, first)
    before, after = jax.device_get((first.trainable, state.trainable))
    assert all(np.isfinite(x).all() for x in after.values())
    assert any((x != before[path]).any() for path, x in after.items())


NONE = {"kind": "none"}


def kind(x: jax.Array) -> tuple:
    """What makes jit compile anew where it changes from one step to the next."""
    return x.shape, x.dtype, x.weak_type


def task_of(name: str, row: str) -> tuple:
    """Configuration, task and batch of a row at tiny widths."""
    config = tiny_config(name, row)
    if config["task"] == "quality":  # stored views: which ones makes no other program
        views = restorers.count(**config["restorer"])
        config["restorer"] = tiny.restorer(net={"multipliers": (1,)}) if views > 1 else NONE
    keys = ("task", *stages.SETTINGS[config["task"]], "optim")
    config = {k: config[k] for k in keys} | {"data": {"name": "given"}}
    config["optim"] |= {"steps": 2, "warmup": 0, "schedule": "constant", "period": 0}
    size = 64 if "vcrnet" in config.get("model", {}).get("branches", {}) else 16
    views = restorers.count(**config["restorer"]) - 1 if config["task"] == "quality" else 0
    batch = tiny.batch(count=2, size=size, views=views)
    return config, setup.make_task(config), batch


def step_of(name: str, row: str) -> tuple:
    """Training step, state and batch of a row at tiny widths, on one device."""
    config, task, batch = task_of(name, row)
    where = sharding.make("jit", devices=jax.devices()[:1])
    tx, rate = setup.optimiser(config)
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), batch))
    state = TrainState.create(weights, tx, config["optim"]["frozen"])
    gradients = where.gradients(steps.make_gradients(task, seed=0))
    return steps.make_train_step(gradients, tx, average=0.9, rate=rate), state, batch


def test_no_two_rows_are_the_same_experiment():
    for name, (module, rows) in TABLES.items():
        texts = [str(configs.flat(configs.plain(module.get_config(row)))) for row in rows]
        assert len(set(texts)) == len(texts), name


def test_the_quickstart_passes_the_checks_and_its_second_stage_builds_on_its_first():
    stages = configs.plain(quickstart.get_config())["stages"]
    for stage in stages.values():
        checks.check(stage)
    assert [stages[name]["task"] for name in ("restore", "quality")] == ["restoration", "quality"]
    assert stages["quality"]["restorer"]["run"] == "restore"
    for section, key in (("optim", "lr"), ("restorer", "cached"), ("evaluate", "examples")):
        lacking = {**stages["quality"][section]}
        del lacking[key]
        with pytest.raises(ConfigError, match=f"'{key}'.* must be set"):
            checks.check({**stages["quality"], section: lacking})


def test_a_row_that_is_not_there_is_an_error_that_names_the_nearest():
    for module, row, near in ((diffv2iqa, "realease", "release"), (small, "maniq", "maniqa")):
        with pytest.raises(ConfigError, match=f"row '{row}': no such row; did you mean '{near}'"):
            module.get_config(row)
