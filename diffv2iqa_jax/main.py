"""Trains the stages of a configuration, evaluates and reports.

  python -m diffv2iqa_jax.main --config quickstart --workdir runs/quickstart

--config is a packaged configuration or the path of a file, each with ":ROW" where it has rows. The
same command again resumes, or says that the run is complete. Exit codes: 0 done, 1 our own
error, 2 the configuration or workdir cannot work, 70 the loss is not finite, 75 asked to stop
and saved (run it again to go on).
"""

# Nothing here imports JAX or TensorFlow before the flags and the configuration are known to work:
# a wrong key is answered at once. What checks values imports JAX, what trains TensorFlow too.
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import errors

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "NAME[:ROW] of a packaged configuration, or FILE.py[:ROW].", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; resumes what is there.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "views", "evaluate"], "What to do.")
_ON = flags.DEFINE_string("on", None, "With --mode evaluate: all of this data set, not the run's.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and stop.")
_PROFILE = flags.DEFINE_string(
    "profile", None, "FIRST:LAST, steps to trace; FIRST:LAST:all traces every process."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "With --dry_run: compile the step for chips not here, as v5e:4x4."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes (a pod, SLURM, ...); JAX finds the others."
)
_CACHE = flags.DEFINE_string(
    "jit_cache", "~/.cache/diffv2iqa_jax/jit", "Folder of compiled programs; '' for none."
)

LOG = logging.getLogger("diffv2iqa_jax")
EXIT_CONFIG, EXIT_NOT_FINITE, EXIT_PREEMPTED = 2, 70, 75


class ConfigParser(flags.ArgumentParser):
    """Reads the value of --config by `config.load`, and refuses overrides of no key there is."""

    def parse(self, text: str) -> ConfigDict:
        """The configuration, locked.

        Raises:
          ConfigError: there is no such configuration, it cannot be read, or an override names
            a key that it does not have.
        """
        config = configs.load(text).lock()
        for argument in sys.argv[1:]:
            override = re.match(r"--?(?:no)?config\.([^=\[]+)", argument)
            if override:
                configs.holder(config, override[1])
        return config

    def flag_type(self) -> str:
        return "configuration"


flags.FLAGS["config"].parser = ConfigParser()


def parse(argv: list[str]) -> list[str]:
    """Reads the flags; what is wrong with them is one line and exit code 2."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        # absl wraps what a parser raises into an error that names the flag once more.
        refusal = error.__context__ if isinstance(error.__context__, errors.ConfigError) else error
        print(f"error: {' '.join(str(refusal).split())}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)


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


def check(config: dict) -> None:
    """Refuses a configuration of which a stage cannot work, without importing TensorFlow.

    Raises:
      ConfigError: one line with the key, its value, the rule and the choices.
    """
    several = config.get("stages", {"": config})
    if not isinstance(several, dict) or not all(isinstance(c, dict) for c in several.values()):
        raise errors.ConfigError("config.stages: must be a section of configurations by name")
    from diffv2iqa_jax.training import checks

    for stage in several.values():
        checks.check(stage)


def check_profile() -> None:
    """Refuses steps to trace that are none. Raises ConfigError."""
    from diffv2iqa_jax.training import profiling

    profiling.check(_PROFILE.value)


def dry_run(config: dict, workdir: str) -> None:
    """Prints what each stage would be."""
    import jax

    from diffv2iqa_jax.training import checks, setup, topology
    from diffv2iqa_jax.training.dry_run import describe

    chips = topology.chips(_TOPOLOGY.value) if _TOPOLOGY.value else []
    count = len(chips) or jax.device_count()
    for stage, folder in stages(config, workdir):
        setup.check_devices(stage, count)
        print(folder)
        is_there = checks.data_found(stage["data"])
        resolved = _with_restorer(stage, config)
        for line in describe(resolved, count, is_there):
            print(f"  {line}")
        for line in topology.report(resolved, chips) if chips else []:
            print(f"  {line}")


def _with_restorer(stage: dict, config: dict) -> dict:
    """The stage with its restorer's settings, from its checkpoint or from this configuration."""
    run = stage["restorer"].get("run")
    if run is None:
        return stage
    if os.path.isdir(os.path.join(run, "checkpoints")) or "stages" not in config:
        from diffv2iqa_jax.training import initialize

        return initialize.resolve(stage)[0]
    settings = config["stages"][os.path.basename(run)]["restorer"]
    return {**stage, "restorer": settings}


def train(config: dict, workdir: str) -> int:
    """Runs the stages and reports on them; returns the exit code."""
    import jax

    from diffv2iqa_jax.reporting import write
    from diffv2iqa_jax.training.run import run as run_stage
    from diffv2iqa_jax.training.stopping import Preempted

    stop = stopper()
    several = "stages" in config
    if several:
        configs.claim(workdir, config)
    try:
        for stage, folder in stages(config, workdir):
            if _ON.value is None or stage["task"] == "quality":
                how = {"mode": _MODE.value, "on": _ON.value, "profile": _PROFILE.value}
                run_stage(stage, folder, stop=stop, **how)
    except Preempted as error:
        print(f"stopped: {error}; run the same command to go on", file=sys.stderr)
        return EXIT_PREEMPTED
    if several and _MODE.value != "views" and jax.process_index() == 0:
        LOG.info("report: %s", write.write(workdir))
    return 0


def stopper() -> Callable[[], bool]:
    """Asks for an orderly end at the first SIGTERM or SIGINT; the second ends at once."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
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


def start_jax() -> None:
    """Where compiled programs are kept, and the other processes of this run."""
    import jax

    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(_CACHE.value))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if _DISTRIBUTED.value:
        jax.distributed.initialize()


def run(argv: list[str]) -> int:
    """Checks everything, cheapest first, then does what the flags ask; returns the exit code.

    Raises:
      ConfigError: the flags, the configuration or the workdir cannot work.
      FloatingPointError: the loss is not finite.
    """
    show_progress()
    if len(argv) > 1:
        raise errors.ConfigError(f"argument {argv[1]!r}: there are only flags, see --help")
    if _CONFIG.value is None or _WORKDIR.value is None:
        raise errors.ConfigError("--config and --workdir must both be given")
    if _ON.value and _MODE.value != "evaluate":
        raise errors.ConfigError(f"--on {_ON.value}: goes with --mode evaluate")
    if _PROFILE.value is not None and _MODE.value != "train":
        raise errors.ConfigError(f"--profile {_PROFILE.value}: goes with --mode train")
    if _TOPOLOGY.value and not _DRY_RUN.value:
        raise errors.ConfigError(f"--topology {_TOPOLOGY.value}: goes with --dry_run")
    config, workdir = configs.plain(_CONFIG.value), _WORKDIR.value
    check(config)
    check_profile()
    start_jax()
    if _DRY_RUN.value:
        dry_run(config, workdir)
        return 0
    return train(config, workdir)


def main(argv: list[str]) -> int:
    """Returns the exit code of the command; what is refused is one line on stderr."""
    try:
        return run(argv)
    except errors.ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except FloatingPointError as error:
        print(f"error: not finite, {error}", file=sys.stderr)
        return EXIT_NOT_FINITE


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
