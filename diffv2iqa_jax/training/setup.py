"""Checks a configuration before anything compiles, and says what it would do (--dry_run)."""

import math
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import rng
from diffv2iqa_jax.config import ConfigError, call, only
from diffv2iqa_jax.data import pristine, splits
from diffv2iqa_jax.data.sets import registry
from diffv2iqa_jax.data.shelf import Shelf
from diffv2iqa_jax.models import layers, quality, resnet, swin, unet, vcr, vit
from diffv2iqa_jax.pp import ops_numpy, ops_tf
from diffv2iqa_jax.tasks import restorers, stages
from diffv2iqa_jax.tasks.example import example
from diffv2iqa_jax.training import optim
from diffv2iqa_jax.training.state import TrainState, check_rates, merge, partition
from diffv2iqa_jax.types import Task, Weights

SECTIONS = {
    "data": ("name", "folder", "parts", "split", "fractions", "size", "pp_train", "pp_test")
    + ("batch", "cache"),
    "optim": ("name", "lr", "schedule", "period", "warmup", "steps", "weight_decay", "clip")
    + ("rates", "frozen", "accumulate", "average"),
    "devices": ("map", "fsdp"),
    "every": ("log", "evaluate", "save"),
    "evaluate": ("val_images", "examples", "baselines"),
}
COMMON = ("task", "seed", "data", "pretrained", "optim", "devices", "every")
COMMON += ("evaluate", "keep", "tensorboard")
DISTORT_KEYS = ("types", "clean", "chains", "levels", "group", "subsample")
RUN_KEYS = ("run", "changes", "cached", "folder")


def check(config: dict) -> None:
    """Refuses a configuration that cannot work.

    Raises:
      ConfigError: one line with the key, its value, the rule and the choices.
    """
    task = config.get("task")
    if task not in stages.TASKS:
        raise ConfigError(f"config.task {task!r}: known are {sorted(stages.TASKS)}")
    only(config, "", (*COMMON, *stages.SETTINGS[task]))
    photos = config["data"].get("name") == pristine.NAME
    distorts = photos or "distort" in config["data"]
    for section, keys in SECTIONS.items():
        own = ("distort",) if distorts and section == "data" else ()
        only(config[section], section, (*keys, *own))
    if distorts and config["restorer"].get("cached"):
        raise ConfigError("config.restorer.cached True: photos are distorted anew at each step")
    for key in SECTIONS["every"]:
        if config["every"][key] < 1:
            raise ConfigError(f"config.every.{key} {config['every'][key]}: must be at least 1")
    optimiser(config)
    check_data(config["data"])
    known = stages.PARTS[task]
    only({**dict.fromkeys(known), **config["pretrained"]}, "pretrained", tuple(known))
    if "run" in config["restorer"]:
        only(config["restorer"], "restorer", RUN_KEYS)
    else:
        check_restorer(config["restorer"])
    if task == "quality":
        check_views(config)
        check_model(config["model"])
        frozen = config["optim"]["frozen"]
        if "run" in config["restorer"] and not (frozen and re.search(frozen, "restorer/net")):
            raise ConfigError(
                f"config.optim.frozen {frozen!r}: must match the restorer's parameters "
                "('^restorer'): stage 2 does not train them, and weight decay would move them"
            )


def check_views(config: dict) -> None:
    """Stored views are of one size: whatever resizes a picture before comes first in both."""
    keys = ("pp_train", "pp_test")
    first = {
        ops_numpy.head(config["data"][key].format(size=config["data"]["size"]))[0] for key in keys
    }
    if config["restorer"].get("cached") and len(first) > 1:
        raise ConfigError(
            "config.data: pp_train and pp_test must start with the same resize, or none: views "
            "are stored once for both; or set config.restorer.cached False"
        )


