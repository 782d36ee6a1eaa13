"""One command for each data set and split, printed or run.

  python launch/splits.py --config diffv2iqa:paper --workdir runs/paper --sets livec spaq
  python launch/splits.py --config diffv2iqa:paper --workdir runs/paper \\
      --preset classic-synthetic --jobs 2 -- --config.restorer.run=runs/restore \\
      --config.pretrained.vit=vit.safetensors --config.pretrained.resnet=resnet.safetensors

The first prints ten commands for each set. With --preset, each set that learns gets one run on
all its images, and an evaluation on all of each set it is compared on. What stands after -- goes
to every command. A run that is complete says so and costs seconds: after a crash, the same
command again. Where a command is refused (exit code 2), the others of its data set are not started.
Exit codes: 0 all is done, 1 a command failed, 2 one was refused.
`python -m diffv2iqa_jax.report --tables WORKDIR` makes the tables.
"""

import argparse
import concurrent.futures
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from diffv2iqa_jax import config as configs  # noqa: E402
from diffv2iqa_jax.errors import ConfigError  # noqa: E402

PRESETS = {  # learned on -> tested on
    "classic-synthetic": {
        "live": ("csiq", "tid2013"),
        "csiq": ("live", "tid2013"),
        "tid2013": ("live", "csiq"),
        "kadid10k": ("live", "csiq", "tid2013"),
    },
    "classic-authentic": {
        "livec": ("koniq10k",),
        "koniq10k": ("livec",),
        "flive": ("koniq10k", "livec"),
    },
    "koniq-only": {
        "koniq10k": ("livec", "tid2013", "spaq@512", "flive", "kadid10k", "csiq", "pipal")
    },
    "kadid-only": {"kadid10k": ("live", "csiq", "tid2013", "koniq10k", "livec")},
}
REFUSED = 2  # exit code of a configuration or a data set that cannot work


class Chain(NamedTuple):
    """Commands that follow one another, on one data set."""

    name: str
    commands: list[list[str]]


def stages(config: str) -> list[str]:
    """Prefixes of the data sections in a configuration: one, or one for each of its stages.

    Raises:
      ConfigError: there is no such configuration, or it cannot be read.
    """
    settings = configs.load(config)
    return [f"stages.{name}." for name in settings.stages] if "stages" in settings else [""]


def chains(o: argparse.Namespace, prefixes: list[str]) -> list[Chain]:
    """All there is to run: chains are independent of one another."""

    def command(folder: str, **data: object) -> list[str]:
        flags = [f"--config.{p}data.{k}={v}" for p in prefixes for k, v in data.items()]
        base = [sys.executable, "-m", "diffv2iqa_jax.main", "--config", o.config]
        return [*base, "--workdir", str(Path(o.workdir, folder)), *flags, *o.more]

    every = []
    for name in o.sets:
        for split in range(o.splits):
            data = {"name": name, "parts": o.parts, "split": split, "fractions": o.fractions}
            every.append(Chain(name, [command(f"{_plain(name)}/split-{split}", **data)]))
    for name, others in PRESETS[o.preset].items() if o.preset else ():
        train = command(f"{_plain(name)}/all", name=name, parts="all")
        tests = [[*train, "--mode", "evaluate", "--on", other] for other in others]
        every.append(Chain(name, [train, *tests]))
    return every


def run(all_chains: list[Chain], jobs: int, logs: Path) -> list[int]:
    """Runs `jobs` chains at a time; returns the exit code of each.

    A chain ends where a command fails. Where one is refused, the chains of its data set that have
    not begun are left out: they would be refused too. The others go on.
    """
    logs.mkdir(parents=True, exist_ok=True)
    refused: dict[str, str] = {}  # data set -> the log that says why

    def one(numbered: tuple[int, Chain]) -> int:
        number, chain = numbered
        if why := refused.get(chain.name):
            print(f"{chain.name}: not started, as one was refused, see {why}", flush=True)
            return REFUSED
        with open(logs / f"{number:04d}.log", "a") as log:
            for command in chain.commands:
                log.write(f"$ {shlex.join(command)}\n")
                log.flush()
                if code := subprocess.run(command, stdout=log, stderr=log).returncode:
                    print(f"exit code {code}, see {log.name}: {shlex.join(command)}", flush=True)
                    if code == REFUSED:
                        refused.setdefault(chain.name, log.name)
                    return code
        return 0

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, enumerate(all_chains)))


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and `stages` of the configuration; what is wrong ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="launch/splits.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="NAME[:ROW] or FILE.py[:ROW], as of main")
    parser.add_argument("--workdir", required=True, help="the method's folder; runs lie below")
    parser.add_argument("--sets", nargs="*", default=[], help="prepared data sets")
    parser.add_argument("--splits", type=int, default=10, help="0 to this number less one")
    parser.add_argument("--fractions", default="(0.6, 0.2, 0.2)", help="as data.fractions")
    parser.add_argument("--parts", default="reference", help="as data.parts")
    parser.add_argument("--preset", choices=PRESETS, help="runs across data sets")
    parser.add_argument("--jobs", type=int, help="run them, so many at a time")
    argv = sys.argv[1:] if argv is None else argv
    cut = argv.index("--") if "--" in argv else len(argv)
    o = parser.parse_args(argv[:cut])
    o.more = argv[cut + 1 :]
    if not o.sets and not o.preset:
        parser.error("nothing to do: give --sets or --preset")
    if o.splits < 1 or (o.jobs is not None and o.jobs < 1):
        parser.error("--splits and --jobs must be at least 1")
    try:
        return o, stages(o.config)
    except ConfigError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, 2 where a command was refused, or 1 where one failed."""
    o, prefixes = parse(argv)
    every = chains(o, prefixes)
    if o.jobs is None:
        for command in (command for chain in every for command in chain.commands):
            print(shlex.join(["python", *command[1:]]))
        return 0
    codes = run(every, o.jobs, Path(o.workdir, "logs"))
    print(f"{codes.count(0)} of {len(codes)} chains complete")
    return REFUSED if REFUSED in codes else int(any(codes))


def _plain(name: str) -> str:
    return name.replace("/", "-").replace("@", "_")


if __name__ == "__main__":
    sys.exit(main())
