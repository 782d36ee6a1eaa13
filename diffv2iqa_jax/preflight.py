"""Says in a minute whether a run on these hosts can work: a line for each check, nothing trained.

  python -m diffv2iqa_jax.preflight --config restore --workdir W
  python -m diffv2iqa_jax.preflight --config restore --workdir W --distributed --devices 16

Takes the flags of `python -m diffv2iqa_jax.main`, overrides as --config.a.b=value too, and is
started as it is: on every host. The first process prints every check, the others what failed.
Exit codes: 0 all is well, 2 what failed must be changed first, 71 another process failed or was
lost.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import EXIT_CONFIG, ConfigError

LEAST_FREE = 2**30  # bytes; a checkpoint of the full U-Net with its optimiser is 1.6 GB
Checks = dict[str, Callable[[argparse.Namespace], str]]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags; `overrides` are pairs of a key and a text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--config", required=True, help="as for main; --config.a.b=value too")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--distributed", action="store_true", help="JAX finds the others")
    parser.add_argument("--coordinator", help="HOST:PORT of the first process")
    parser.add_argument("--num_processes", type=int, help="how many there are")
    parser.add_argument("--process_id", type=int, help="which of them this is, from 0")
    parser.add_argument("--devices", type=int, help="how many there must be on all hosts together")
    o, more = parser.parse_known_args(argv)
    o.overrides = []
    for argument in more:
        override = re.fullmatch(r"--config\.([\w.]+)=(.*)", argument, re.S)
        if not override:
            parser.error(f"unrecognized argument {argument!r}")
        o.overrides.append(override.groups())
    return o


def settings(o: argparse.Namespace) -> dict:
    """The configuration with its overrides, checked.

    Raises:
      ConfigError: it cannot work.
    """
    from diffv2iqa_jax.training import chain

    whole = configs.plain(configs.load(o.config))
    for key, text in o.overrides:
        _override(whole, key, text)
    chain.check(whole)
    return whole


def _override(settings: dict, key: str, text: str) -> None:
    section, name = configs.holder(settings, key)
    value = {"true": True, "false": False}.get(text.lower(), text)
    if not isinstance(section[name], str):
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):  # text in the place of None; else the checks refuse it
            pass
    section[name] = configs.plain({name: value})[name]


def _stages(settings: dict) -> list[dict]:
    return list(settings["stages"].values()) if "stages" in settings else [settings]


def _hosts(o: argparse.Namespace) -> str:
    from diffv2iqa_jax.training import processes

    names = processes.exchange("preflight/hosts", socket.gethostname())
    return f"{len(names)} on {', '.join(sorted(set(names)))}"


def _versions(o: argparse.Namespace) -> str:
    from diffv2iqa_jax.training import logs, processes

    versions = logs.versions()
    processes.agree("versions", versions)
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _configuration(o: argparse.Namespace) -> str:
    from diffv2iqa_jax.training import processes

    keys = configs.flat(o.settings)
    processes.agree("configuration", {key: json.dumps(value) for key, value in keys.items()})
    return f"{o.config}, {len(keys)} keys"


def _data(o: argparse.Namespace) -> str:
    """Opens each data set, reads a first batch; all processes must find the same."""
    from diffv2iqa_jax.training import checks, processes
    from diffv2iqa_jax.training.opening import open_data

    facts = {}
    for stage in _stages(o.settings):
        settings = stage["data"]
        name = f"{settings['name']} in {settings['folder']}"
        checks.check_prepared(stage)
        if name in facts:
            continue
        if not checks.data_found(settings):
            facts[name] = "not there yet, the run makes it"
            continue
        data = open_data(stage, None)
        next(data.train(0))
        names = hashlib.sha256("\n".join(map(str, data.table["name"])).encode())
        counts = f"{len(data.train_ids)} to train, {len(data.test_ids)} to test"
        facts[name] = f"{counts}, names {names.hexdigest()[:8]}"
    processes.agree("data", facts)
    return "; ".join(f"{name}: {fact}" for name, fact in facts.items())


def _workdir(o: argparse.Namespace) -> str:
    from diffv2iqa_jax.training import processes

    processes.same_storage(o.workdir)
    return f"{o.workdir}: written and read by all"


def _disk(o: argparse.Namespace) -> str:
    if storage.is_remote(o.workdir):
        return f"{o.workdir}: no disk of ours"
    place = os.path.abspath(o.workdir)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE:
        raise ConfigError(f"{place}: {free / 2**30:.2f} GiB free; checkpoints need more than 1")
    return f"{place}: {free / 2**30:.0f} GiB free"


def _devices(o: argparse.Namespace) -> str:
    import jax

    from diffv2iqa_jax.training import processes, setup

    count = jax.device_count()
    here = {"kind": jax.devices()[0].device_kind, "on each host": str(jax.local_device_count())}
    processes.agree("devices", here)
    if o.devices not in (None, count):
        raise ConfigError(f"--devices {o.devices}: there are {count}, {here['on each host']} here")
    for stage in _stages(o.settings):
        setup.check_devices(stage, count)
    return f"{count} x {here['kind']}, {here['on each host']} for each process"


def _collective(o: argparse.Namespace) -> str:
    """A sum over one number of each device."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    start, count = time.monotonic(), jax.device_count()
    mesh = jax.make_mesh((count,), ("all",))
    split, whole = (jax.NamedSharding(mesh, jax.P(*axis)) for axis in (("all",), ()))
    ones = jax.make_array_from_callback((count,), split, lambda index: np.ones(1, np.float32))
    total = float(jax.jit(jnp.sum, out_shardings=whole)(ones))
    if total != count:
        raise ConfigError(f"the sum over {count} ones is {total}: the connection is broken")
    return f"a sum over {count} devices in {time.monotonic() - start:.1f} s"


CHECKS: Checks = {
    "processes": _hosts,
    "versions": _versions,
    "configuration": _configuration,
    "workdir": _workdir,
    "disk": _disk,
    "data": _data,
    "devices": _devices,
    "collective": _collective,  # last: it may hang where another check has failed
}


def run(o: argparse.Namespace, checks: Checks) -> int:
    """Every check on every process, in step; returns the exit code."""
    import jax

    from diffv2iqa_jax.training import processes

    failed = False
    for name, check in checks.items():
        if failed and check is _collective:
            break
        text = problem = ""
        try:
            text = check(o)
        except (ConfigError, OSError) as error:
            problem = " ".join(str(error).split()) or type(error).__name__
        problems = processes.exchange(f"preflight/{name} done", problem)
        where = [index for index, one in enumerate(problems) if one]
        if where:
            failed = True
            others = f"process {', '.join(map(str, where))}: {problems[where[0]]}"
            print(f"FAILED  {name:14}{problem or others}", flush=True)
        elif jax.process_index() == 0:
            print(f"ok      {name:14}{text}", flush=True)
    return EXIT_CONFIG if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; what is refused is one line."""
    from diffv2iqa_jax.training import processes

    o = parse(argv)
    try:
        processes.start(o.coordinator, o.num_processes, o.process_id, automatic=o.distributed)
        o.settings, o.workdir = settings(o), storage.expanded(o.workdir)
        code = run(o, CHECKS)
        processes.end()
        return code
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        processes.fail(str(error), EXIT_CONFIG)
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
