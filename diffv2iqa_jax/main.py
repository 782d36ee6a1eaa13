"""Trains the stages of a configuration, evaluates and reports.

  python -m diffv2iqa_jax.main --config quickstart --workdir runs/quickstart

--config is a packaged configuration or the path of a file, each with ":ROW" where it has rows. The
same command again resumes, or says that the run is complete. Exit codes: 0 done, 1 our own
error, 2 the configuration or workdir cannot work, 70 the loss is not finite, 71 one of several
processes failed or was lost, 75 asked to stop and saved (run it again to go on).
"""

# Nothing here imports JAX or TensorFlow before the flags and the configuration are known to work:
# a wrong key is answered at once. What checks values imports JAX, what trains TensorFlow too.
import errno
import logging
import os
import re
import signal
import sys
import traceback
from types import FrameType
from typing import TYPE_CHECKING

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import errors, storage

if TYPE_CHECKING:
    from diffv2iqa_jax.training.stopping import Stop

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
_CACHE = flags.DEFINE_string(
    "jit_cache", "~/.cache/diffv2iqa_jax/jit", "Folder of compiled programs; '' for none."
)

LOG = logging.getLogger("diffv2iqa_jax")
JOINING = ("distributed", "coordinator", "num_processes", "process_id")  # flags


def define_joining(values: flags.FlagValues) -> None:
    """Defines the flags of JOINING, which connect this process with others."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "One of several processes (a pod, SLURM, ...); JAX finds the others.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where JAX does not find the others.",
        flag_values=values,
    )
    several = (("num_processes", "how many."), ("process_id", "which one, from 0."))
    for name, what in several:
        flags.DEFINE_integer(name, None, f"With --coordinator: {what}", flag_values=values)


define_joining(flags.FLAGS)


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
        return flags.FLAGS(["--help" if word == "-h" else word for word in argv])
    except SystemExit as left:  # after --help, where absl leaves with 1
        sys.exit(0 if left.code == 1 else left.code)
    except (flags.Error, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        # absl wraps what a parser raises into an error that names the flag once more.
        refusal = error.__context__ if isinstance(error.__context__, errors.ConfigError) else error
        sys.exit(_refuse(" ".join(str(refusal).split()), errors.EXIT_CONFIG, _joining(argv)))


def _joining(argv: list[str]) -> dict:
    """The flags that connect this process with others, where another flag cannot be read."""
    values = flags.FlagValues()
    define_joining(values)
    own = [a for a in argv[1:] if a.lstrip("-").partition("=")[0] in JOINING or a[:1] != "-"]
    try:
        values([argv[0], *own], known_only=True)
    except flags.Error:  # it is one of these
        return {}
    return {name: values[name].value for name in JOINING}


def _refuse(message: str, code: int, joining: dict | None = None) -> int:
    """Says in one line why this process ends, to the user and to the other processes."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    if joining:
        try:
            _join(joining)
        except errors.ConfigError:
            return code
    if "diffv2iqa_jax.training.processes" in sys.modules:
        sys.modules["diffv2iqa_jax.training.processes"].fail(message, code)
    return code


def _join(joining: dict) -> None:
    """Connects the processes of this run, if the flags say that it has several."""
    if all(value in (None, False) for value in joining.values()):
        return
    from diffv2iqa_jax.training import processes

    processes.start(*(joining[name] for name in JOINING[1:]), automatic=joining["distributed"])


def check(config: dict) -> None:
    """Refuses flags and values that cannot work, without importing TensorFlow.

    Raises:
      ConfigError: one line with the key, its value, the rule and the choices.
    """
    from diffv2iqa_jax.training import chain, profiling

    chain.check(config, _ON.value)
    runs = chain.stages(config, "")
    if _MODE.value == "views" and not any(run["restorer"].get("cached") for run, _ in runs):
        raise errors.ConfigError(
            "--mode views: this run stores no views; set config.restorer.cached, or train it"
        )
    profiling.check(_PROFILE.value)


def dry_run(config: dict, workdir: str) -> None:
    """Prints what each stage would be, and refuses what a run would be refused for."""
    import jax

    from diffv2iqa_jax.training import chain, opening, topology
    from diffv2iqa_jax.training.dry_run import describe

    chips = topology.chips(_TOPOLOGY.value) if _TOPOLOGY.value else []
    how = {"mode": _MODE.value, "on": _ON.value, "build": False, "chips": len(chips)}
    for opened in chain.open_all(config, workdir, kept=opening.Kept(), **how):
        print(opened.out)
        for line in describe(opened, len(chips) or jax.device_count()):
            print(f"  {line}")
        for line in topology.report(opened.resolved, chips) if chips else []:
            print(f"  {line}")


