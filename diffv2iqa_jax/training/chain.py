"""The stages of one configuration: their order, their folders, all of them checked and opened."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import checks

if TYPE_CHECKING:  # it waits for TensorFlow, for which a refusal should not
    from diffv2iqa_jax.training.opening import Kept, Opened

KEY = re.compile(r"(?<![\w/.])config\.(?!json)")  # of a stage, as its own checks name it


def stages(config: dict, workdir: str) -> list[tuple[dict, str]]:
    """The runs of a configuration in order, each with its folder.

    A configuration with `stages` is several runs; a later one may name an earlier one as its
    `restorer.run`.
    """
    if "stages" not in config:
        return [(config, workdir)]
    folders = {name: os.path.join(workdir, name) for name in config["stages"]}

    def builds_on_another(item: tuple[str, dict]) -> bool:
        return item[1]["restorer"].get("run") in folders

    runs = []
    # A configuration does not keep the order of its keys: what is named comes first.
    for name, stage in sorted(config["stages"].items(), key=builds_on_another):
        restorer = stage["restorer"]
        if builds_on_another((name, stage)):
            stage = {**stage, "restorer": {**restorer, "run": folders[restorer["run"]]}}
        runs.append((stage, folders[name]))
    return runs


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Within it, refusals name the keys of this stage as its flags do; "" names no stage."""
    try:
        yield
    except ConfigError as error:
        if not name:
            raise
        raise ConfigError(KEY.sub(f"config.stages.{name}.", str(error))) from error


def check(config: dict, on: str | None = None) -> None:
    """Refuses a configuration of which a stage cannot work, without importing TensorFlow.

    Args:
      on: a data set to evaluate on.

    Raises:
      ConfigError: one line with the key, its value, the rule and the choices.
    """
    several = config.get("stages", {"": config})
    sections = isinstance(several, dict) and all(isinstance(c, dict) for c in several.values())
    if not sections or not several:
        raise ConfigError("config.stages: must be a section of configurations by name")
    if "stages" in config:
        configs.only(config, "", ("stages",))
    for name, stage in several.items():
        with naming(name):
            checks.check(stage)
    if on and all(stage["task"] != "quality" for stage in several.values()):
        raise ConfigError(f"--on {on}: this run restores; it scores no other set")


def open_all(
    config: dict, workdir: str, *, mode: str, on: str | None, kept: "Kept", **how: Any
) -> list["Opened"]:
    """Opens what every stage needs, in order, and so refuses all that a run is refused for.

    Args:
      mode, on: as of `run.run`.
      kept: what the stages share, and the runs that follow.
      how: further arguments of `opening.open_run`.

    Raises:
      ConfigError: a stage cannot work, or the workdir.
    """
    from diffv2iqa_jax.training import opening

    several = "stages" in config
    if several:
        configs.check_workdir(workdir, config)
    runs = stages(config, workdir)
    by_folder = {folder: stage for stage, folder in runs}
    opened = []
    for stage, folder in runs:
        # Of a stage that this command will train there is the configuration alone.
        earlier = by_folder.get(stage["restorer"].get("run")) if mode == "train" else None
        if on is None or stage["task"] == "quality":
            more = {"mode": mode, "on": on, "earlier": earlier, "kept": kept, **how}
            with naming(os.path.basename(folder) if several else ""):
                opened.append(opening.open_run(stage, folder, **more))
    return opened
