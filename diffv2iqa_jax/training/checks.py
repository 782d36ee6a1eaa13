"""Refuses a configuration that cannot work, before anything compiles and without TensorFlow."""

import re

from diffv2iqa_jax import storage
from diffv2iqa_jax.config import call, only, refusing
from diffv2iqa_jax.data import splits
from diffv2iqa_jax.data.sets import catalog
from diffv2iqa_jax.data.sets.catalog import PRISTINE
from diffv2iqa_jax.data.shelf import Shelf
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.models import layers, quality, remat, resnet, swin, unet, vcr, vit
from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.tasks import losses, restorers, stages
from diffv2iqa_jax.training import rules
from diffv2iqa_jax.training.setup import distorting, optimiser
from diffv2iqa_jax.types import Task

SECTIONS = {
    "data": ("name", "folder", "parts", "split", "fractions", "size", "pp_train", "pp_test")
    + ("batch", "cache"),
    "optim": ("name", "lr", "schedule", "period", "warmup", "steps", "weight_decay", "clip")
    + ("rates", "frozen", "accumulate", "remat", "average"),
    "devices": ("map", "fsdp"),
    "every": ("log", "evaluate", "save"),
    "evaluate": ("val_images", "examples", "baselines"),
}
COMMON = ("task", "seed", "data", "pretrained", "optim", "devices", "every")
COMMON += ("evaluate", "keep", "tensorboard")
DISTORT_KEYS = ("types", "clean", "chains", "levels", "group", "subsample")
RUN_KEYS = ("run", "changes", "cached", "folder")
PIPELINES = ("pp_train", "pp_test")

NETS = {"diffusion": unet.UNet, "autoencoder": vcr.Restoration}
# What a branch is made of: its module, and what that needs beside the configuration's settings.
PARTS = {
    "vit": (vit.ViT, {"taps": (0,)}),
    "resnet": (resnet.ResNet, {}),
    "swin": (swin.ScaleSwin, {}),
    "tab": (layers.TransposedAttention, {}),
    "net": (vcr.VCRNet, {}),
}


def check(config: dict) -> None:
    """Refuses a configuration that cannot work. Reads no data and starts no device.

    Raises:
      ConfigError: one line with the key, its value, the rule and the choices.
    """
    task = config.get("task")
    if not isinstance(task, str) or task not in stages.TASKS:
        raise ConfigError(f"config.task {task!r}: known are {sorted(stages.TASKS)}")
    only(config, "", (*COMMON, *stages.SETTINGS[task]))
    _check_sections(config)
    optimiser(config)
    if config["optim"]["remat"] not in remat.KINDS:
        raise ConfigError(
            f"config.optim.remat {config['optim']['remat']!r}: known are {remat.KINDS}"
        )
    _check_expressions(config["optim"])
    check_data(config["data"])
    known = (*stages.PRETRAINED[task], "allow_random")
    only({**dict.fromkeys(known), **config["pretrained"]}, "pretrained", known)
    if "run" in config["restorer"]:
        only(config["restorer"], "restorer", RUN_KEYS)
    else:
        check_restorer(config["restorer"])
    if task == "quality":
        if not isinstance(config["loss"], str) or config["loss"] not in losses.LOSSES:
            known = sorted(losses.LOSSES)
            raise ConfigError(f"config.loss {config['loss']!r}: known are {known}")
        check_views(config)
        check_model(config["model"])
        frozen = config["optim"]["frozen"]
        if "run" in config["restorer"] and not (frozen and re.search(frozen, "restorer/net")):
            raise ConfigError(
                f"config.optim.frozen {frozen!r}: must match the restorer's parameters "
                "('^restorer'): stage 2 does not train them, and weight decay would move them"
            )


def _check_sections(config: dict) -> None:
    """Every section has its keys, and each key a value that it can have."""
    for section in (*SECTIONS, "restorer", "pretrained"):
        if not isinstance(config[section], dict):
            raise ConfigError(f"config.{section} {config[section]!r}: must be a section")
    distorts = config["data"].get("name") == PRISTINE or "distort" in config["data"]
    for section, keys in SECTIONS.items():
        more = ("distort",) if distorts and section == "data" else ()
        only(config[section], section, (*keys, *more))
    if distorts and config["restorer"].get("cached"):
        raise ConfigError("config.restorer.cached True: photos are distorted anew at each step")
    rules.check(config)


def _check_expressions(settings: dict) -> None:
    """Both kinds of regular expressions over the paths of parameters can be read."""
    with refusing("optim.rates"):
        rates = [(expression, float(factor)) for expression, factor in settings["rates"]]
    expressions = [("frozen", settings["frozen"]), *(("rates", text) for text, _ in rates)]
    for key, text in expressions:
        try:
            re.compile(text)
        except (re.error, TypeError) as error:
            raise ConfigError(
                f"config.optim.{key} {text!r}: is no regular expression ({error})"
            ) from error


