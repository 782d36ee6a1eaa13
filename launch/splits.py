"""One command for each data set and split, printed or run.

  python launch/splits.py --config configs/diffv2iqa.py:paper --workdir runs/paper --sets livec spaq
  python launch/splits.py --config configs/diffv2iqa.py:paper --workdir runs/paper \\
      --preset classic-synthetic --jobs 2 -- --config.restorer.run=runs/restore

The first prints ten commands for each set. With --preset, each set that learns gets one run on
all its images, and an evaluation on all of each set it is compared on. What stands after -- goes
to every command. A run that is complete says so and costs seconds: after a crash, the same
command again. `python -m diffv2iqa_jax.report --tables WORKDIR` makes the tables.
"""

import argparse
import concurrent.futures
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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
Chain = list[list[str]]  # commands that follow one another


def stages(config: str) -> list[str]:
    """Prefixes of the data sections in a configuration: one, or one for each of its stages."""
    file, _, row = config.partition(":")
    sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location("given", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_config(row) if row else module.get_config()
    return [f"stages.{name}." for name in found.stages] if "stages" in found else [""]


def chains(o: argparse.Namespace, prefixes: list[str]) -> list[Chain]:
    """All there is to run: chains are independent of one another."""

    def command(folder: str, **data) -> list[str]:
        flags = [f"--config.{p}data.{k}={v}" for p in prefixes for k, v in data.items()]
        base = [sys.executable, "-m", "diffv2iqa_jax.main", "--config", o.config]
        return [*base, "--workdir", str(Path(o.workdir, folder)), *flags, *o.more]

    found = []
    for name in o.sets:
        for split in range(o.splits):
            own = {"name": name, "parts": o.parts, "split": split, "fractions": o.fractions}
            found.append([command(f"{_plain(name)}/split-{split}", **own)])
    for name, others in PRESETS[o.preset].items() if o.preset else ():
        train = command(f"{_plain(name)}/all", name=name, parts="all")
        tests = [[*train, "--mode", "evaluate", "--on", other] for other in others]
        found.append([train, *tests])
    return found


def run(all_chains: list[Chain], jobs: int, logs: Path) -> int:
    """Runs `jobs` chains at a time; a chain ends where a command fails. Returns how many did."""
    logs.mkdir(parents=True, exist_ok=True)

    def one(numbered: tuple[int, Chain]) -> bool:
        number, chain = numbered
        with open(logs / f"{number:04d}.log", "a") as log:
            for command in chain:
                log.write(f"$ {shlex.join(command)}\n")
                log.flush()
                if code := subprocess.run(command, stdout=log, stderr=log).returncode:
                    print(f"exit code {code}, see {log.name}: {shlex.join(command)}", flush=True)
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return sum(not ok for ok in pool.map(one, enumerate(all_chains)))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch/splits.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="one of configs/, with its row")
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
    if not Path(o.config.partition(":")[0]).is_file():
        parser.error(f"--config {o.config}: there is no such file")
    return o


def main(argv: list[str] | None = None) -> int:
    o = parse(argv)
    found = chains(o, stages(o.config))
    if o.jobs is None:
        for command in (command for chain in found for command in chain):
            print(shlex.join(["python", *command[1:]]))
        return 0
    failed = run(found, o.jobs, Path(o.workdir, "logs"))
    print(f"{len(found) - failed} of {len(found)} chains complete")
    return 1 if failed else 0


def _plain(name: str) -> str:
    return name.replace("/", "-").replace("@", "_")


if __name__ == "__main__":
    sys.exit(main())
