"""Where weights come from that a run does not train itself: earlier runs, and files of ours."""

import functools
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
            if os.path.isdir(path):
                weights = _of_folder(config, name, path, at)
            else:
                weights = _of_file(config, name, path)
            pretrained.place(like, at, weights)
        except (ValueError, OSError) as error:
            raise ConfigError(f"config.pretrained.{name} {path!r}: {error}") from error
        found[at] = weights
    return found


def _of_folder(config: dict, name: str, folder: str, at: str) -> Weights:
    theirs, weights, _ = judge.saved(folder)
    if theirs["task"] == "restoration":
        return weights
    if name in NORMALISED_BY:
        _check_settings(config, name, _section(theirs, name))
        looks = theirs["model"]["branches"].get(NORMALISED_BY[name], {}).get("normalise")
        if looks:
            mean, std = pixels.MEAN_STD[looks]
            _check_normalisation(config, NORMALISED_BY[name], {"mean": mean, "std": std})
    inside = lambda tree: functools.reduce(lambda part, key: part.get(key, {}), at.split("/"), tree)
    return Weights(inside(weights.params), inside(weights.stats))


def _of_file(config: dict, name: str, path: str) -> Weights:
    weights, card = pretrained.load(path)
    if name in SETTINGS:
        _check_settings(config, name, card["settings"])
    if name in NORMALISED_BY:
        _check_normalisation(config, NORMALISED_BY[name], card["normalise"])
    return weights


def _section(config: dict, name: str) -> dict:
    return functools.reduce(lambda part, key: part.get(key) or {}, SETTINGS[name], config)


def _check_settings(config: dict, name: str, theirs: dict) -> None:
    have, want = configs.flat(theirs), configs.flat(configs.plain(_section(config, name)))
    both = [k for k in have if k in want and k.rpartition(".")[2] not in FREE]
    odd = [f"{k} {have[k]} there, {want[k]} here" for k in both if have[k] != want[k]]
    if odd:
        raise ValueError(f"settings differ: {', '.join(odd[:5])}")


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
