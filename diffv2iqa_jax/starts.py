"""Where weights come from that a run does not train itself: earlier runs, and files of ours."""

import os

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import judge, pixels, plan, tasks
from diffv2iqa_jax.config import ConfigError
from diffv2iqa_jax.training import pretrained
from diffv2iqa_jax.types import Weights

# The settings that a file's card must agree with, and the branch that normalises its input.
SETTINGS = {
    "restorer": ("restorer", "net"),
    "model": ("model",),
    "vit": ("model", "branches", "guidance", "vit"),
    "resnet": ("model", "branches", "difference", "resnet"),
    "vcrnet": ("model", "branches", "vcrnet", "net"),
}
NORMALISED_BY = {"vit": "guidance", "resnet": "difference"}
# Of these a user may take less or other than the file has: shapes are compared all the same.
FREE = ("taps", "final", "classes", "depth", "blocks", "norm", "w2")


def resolve(config: dict) -> tuple[dict, Weights | None]:
    """Puts the settings of the stage-1 run that `restorer.run` names into the configuration.

    Returns:
      The resolved configuration, and that run's restorer weights (None: it names no run).
    """
    named = config["restorer"]
    if "run" not in named:
        return config, None
    try:
        stage1, weights, step = judge.saved(named["run"])
    except FileNotFoundError as error:
        raise ConfigError(f"config.restorer.run {named['run']!r}: {error}") from error
    if stage1["task"] != "restoration":
        raise ConfigError(f"config.restorer.run {named['run']!r}: is a {stage1['task']} run")
    settings = configs.override(stage1["restorer"], configs.flat(named["changes"]))
    plan.check_restorer(settings)
    learned = {k: stage1["data"].get(k) for k in ("name", "parts", "split", "fractions")}
    # Whether views are of whole images or of crops: a scorer has to know.
    origin = {"run": named["run"], "step": step, "cached": named["cached"], "data": learned}
    return {**config, "restorer": settings, "restorer_from": origin}, weights


def parts(config: dict, like: Weights) -> dict[str, Weights]:
    """The weights that `config.pretrained` names, by the place in the task's where they belong.

    Args:
      config: resolved. Each of `pretrained` is a file that `convert` wrote, the folder of a run,
        or "" for none.
      like: shapes of the task's weights.

    Raises:
      ConfigError: a path that holds no weights, or weights that do not fit this model.
    """
    found = {}
    for name, path in config["pretrained"].items():
        at = tasks.PARTS[config["task"]][name]
        if not path:
            continue
        try:
            weights = _of_folder(path) if os.path.isdir(path) else _of_file(config, name, path)
            pretrained.place(like, at, weights)
        except (ValueError, OSError) as error:
            raise ConfigError(f"config.pretrained.{name} {path!r}: {error}") from error
        found[at] = weights
    return found


def _of_folder(folder: str) -> Weights:
    config, weights, _ = judge.saved(folder)
    if config["task"] == "restoration":
        return weights
    return Weights(weights.params["quality"], weights.stats["quality"])


def _of_file(config: dict, name: str, path: str) -> Weights:
    weights, card = pretrained.load(path)
    section = config
    for key in SETTINGS.get(name, ()):
        section = section.get(key) or {}
    have, want = configs.flat(card["settings"]), configs.flat(configs.plain(section))
    both = [k for k in have if k in want and k.rpartition(".")[2] not in FREE]
    odd = [f"{k} {have[k]} in the file, {want[k]} here" for k in both if have[k] != want[k]]
    if odd and name in SETTINGS:
        raise ValueError(f"settings differ: {', '.join(odd[:5])}")
    if name in NORMALISED_BY:
        _check_normalisation(config, NORMALISED_BY[name], card["normalise"])
    return weights


def _check_normalisation(config: dict, branch: str, expected: dict) -> None:
    here = config["model"]["branches"].get(branch, {}).get("normalise")
    if here is None:  # there is no such branch: its place will say so
        return
    mean_std = [tuple(expected["mean"]), tuple(expected["std"])]
    fits = [k for k, v in pixels.MEAN_STD.items() if list(v) == mean_std]
    if here not in fits:
        raise ValueError(
            f"expects its input normalised as {fits or expected}, but "
            f"config.model.branches.{branch}.normalise is {here!r}"
        )
