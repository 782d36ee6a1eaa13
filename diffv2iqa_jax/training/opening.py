"""Opens all that a run needs, and so refuses all that it would be refused for; writes nothing.

`run.run` does it before it claims its folder, `--dry_run` in the place of running: what the one
refuses the other refuses too, in the same words. The one thing that is made here is a built-in data
set, which lies outside the run's folder, and not for a dry run.
"""

import dataclasses
import json
import os
from typing import Any

import jax
import numpy as np

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import storage
from diffv2iqa_jax.data import pristine, rated, splits
from diffv2iqa_jax.data.interface import Data
from diffv2iqa_jax.data.sets import builtin, catalog
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.training import checks, initialize, logs, processes, setup, view_cache
from diffv2iqa_jax.training.checkpoint import Checkpoints
from diffv2iqa_jax.training.setup import Programs
from diffv2iqa_jax.types import Weights


@dataclasses.dataclass
class Kept:
    """What several runs of one process open once.

    Attributes:
      programs: compiled steps by `setup.key_of`.
      data: opened data by the settings that it depends on.
    """

    programs: dict[str, Programs] = dataclasses.field(default_factory=dict)
    data: dict[str, Data] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Opened:
    """What a run needs.

    Attributes:
      results: of a run that has taken all its steps, which needs nothing more; else None.
      resolved: the configuration, with the settings of its restorer.
      out: the folder of the evaluation.
      stage1: weights of the restorer that `restorer.run` names.
      pretrained: what else it starts from, by their path in the task's weights.
      programs: its steps; None for chips that are not here.
      data: None if a dry run would have to make it.
      backbones: where their weights come from and whether they are trained; "" if there are none.
    """

    results: dict[str, Any] | None
    resolved: dict[str, Any]
    out: str
    stage1: Weights | None = None
    pretrained: dict[str, Weights] = dataclasses.field(default_factory=dict)
    programs: Programs | None = None
    data: Data | None = None
    backbones: str = ""


def open_run(
    config: dict[str, Any],
    workdir: str,
    *,
    mode: str = "train",
    on: str | None = None,
    kept: Kept | None = None,
    earlier: dict[str, Any] | None = None,
    build: bool = True,
    chips: int = 0,
) -> Opened:
    """Opens all that a run needs, cheapest first.

    Args:
      config, workdir, mode, on: as of `run.run`.
      kept: what other runs have opened; used and added to.
      earlier: the configuration of the stage that `restorer.run` names, where it is yet to run.
      build: make a built-in data set that is not there.
      chips: how many devices share a batch, where these are not here; 0: those that are.

    Raises:
      ConfigError: the run cannot work: one line that says what, why and what to do.
    """
    kept = Kept() if kept is None else kept
    checks.check(config)
    configs.check_workdir(workdir, config)
    out = folder_of(workdir, on)
    if mode == "train" and (results := _complete(config, workdir)):
        return Opened(results, config, out)
    begins = not Checkpoints(workdir).steps()
    if mode == "evaluate" and begins:
        raise ConfigError(f"workdir {workdir}: holds no checkpoint to evaluate; train it")
    checks.check_prepared(config, on)
    resolved, stage1 = initialize.resolve(config, earlier)
    if chips:
        setup.check_devices(config, chips)
        programs, shapes = None, setup.shapes_of(resolved)
    else:
        programs = setup.programs(resolved, kept.programs)
        shapes = programs.shapes
    pretrained = initialize.pretrained(resolved, shapes)
    places = [*pretrained, *(["restorer"] if "run" in config["restorer"] else [])]
    backbones = initialize.backbones(resolved, shapes, places, begins=begins)
    data = _data(config, on, kept.data, build)
    _check_references(config, data)
    _check_crops(resolved, data, shapes)
    if stage1 is not None and config["restorer"]["cached"]:
        view_cache.check(resolved, data, stage1, views_folder(config, on, out))
    return Opened(None, resolved, out, stage1, pretrained, programs, data, backbones)


def _complete(config: dict[str, Any], workdir: str) -> dict[str, Any] | None:
    """The results of a run that has taken all its steps; None if it has not."""
    results = logs.finished(workdir)
    if not results or results["step"] < config["optim"]["steps"]:
        return None
    return results


def folder_of(workdir: str, on: str | None) -> str:
    """The folder of the evaluation: the run's own, or one below it for another data set."""
    return workdir if on is None else os.path.join(workdir, "eval", on.replace("/", "-"))


def views_folder(config: dict[str, Any], on: str | None, out: str) -> str:
    """The folder of the views."""
    return (config["restorer"]["folder"] if on is None else "") or os.path.join(out, "views")


