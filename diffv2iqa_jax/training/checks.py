"""Refuses a configuration that cannot work, before anything compiles."""

import os
import re

from diffv2iqa_jax.config import call, only
from diffv2iqa_jax.data import pristine, splits
from diffv2iqa_jax.data.sets import registry
from diffv2iqa_jax.data.shelf import Shelf
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.models import layers, quality, resnet, swin, unet, vcr, vit
from diffv2iqa_jax.pp import ops_tf, spec
from diffv2iqa_jax.tasks import restorers, stages
from diffv2iqa_jax.training.setup import distorting, optimiser
from diffv2iqa_jax.types import Task

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
    known = stages.PRETRAINED[task]
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
    first = {spec.head(config["data"][key].format(size=config["data"]["size"]))[0] for key in keys}
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


def check_devices(config: dict, count: int) -> None:
    batch, accumulate = config["data"]["batch"], config["optim"]["accumulate"]
    if accumulate < 1 or batch % (count * accumulate):
        raise ConfigError(
            f"config.data.batch {batch}: must be a multiple of {count} devices x "
            f"optim.accumulate {accumulate}; try {-(-batch // (count * accumulate))}"
            f" x {count * accumulate}"
        )