def train(config: dict, workdir: str) -> int:
    """Runs the stages and reports on them; returns the exit code."""
    from diffv2iqa_jax.reporting import write
    from diffv2iqa_jax.training import chain, opening, processes
    from diffv2iqa_jax.training.run import run as run_stage
    from diffv2iqa_jax.training.stopping import Preempted

    stop, kept = stopper(), opening.Kept()
    several = "stages" in config
    if several:  # a folder of a run that cannot be is in the way
        chain.open_all(config, workdir, mode=_MODE.value, on=_ON.value, kept=kept)
        processes.barrier("opened stages")
        processes.first(lambda: configs.claim(workdir, config))
    try:
        for stage, folder in chain.stages(config, workdir):
            if _ON.value is None or stage["task"] == "quality":
                how = {"mode": _MODE.value, "on": _ON.value, "profile": _PROFILE.value}
                results = run_stage(stage, folder, stop=stop, kept=kept, **how)
                say_results(results, opening.folder_of(folder, _ON.value))
    except Preempted as error:
        print(f"stopped: {error}; run the same command to go on", file=sys.stderr, flush=True)
        processes.end()
        return errors.EXIT_PREEMPTED
    if several and _MODE.value != "views" and processes.index() == 0:
        print(f"report: {write.write(workdir)}", flush=True)
    processes.end()
    return 0


def say_results(results: dict, folder: str) -> None:
    """Prints what a stage came to, and where its report lies; the first process does."""
    from diffv2iqa_jax.evaluation import predictions
    from diffv2iqa_jax.training import processes

    if not results or processes.index():
        return
    headline = predictions.headline(results)
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in headline.items())
    print(f"{folder}: {numbers or 'no test part'}, {results['images']} images", flush=True)
    page = os.path.join(folder, "report.html")
    if storage.exists(page):
        print(f"report: {page}", flush=True)


def stopper() -> "Stop":
    """Asks for an orderly end at the first SIGTERM or SIGINT; the second ends at once."""
    from diffv2iqa_jax.training.stopping import Stop

    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.asked():
            os._exit(128 + number)
        LOG.warning("stopping after this step; once more stops at once")
        stop.ask()

    # After `_join`, since JAX puts a handler of its own, which knows SIGTERM alone.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def show_progress() -> None:
    """Our own lines go to stderr; of the libraries' only warnings do."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    absl_logging.set_verbosity(absl_logging.WARNING)
    for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not so: that an array did not fit on the disk. Orbax says it of each; we say it once."""
    error = record.exc_info[1] if record.exc_info else None
    text = f"{record.getMessage()} {error}"
    return "RESOURCE_EXHAUSTED" not in text and os.strerror(errno.ENOSPC) not in text


def start_jax() -> None:
    """Where compiled programs are kept."""
    import jax

    if cache := _CACHE.value and storage.cache(_CACHE.value):
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run(argv: list[str]) -> int:
    """Checks everything, cheapest first, then does what the flags ask; returns the exit code.

    Raises:
      ConfigError: the flags, the configuration or the workdir cannot work.
      FloatingPointError: the loss is not finite.
    """
    show_progress()
    _join({name: flags.FLAGS[name].value for name in JOINING})
    if len(argv) > 1:
        raise errors.ConfigError(f"argument {argv[1]!r}: there are only flags, see --help")
    if _CONFIG.value is None or not _WORKDIR.value:
        raise errors.ConfigError("--config and --workdir must both be given")
    if _ON.value and _MODE.value != "evaluate":
        raise errors.ConfigError(f"--on {_ON.value}: goes with --mode evaluate")
    if _PROFILE.value is not None and _MODE.value != "train":
        raise errors.ConfigError(f"--profile {_PROFILE.value}: goes with --mode train")
    if _TOPOLOGY.value and not _DRY_RUN.value:
        raise errors.ConfigError(f"--topology {_TOPOLOGY.value}: goes with --dry_run")
    config, workdir = configs.plain(_CONFIG.value), storage.expanded(_WORKDIR.value)
    storage.check(workdir)
    check(config)
    start_jax()
    if _DRY_RUN.value:
        dry_run(config, workdir)
        return 0
    _agree(config, workdir)
    return train(config, workdir)


def _agree(config: dict, workdir: str) -> None:
    """Refuses processes that would not do the same. Raises ConfigError."""
    from diffv2iqa_jax.training import logs, processes

    facts = {name: flags.FLAGS[name].value for name in ("workdir", "mode", "on", "profile")}
    processes.agree("flags", facts)
    processes.agree("configuration", config)
    processes.agree("versions", logs.versions())
    processes.same_storage(workdir)


def main(argv: list[str]) -> int:
    """Returns the exit code of the command; what is refused is one line on stderr."""
    try:
        return run(argv)
    except errors.ConfigError as error:
        return _refuse(str(error), errors.EXIT_CONFIG)
    except FloatingPointError as error:
        return _refuse(f"not finite, {error}", errors.EXIT_NOT_FINITE)
    except OSError as error:
        if error.errno not in errors.STORAGE:
            return _crashed(error)
        code = _refuse(errors.one_line(error), errors.EXIT_CONFIG)
        if error.errno == errno.ENOSPC:  # else Orbax's unfinished writes all complain at the end
            sys.stdout.flush()
            os._exit(code)
        return code
    except Exception as error:
        return _crashed(error)


def _crashed(error: Exception) -> int:
    """Our own error, or what this process sees of another one's end."""
    processes = sys.modules.get("diffv2iqa_jax.training.processes")
    if processes is None or processes.count() == 1:
        raise error
    text = processes.said_by(error)
    if text is None:
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {error}"
    return _refuse(text, errors.EXIT_LOST)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