def _data(
    config: dict[str, Any], on: str | None, kept: dict[str, Data], build: bool
) -> Data | None:
    """The data of a run, opened once; None if it is not there and shall not be made."""
    folder, name = storage.expanded(config["data"]["folder"]), on or config["data"]["name"]
    if not build and name != pristine.NAME and not catalog.found(name, folder):
        _check_split(config["data"], name)
        return None
    key = json.dumps([config["task"], config["data"], config["evaluate"]["val_images"], on])
    if key not in kept:
        kept[key] = processes.after_the_first(lambda: open_data(config, on))
    return kept[key]


def open_data(config: dict[str, Any], on: str | None) -> Data:
    """The data of a run: a built data set, or photos to distort.

    Raises:
      ConfigError: there are no photos, or too many damaged ones; the set is damaged, or cannot be
        split so; or a set to learn scores from has none.
    """
    settings, val_images = config["data"], config["evaluate"]["val_images"]
    try:
        if settings["name"] == pristine.NAME:
            return pristine.Pristine(
                settings, val_images, (jax.process_index(), jax.process_count())
            )
        data = rated.Rated(settings, val_images, on)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"config.data: {' '.join(str(error).split())}") from error
    if config["task"] == "quality" and on is None and not data.rated:
        raise ConfigError(
            f"config.data.name {data.name!r}: has no opinions to learn from; a pool is for "
            "--mode evaluate --on"
        )
    return data


def _check_split(settings: dict[str, Any], name: str) -> None:
    """Refuses parts that a built-in set, yet to be made, will not have."""
    group = np.array(builtin.groups(name))
    with configs.refusing("data"):
        splits.choose(
            {"group": group}, settings["parts"], settings["split"], tuple(settings["fractions"])
        )


def _check_references(config: dict[str, Any], data: Data | None) -> None:
    """Refuses to restore, or to make anew from originals, what has none."""
    pipelines = " ".join(config["data"][key] for key in checks.PIPELINES)
    needs = config["task"] == "restoration" or "shrink(" in pipelines
    if needs and isinstance(data, rated.Rated) and not data.has_references:
        raise ConfigError(
            f"config.data.name {data.name!r}: has no references, which stage 1 and shrink() need; "
            "name a set that has, or --config pristine for photos"
        )


def _check_crops(resolved: dict[str, Any], data: Data | None, shapes: Weights) -> None:
    """Refuses pipelines that the data or the task cannot take.

    Crops of no fixed size are those of whole pictures: the first batch stands for all.
    """
    settings, stage = resolved["data"], resolved["task"]
    own = "restorer_from" in resolved and resolved["restorer_from"]["cached"]
    texts = {key: settings[key].format(size=settings["size"]) for key in checks.PIPELINES}
    if settings["name"] == pristine.NAME and ops_numpy.makes_several(texts["pp_test"]):
        raise ConfigError(
            f"config.data.pp_test {settings['pp_test']!r}: makes several crops of a photo; take one"
        )
    for key, text in texts.items():
        with configs.refusing(f"data.{key} {settings[key]!r}"):
            shape = crop_shape(text, views=own)
        if stage == "restoration" and key == "pp_test":
            continue  # a restorer fills up whole pictures to what its net takes
        if shape is None and data is not None:
            shape = _first_shape(data, key)
        if shape is None or shape == (settings["size"], settings["size"]):
            continue
        if why := setup.unfit(resolved, shape, shapes):
            raise ConfigError(
                f"config.data.{key} {settings[key]!r}: gives crops of {shape[0]} x {shape[1]}, "
                f"which this model does not take ({why}); end it in crop({{size}}) or the like"
            )


def _first_shape(data: Data, key: str) -> tuple[int, int] | None:
    """Height and width of what the first batch of a pipeline holds; None where there is none."""
    held_out = data.test_ids if len(data.test_ids) else data.val_ids
    batch = next(data.train(0) if key == "pp_train" else data.test(held_out[:1]), {})
    pictures = batch.get("image", batch.get("reference"))
    return None if pictures is None else pictures.shape[1:3]


def crop_shape(pp: str, *, views: bool = False) -> tuple[int, int] | None:
    """Height and width of the crops of a pipeline; None where these depend on the picture.

    Args:
      views: its crops are of stored views too.

    Raises:
      ValueError: an operation that stored views do not go through.
    """
    first, rest = spec.head(pp) if views else ("", pp)
    before = ops_numpy.parse(first, with_reference=True)
    run = ops_numpy.parse(rest, with_reference=True)
    shapes = set()
    for side in ((8, 13), (11, 7)):
        x = np.zeros((*side, 3), np.uint8)
        x = before(x, 0, None, x)[0].image_HWC
        shapes.add(run(x, 0, x[None] if views else None, x)[0].image_HWC.shape[:2])
    return shapes.pop() if len(shapes) == 1 else None
