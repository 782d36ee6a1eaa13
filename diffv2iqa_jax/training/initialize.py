"""Initial weights: what a run takes from earlier runs and from converted files."""

import copy
import functools
import os
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.errors import ConfigError, one_line
from diffv2iqa_jax.models import quality
from diffv2iqa_jax.tasks import stages
from diffv2iqa_jax.training import checks, saved
from diffv2iqa_jax.types import Weights
from diffv2iqa_jax.weights import files

# The settings that a file's card must agree with, and the branch that normalises its input.
SETTINGS = {
    "restorer": ("restorer", "net"),
    "model": ("model",),
    "guidance": ("model", "branches", "guidance"),
    "difference": ("model", "branches", "difference"),
    "vit": ("model", "branches", "guidance", "vit"),
    "resnet": ("model", "branches", "difference", "resnet"),
    "vcrnet": ("model", "branches", "vcrnet", "net"),
}
NORMALISED_BY = {"vit": "guidance", "resnet": "difference"}
BRANCHES = ("guidance", "difference")
BACKBONES = ("vit", "resnet", "vcrnet")
# Settings allowed to differ from the file's; shapes are still checked.
FREE = ("taps", "final", "classes", "depth", "blocks", "norm", "w2")
FREE += ("dropout", "drop_path", "block")
VIEWS = ("select", "compare", "noise_width")  # which views a branch looks at


def resolve(
    config: dict[str, Any], earlier: dict[str, Any] | None = None
) -> tuple[dict[str, Any], Weights | None]:
    """Puts the settings of the stage-1 run that `restorer.run` names into the configuration.

    Args:
      earlier: the configuration of that run where it is yet to run.

    Returns:
      The resolved configuration, and that run's restorer weights (None: it names no run, or one
      that is yet to run).

    Raises:
      ConfigError: there is no such run, it is none of stage 1, or the changes do not fit it.
    """
    reference = config["restorer"]
    if "run" not in reference:
        return config, None
    run = reference["run"]
    where = f"config.restorer.run {run!r}"
    if not run.strip():  # a path of no letters is the current folder
        raise ConfigError(f"{where}: name the workdir of a stage-1 run, --config.restorer.run=DIR")
    if earlier is not None:
        settings = _changed(earlier, reference["changes"], where)
        return {**config, "restorer": settings}, None
    try:
        stage1, weights, step = saved.load(run)
    except (OSError, ValueError, KeyError) as error:
        stages_of = os.path.join(run, "restore", "checkpoints")
        inside = storage.exists(stages_of) and f"; it holds stages: name {run}/restore"
        text = one_line(error)
        raise ConfigError(f"{where}: {text}{inside or ''}") from error
    settings = _changed(stage1, reference["changes"], where)
    data = {k: stage1["data"].get(k) for k in ("name", "parts", "split", "fractions")}
    # `cached` says whether views are of whole images or of crops: a scorer has to know.
    origin = {"run": run, "step": step, "cached": reference["cached"], "data": data}
    return {**config, "restorer": settings, "restorer_from": origin}, weights


