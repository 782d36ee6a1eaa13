"""Trains the stages of a configuration, evaluates and reports.

  python -m diffv2iqa_jax.main --config configs/quickstart.py --workdir runs/quickstart

The same command again resumes, or says that the run is complete. Exit codes: 0 done, 1 our own
error, 2 the configuration or workdir cannot work, 70 the loss is not finite, 75 asked to stop
and saved (run it again to go on).
"""

import logging
import os
import signal
import sys
import threading

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import errors
from diffv2iqa_jax.reporting import write
from diffv2iqa_jax.training import checks, initialize
from diffv2iqa_jax.training.dry_run import describe
from diffv2iqa_jax.training.run import run as run_stage
from diffv2iqa_jax.training.stopping import Preempted

_CONFIG = config_flags.DEFINE_config_file("config", None, "One of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; resumes what is there.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "views", "evaluate"], "What to do.")
_ON = flags.DEFINE_string("on", None, "With --mode evaluate: all of this data set, not the run's.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and stop.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes (a pod, SLURM, ...); JAX finds the others."
)
_CACHE = flags.DEFINE_string(
    "jit_cache", "~/.cache/diffv2iqa_jax/jit", "Folder of compiled programs; '' for none."
)

LOG = logging.getLogger("diffv2iqa_jax")
EXIT_CONFIG, EXIT_NOT_FINITE, EXIT_PREEMPTED = 2, 70, 75


def stages(config: dict, workdir: str) -> list[tuple[dict, str]]:
    """The runs of a configuration in order, each with its folder.

    A configuration with `stages` is several runs; a later one may name an earlier one as its
    `restorer.run`.
    """
    if "stages" not in config:
        return [(config, workdir)]
    folders = {name: os.path.join(workdir, name) for name in config["stages"]}
    found = []
    # A configuration does not keep the order of its keys: what is named comes first.
    needs = lambda item: item[1]["restorer"].get("run") in folders
    for name, stage in sorted(config["stages"].items(), key=needs):
        restorer = stage["restorer"]
        if needs((name, stage)):
            stage = {**stage, "restorer": {**restorer, "run": folders[restorer["run"]]}}
        found.append((stage, folders[name]))
    return found


def dry_run(config: dict, workdir: str) -> None:
    """Prints what each stage would be."""
    for stage, folder in stages(config, workdir):
        checks.check(stage)
        checks.check_devices(stage, jax.device_count())
        print(folder)
        found = checks.data_found(stage["data"])
        for line in describe(_stage1(stage, config), jax.device_count(), found):
            print(f"  {line}")


def _stage1(stage: dict, config: dict) -> dict:
    """The stage with its restorer's settings, from its checkpoint or from this configuration."""
    run = stage["restorer"].get("run")
    if run is None:
        return stage
    if os.path.isdir(os.path.join(run, "checkpoints")) or "stages" not in config:
        return initialize.resolve(stage)[0]
    settings = config["stages"][os.path.basename(run)]["restorer"]
    return {**stage, "restorer": settings}


def stopper():
    """Asks for an orderly end at the first SIGTERM or SIGINT; the second ends at once."""
    asked = threading.Event()

    def handle(number, frame):
        if asked.is_set():
            os._exit(128 + number)
        LOG.warning("stopping after this step; once more stops at once")
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return asked.is_set


def show_progress() -> None:
    """Our own lines go to stderr; of the libraries' only warnings do."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    absl_logging.set_verbosity(absl_logging.WARNING)


def run(argv: list[str]) -> int:
    show_progress()
    if len(argv) > 1:
        raise errors.ConfigError(f"argument {argv[1]!r}: there are only flags, see --help")
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise errors.ConfigError("--config and --workdir must both be given")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(_CACHE.value))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    try:
        config, workdir = configs.plain(_CONFIG.value), _WORKDIR.value
    except OSError as error:
        name = flags.FLAGS["config"].config_filename
        raise errors.ConfigError(f"--config {name}: no such file can be read") from error
    if _DRY_RUN.value:
        dry_run(config, workdir)
        return 0
    if _ON.value and _MODE.value != "evaluate":
        raise errors.ConfigError(f"--on {_ON.value}: goes with --mode evaluate")
    stop = stopper()
    several = "stages" in config
    for stage, _ in stages(config, workdir):
        checks.check(stage)
    if several:
        configs.claim(workdir, config)
    for stage, folder in stages(config, workdir):
        if _ON.value is None or stage["task"] == "quality":
            run_stage(stage, folder, mode=_MODE.value, on=_ON.value, stop=stop)
    if several and _MODE.value != "views" and jax.process_index() == 0:
        LOG.info("report: %s", write.write(workdir))
    return 0


def main(argv: list[str]) -> int:
    try:
        return run(argv)
    except errors.ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except Preempted as error:
        print(f"stopped: {error}; run the same command to go on", file=sys.stderr)
        return EXIT_PREEMPTED
    except FloatingPointError as error:
        print(f"error: not finite, {error}", file=sys.stderr)
        return EXIT_NOT_FINITE


def parse(argv: list[str]) -> list[str]:
    """The flags; what no configuration has is one line, not where it was looked for."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        # A key that is not there arrives as the text of an error within an error.
        text = str(error).replace("\\n", " ").replace("\\'", "'")
        said = text.rstrip().splitlines()[-1 if "Traceback" in text else 0]
        key = said.strip("\"'")
        if key.isidentifier():  # all that is said of a key which nothing there resembles
            said = f"{key!r}: no such key there; configs/README.md lists them"
        print(f"error: {said}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