def check_data(settings: dict) -> None:
    """The data set's name and both pipelines, without reading anything."""
    call(lambda: data_found(settings), "data", {})
    if settings["parts"] not in splits.WAYS:
        raise ConfigError(f"config.data.parts {settings['parts']!r}: known are {splits.WAYS}")
    if "distort" in settings:
        shown = ("pairs", "test") if settings["name"] == pristine.NAME else ()
        only(settings["distort"], "data.distort", (*DISTORT_KEYS, *shown))
        call(distorting, "data.distort", settings["distort"], task=Task(None, None, None))
    for key in ("pp_train", "pp_test"):
        call(
            lambda pipeline: ops_tf.parse(pipeline),
            f"data.{key}",
            {"pipeline": settings[key].format(size=settings["size"])},
        )


def check_prepared(config: dict, on: str | None = None) -> None:
    """Refuses a data set that neither lies there nor can be made on the spot."""
    folder, name = os.path.expanduser(config["data"]["folder"]), config["data"]["name"]
    if name == pristine.NAME and on:
        raise ConfigError(f"--on {on}: a run on {name} photos restores; it scores no other set")
    for one in () if name == pristine.NAME else (name, *([on] if on else [])):
        call(registry.check, "data", {"name": one, "folder": folder})


def data_found(settings: dict) -> bool:
    """Whether the data is there; raises ValueError where it cannot be made either."""
    folder = os.path.expanduser(settings["folder"])
    if settings["name"] != pristine.NAME:
        return registry.found(settings["name"], folder)
    places = [p for p in (folder, settings.get("distort", {}).get("test")) if p]
    return all(len(Shelf(place).names) > 0 for place in places)


def distorting(task: Task, pairs: int = 0, test: str = "", **settings) -> Task:
    """The task on images that each step distorts; `pairs` and `test` are of evaluation."""
    if not 0 <= pairs <= len(pristine.PAIRS):
        raise ValueError(f"pairs {pairs}: must be 0 (all) to {len(pristine.PAIRS)}")
    return stages.distorting(task, **settings)


def optimiser(config: dict):
    """(update rule, learning rate) of the configuration."""
    other = ("frozen", "accumulate", "average")
    settings = {k: v for k, v in config["optim"].items() if k not in other}
    return call(optim.make, "optim", settings)


def check_restorer(settings: dict) -> None:
    kind = settings.get("kind")
    if kind not in restorers.RESTORERS:
        raise ConfigError(f"config.restorer.kind {kind!r}: known are {sorted(restorers.RESTORERS)}")
    if "net" in settings and kind in NETS:
        call(NETS[kind], "restorer.net", settings["net"], dtype="float32")
    rest = {k: v for k, v in settings.items() if k != "kind"}
    if kind in restorers.FIELDS:
        call(restorers.FIELDS[kind], "restorer", rest)  # by name
    call(restorers.RESTORERS[kind], "restorer", rest)


NETS = {"diffusion": unet.UNet, "autoencoder": vcr.Restoration}
PARTS = {
    "vit": (vit.ViT, {"taps": (0,)}),
    "resnet": (resnet.ResNet, {}),
    "swin": (swin.ScaleSwin, {}),
    "tab": (layers.TransposedAttention, {}),
    "net": (vcr.VCRNet, {}),
}


def check_model(settings: dict) -> None:
    call(quality.QualityModel, "model", settings)
    for name, branch in settings["branches"].items():
        where = f"model.branches.{name}"
        if name not in quality.BRANCHES:
            raise ConfigError(f"config.{where}: known branches are {sorted(quality.BRANCHES)}")
        call(quality.BRANCHES[name], where, branch)
        for part, (module, given) in PARTS.items():
            if branch.get(part):
                call(module, f"{where}.{part}", branch[part], dtype="float32", **given)


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


def check_devices(config: dict, count: int) -> None:
    batch, accumulate = config["data"]["batch"], config["optim"]["accumulate"]
    if accumulate < 1 or batch % (count * accumulate):
        raise ConfigError(
            f"config.data.batch {batch}: must be a multiple of {count} devices x "
            f"optim.accumulate {accumulate}; try {-(-batch // (count * accumulate))}"
            f" x {count * accumulate}"
        )


def _count(tree) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _flops(fn, *args) -> float:
    """Floating point operations of one call, as XLA counts them before optimising."""
    cost = jax.jit(fn).lower(*args).cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost).get("flops", 0.0))


