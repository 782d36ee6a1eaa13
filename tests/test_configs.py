"""Every row of every configuration is complete, builds, and trains two steps at tiny widths."""

import functools
import json

import jax
import numpy as np
import pytest

from configs import diffv2iqa, maniqa, pristine, quickstart, restore, small, sr3, vcrnet
from diffv2iqa_jax import config as configs
from diffv2iqa_jax import plan, restorers, tasks
from diffv2iqa_jax.config import ConfigError, override
from diffv2iqa_jax.training import sharding, steps
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


@pytest.mark.parametrize(("name", "row"), ALL, ids=lambda x: x)
def test_a_row_is_complete_and_trains_two_steps(name, row):
    plan.check(configs.plain(TABLES[name][0].get_config(row)))
    config = tiny_config(name, row)
    if config["task"] == "quality":  # stored views: which ones makes no other program
        views = restorers.count(**config["restorer"])
        config["restorer"] = tiny.restorer(net={"multipliers": (1,)}) if views > 1 else NONE
    size = 64 if "vcrnet" in config.get("model", {}).get("branches", {}) else 16
    keys = ("task", *tasks.SETTINGS[config["task"]])
    settings = {k: config[k] for k in keys}
    optim = {k: v for k, v in config["optim"].items() if k not in ("lr", "average", "steps")}
    settings["optim"] = optim | {"lr": 1e-3, "steps": 2, "warmup": 0, "schedule": "constant"}
    settings["optim"]["period"] = 0
    settings["data"] = {"name": "given"}  # test_pristine.py has the images made in the step
    losses = train(json.dumps(settings, sort_keys=True), size)
    assert len(losses) == 2 and np.isfinite(losses).all()


NONE = {"kind": "none"}


@functools.cache  # rows that differ in their data alone are the same program
def train(settings: str, size: int) -> list[float]:
    config = json.loads(settings)
    task, where = plan.make_task(config), sharding.make("jit", devices=jax.devices()[:1])
    views = restorers.count(**config["restorer"]) - 1
    batch = tiny.batch(count=2, size=size, views=views if config["task"] == "quality" else 0)
    tx, rate = plan.optimiser(config)
    weights = tiny.random(jax.eval_shape(task.init, jax.random.key(0), batch))
    state = where.spread(TrainState.create(weights, tx, config["optim"]["frozen"]))
    gradients = where.gradients(steps.make_gradients(task, seed=0))
    step = where.train(steps.make_train_step(gradients, tx, average=0.9, rate=rate), state)
    losses = []
    for _ in range(2):
        state, metrics = step(state, where.put(batch))
        losses.append(float(metrics["loss"]))
    return losses


def test_no_two_rows_are_the_same_experiment():
    for name, (module, rows) in TABLES.items():
        made = [str(configs.flat(configs.plain(module.get_config(row)))) for row in rows]
        assert len(set(made)) == len(made), name


def test_the_quickstart_is_complete():
    for stage in quickstart.get_config().stages.values():
        plan.check(configs.plain(stage))


def test_a_row_that_is_not_there_is_an_error_that_names_the_nearest():
    for module, row, near in ((diffv2iqa, "realease", "release"), (small, "maniq", "maniqa")):
        with pytest.raises(ConfigError, match=f"row '{row}': no such row; did you mean '{near}'"):
            module.get_config(row)