def _changed(stage1: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of stage 1's restorer, with the changes of stage 2."""
    if stage1["task"] != "restoration":
        raise ConfigError(f"{where}: is a {stage1['task']} run; name one of stage 1")
    with configs.refusing("restorer.changes"):
        settings = configs.override(copy.deepcopy(stage1["restorer"]), configs.flat(changes))
    checks.check_restorer(settings)
    return settings


def backbones(
    config: dict[str, Any], shapes: Weights, places: Iterable[str], *, begins: bool
) -> str:
    """Says of each backbone where its weights come from, and whether they are trained.

    Args:
      config: resolved.
      shapes: of the task's weights.
      places: paths in them that start from saved weights; "" is the whole.
      begins: whether the run has no checkpoint yet, from which it would go on.

    Returns:
      One line, "" where there is no backbone.

    Raises:
      ConfigError: what a new run freezes would stay random, and that was not asked for.
    """
    paths = list(flatten_dict(shapes.params, sep="/"))
    frozen = config["optim"]["frozen"]
    given = [path for path in paths if any(f"{path}/".startswith(_folder(p)) for p in places)]
    stuck = [p for p in paths if frozen and re.search(frozen, p) and p not in set(given)]
    names = {name: stages.PRETRAINED[config["task"]].get(name) for name in BACKBONES}
    names = {name: at for name, at in names.items() if at}
    said = []
    for name, at in names.items():
        own = [path for path in paths if path.startswith(f"{at}/")]
        if own:
            held = sum(bool(frozen and re.search(frozen, path)) for path in own)
            how = "frozen" if held == len(own) else "partly frozen" if held else "trained"
            said.append(f"{name}: {'pretrained' if set(own) & set(given) else 'random'}, {how}")
    if begins and stuck and not config["pretrained"].get("allow_random", False):
        lost = [n for n, at in names.items() if any(p.startswith(f"{at}/") for p in stuck)]
        what = lost or sorted({path.rpartition("/")[0] for path in stuck})[:3]
        keys = " and ".join(f"--config.pretrained.{name}=FILE" for name in lost)
        raise ConfigError(
            f"config.optim.frozen {frozen!r}: {', '.join(what)}: random, frozen, so nothing would "
            f"ever train it; give {keys or 'weights to start from'}, or, if that is meant, "
            "--config.pretrained.allow_random=True"
        )
    return "; ".join(said)


def _folder(place: str) -> str:
    """Begins the paths of all that lies at a place, with a slash behind it; "" for the whole."""
    return f"{place}/" if place else ""


def pretrained(config: dict[str, Any], shapes: Weights) -> dict[str, Weights]:
    """Reads the weights that `config.pretrained` names, by their path in the task's weights.

    Args:
      config: resolved. Each of `pretrained` is a file that `convert` wrote, the folder of a run,
        or "" for none; a branch comes from the folder of a run that looks at the image alone.
      shapes: of the task's weights.

    Raises:
      ConfigError: a path that holds no weights, or weights that do not fit this model.
    """
    weights_at = {}
    for name, source in config["pretrained"].items():
        if name == "allow_random":
            continue
        at = stages.PRETRAINED[config["task"]][name]
        if not source:
            continue
        try:
            if name in BRANCHES:
                read = _branch(config, name, source, at, shapes)
            elif storage.path(source).is_dir():
                read = {at: _of_folder(config, name, source, at)}
            else:
                read = {at: _of_file(config, name, source)}
            for path, weights in read.items():
                files.place(shapes, path, weights)
        except (ValueError, OSError, KeyError) as error:
            text = one_line(error)
            raise ConfigError(f"config.pretrained.{name} {source!r}: {text}") from error
        weights_at |= read
    return weights_at


def _branch(config: dict, name: str, folder: str, at: str, shapes: Weights) -> dict[str, Weights]:
    """The modules of a branch that looked at the image alone, by their paths.

    Modules that only this run's branch has (noise embedding, attention over differences) are left
    out and start at random. The features of further views enter the guidance branch's first
    convolution by rows of zeros, so that its first output is what it was. Scores are divided by
    the number of branches (and by w2), so that the first sum is the mean of the branches' scores.

    Raises:
      ValueError: there is no such branch, it looked at other views too, or it is another net.
    """
    if not storage.path(folder).is_dir():
        raise ValueError("a branch comes from a run: name its folder")
    theirs, weights, _ = saved.load(folder)
    branch, here = _section(theirs, name), _section(config, name)
    if not branch:
        raise ValueError(f"is a run without a {name} branch")
    first, *others = branch.get("select") or [()]
    if any(others) or branch.get("noise_width") or branch.get("compare"):
        raise ValueError("looked at other views too; pretrained.model takes such a run as a whole")
    _check_settings(config, name, branch, free=FREE + VIEWS)
    if here.get("select") and list(here["select"][0]) != list(first):
        raise ValueError(f"ViT blocks of the image {first} there, {here['select'][0]} here")
    params, stats = (_inside(tree, at) for tree in (weights.params, weights.stats))
    if "conv1_0" in params:
        wide = _inside(shapes.params, f"{at}/conv1_0")
        params = {**params, "conv1_0": _widened(params["conv1_0"], wide)}
    share = 1 / len(config["model"]["branches"]) / _weight(config["model"], name)
    head = params["head"]  # its scores end in a ReLU or in nothing: a factor passes through
    scores = jax.tree.map(lambda x: share * x, head["score_1"])
    params = {**params, "head": {**head, "score_1": scores}}
    return {f"{at}/{k}": Weights(x, stats.get(k, {})) for k, x in params.items()}


def _widened(conv: dict, like: dict) -> dict:
    """The convolution, with rows of zeros for the input channels that only `like` has."""
    more = like["kernel"].shape[0] - conv["kernel"].shape[0] if like else 0
    return {**conv, "kernel": np.pad(conv["kernel"], ((0, max(more, 0)), (0, 0)))}


def _weight(model: dict, name: str) -> float:
    """What the branch's score is multiplied by at first."""
    w2 = 1.0 if model["w2"] == "learned" else model["w2"]
    weight = quality.weight_of(name, model["branches"], w2)
    if not weight:
        raise ValueError(f"model.w2 {weight}: the branch has no say, whatever it starts from")
    return weight


def _of_folder(config: dict, name: str, folder: str, at: str) -> Weights:
    theirs, weights, _ = saved.load(folder)
    if name in SETTINGS:
        _check_settings(config, name, _section(theirs, name))
    if theirs["task"] == "restoration":
        return weights
    if name in NORMALISED_BY:
        looks = theirs["model"]["branches"].get(NORMALISED_BY[name], {}).get("normalise")
        if looks:
            mean, std = pixels.MEAN_STD[looks]
            _check_normalisation(config, NORMALISED_BY[name], {"mean": mean, "std": std})
    return Weights(_inside(weights.params, at), _inside(weights.stats, at))


def _inside(tree: dict, at: str) -> dict:
    return functools.reduce(lambda part, key: part.get(key, {}), at.split("/"), tree)


def _of_file(config: dict, name: str, path: str) -> Weights:
    weights, card = files.load(path)
    if name in SETTINGS:
        _check_settings(config, name, card["settings"])
    if name in NORMALISED_BY:
        _check_normalisation(config, NORMALISED_BY[name], card["normalise"])
    return weights


def _section(config: dict, name: str) -> dict:
    return functools.reduce(lambda part, key: part.get(key) or {}, SETTINGS[name], config)


def _check_settings(config: dict, name: str, theirs: dict, free: tuple = FREE) -> None:
    there, here = configs.flat(theirs), configs.flat(configs.plain(_section(config, name)))
    compared = [k for k in there if k in here and k.rpartition(".")[2] not in free]
    changed = [f"{k} {there[k]} there, {here[k]} here" for k in compared if there[k] != here[k]]
    if changed:
        raise ValueError(f"settings differ: {', '.join(changed[:5])}")


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