def _pipeline(settings: dict, key: str) -> str:
    """A pipeline of the section `data`, its size filled in."""
    try:
        return settings[key].format(size=settings["size"])
    except (LookupError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"config.data.{key} {settings[key]!r}: must be op(settings)|op(settings), where only "
            "{size} stands for a number"
        ) from error


def check_views(config: dict) -> None:
    """Stored views can be kept where they shall lie, and are of one size.

    Whatever resizes a picture before comes first in both pipelines.
    """
    storage.check(config["restorer"].get("folder", ""))
    first = {spec.head(_pipeline(config["data"], key))[0] for key in PIPELINES}
    if config["restorer"].get("cached") and len(first) > 1:
        raise ConfigError(
            "config.data: pp_train and pp_test must start with the same resize, or none: views "
            "are stored once for both; or set config.restorer.cached False"
        )


def check_data(settings: dict) -> None:
    """The data set's name and both pipelines; no image is read.

    Raises:
      ConfigError: an unknown name or operation, or settings that do not fit.
    """
    with refusing("data"):
        data_found(settings)
    if settings["parts"] not in splits.WAYS:
        raise ConfigError(f"config.data.parts {settings['parts']!r}: known are {splits.WAYS}")
    if "distort" in settings:
        shown = ("pairs", "test") if settings["name"] == PRISTINE else ()
        only(settings["distort"], "data.distort", (*DISTORT_KEYS, *shown))
        call(distorting, "data.distort", settings["distort"], task=Task(None, None, None))
    for key in PIPELINES:
        with refusing(f"data.{key}"):
            spec.build(_pipeline(settings, key), ops_numpy.OPS)


def check_prepared(config: dict, on: str | None = None) -> None:
    """Refuses a data set that neither lies there nor can be made on the spot."""
    folder, name = storage.expanded(config["data"]["folder"]), config["data"]["name"]
    if name == PRISTINE and on:
        raise ConfigError(f"--on {on}: a run on {name} photos restores; it scores no other set")
    if not folder.strip():  # a path of no letters is the current folder
        what = "your photos" if name == PRISTINE else "prepared data sets"
        raise ConfigError(f"config.data.folder {folder!r}: name the folder of {what}")
    if name != PRISTINE:
        with refusing("data"):
            catalog.check(name, folder)
    if on:
        try:
            catalog.check(on, folder)
        except ValueError as error:
            raise ConfigError(f"--on {on}: {error}") from error


def data_found(settings: dict) -> bool:
    """Whether the data is there; raises ValueError where it cannot be made either."""
    folder = storage.expanded(settings["folder"])
    if settings["name"] != PRISTINE:
        return catalog.found(settings["name"], folder)
    places = [p for p in (folder, settings.get("distort", {}).get("test")) if p]
    return all(len(Shelf(place).names) > 0 for place in places)


def check_restorer(settings: dict) -> None:
    """A restorer's kind, its net's settings and its own."""
    kind = settings.get("kind")
    if kind not in restorers.RESTORERS:
        raise ConfigError(f"config.restorer.kind {kind!r}: known are {sorted(restorers.RESTORERS)}")
    if "net" in settings and kind in NETS:
        call(NETS[kind], "restorer.net", settings["net"], dtype="float32")
    if not isinstance(settings.get("schedule", {}), dict):
        raise ConfigError(f"config.restorer.schedule {settings['schedule']!r}: must be a section")
    others = {k: v for k, v in settings.items() if k != "kind"}
    if kind in restorers.FIELDS:
        call(restorers.FIELDS[kind], "restorer", others)  # names a key that is not there
    call(restorers.RESTORERS[kind], "restorer", others)


def check_model(settings: dict) -> None:
    """The quality model's settings, those of its branches and of what these are made of."""
    call(quality.QualityModel, "model", settings)
    if not isinstance(settings["branches"], dict) or not settings["branches"]:
        known = sorted(quality.BRANCHES)
        raise ConfigError(f"config.model.branches {settings['branches']!r}: name some of {known}")
    for name, branch in settings["branches"].items():
        where = f"model.branches.{name}"
        if name not in quality.BRANCHES:
            raise ConfigError(f"config.{where}: known branches are {sorted(quality.BRANCHES)}")
        call(quality.BRANCHES[name], where, branch)
        for key, (module, more) in PARTS.items():
            if branch.get(key):
                call(module, f"{where}.{key}", branch[key], dtype="float32", **more)