def describe(config: dict, devices: int, found: bool) -> list[str]:
    """What a run of this resolved configuration would be, line by line."""
    task = make_task(config)
    data, size = config["data"], config["data"]["size"]
    frozen = config["optim"]["frozen"]
    weights = shapes(task, size, frozen, config["optim"]["rates"])
    flat, fixed = partition(weights.params, frozen)
    tx, _ = optimiser(config)
    state = jax.eval_shape(lambda w: TrainState.create(w, tx, frozen), weights)
    held = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(state))
    local = data["batch"] // devices // config["optim"]["accumulate"]
    saved, flops = _activations(task, weights, config, local), _forward_flops(config, weights)
    length = f"{config['optim']['steps']} steps x {data['batch']} images"
    lines = [
        f"task          {config['task']}, {length}",
        f"parameters    {_count(flat):,} trained, {_count(fixed):,} frozen",
        *[f"FLOPs         {value / 1e9:.2f} G per image, {what}" for what, value in flops],
        f"memory        {held / 2**20:.0f} MiB state on each of {devices} device(s)"
        f" + about {saved / 2**20:.0f} MiB kept for the backward pass ({local} images at a time)",
        f"data          {data['name']} in {data['folder']}: {'found' if found else 'MISSING'}",
    ]
    if "restorer_from" in config:
        lines.append(f"restorer      {config['restorer_from']}")
    return lines


def _activations(task: Task, weights, config: dict, images: int) -> float:
    """Bytes that differentiation keeps, before the compiler saves any: weights not counted."""
    batch = example(config["data"]["size"])
    restorer = config["restorer"]
    if config["task"] == "quality" and restorer["kind"] != "none":
        shape = (1, restorers.count(**restorer) - 1, *batch["image"].shape[1:])
        batch["views"] = np.zeros(shape, restorer["views_dtype"])
    batch = {k: np.repeat(v, images, axis=0) for k, v in batch.items()}
    trainable, fixed = partition(weights.params, config["optim"]["frozen"])

    def residuals(trainable, fixed, stats):
        loss = lambda t: task.loss(Weights(merge(t, fixed), stats), batch, jax.random.key(0))
        return jax.vjp(loss, trainable, has_aux=True)[1]

    kept = jax.eval_shape(residuals, trainable, fixed, weights.stats)
    size = lambda tree: sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(tree))
    return max(size(kept) - size(weights.params), 0)


def _forward_flops(config: dict, weights) -> list[tuple[str, float]]:
    """Forward passes per image, from the parts without their loops (XLA counts a loop once)."""
    size, restorer = config["data"]["size"], config["restorer"]
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    out = []
    if restorer["kind"] == "diffusion":
        net = unet.UNet(**restorer["net"], dtype=restorer["dtype"])
        params = weights.params if config["task"] == "restoration" else weights.params["restorer"]
        level = jax.ShapeDtypeStruct((1,), jnp.float32)
        condition = image if restorer["conditional"] else None
        denoise = lambda p, c, x, a: net.apply({"params": p}, c, x, a)
        once = _flops(denoise, params, condition, image, level)
        steps = restorer["sampling"]["steps"]
        out += [("denoiser, one step", once), (f"views, {steps} steps", steps * once)]
    if config["task"] == "quality":
        views = restorers.count(**restorer)
        model = quality.QualityModel(**_unblocked(config["model"]))
        of = {"params": weights.params["quality"], "batch_stats": weights.stats.get("quality", {})}
        stack = jax.ShapeDtypeStruct((1, views, size, size, 3), jnp.float32)
        score = lambda w, x: model.apply(w, stages.Views(x))["score"]
        out.append(("branches", _flops(score, of, stack)))
    return out


def _unblocked(model: dict) -> dict:
    """The same model with its channel attention in one piece, for counting."""
    branches = {}
    for name, branch in model["branches"].items():
        tab = {"tab": {**branch["tab"], "block": None}} if branch.get("tab") else {}
        branches[name] = {**branch, **tab}
    return {**model, "branches": branches}
