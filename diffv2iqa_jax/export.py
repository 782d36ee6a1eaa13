"""Writes weights to take elsewhere: python -m diffv2iqa_jax.export WEIGHTS DEST

DEST.safetensors: one file and its card, which `diffv2iqa_jax.load` reads.
DEST, a folder: a StableHLO program (jax.export) for CPUs and CUDA GPUs, its weights beside it,
and load.py, which scores pictures with them and without this package. Exit codes: 0 done, 2
the request is impossible, 5 weights missing or unfit.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import WeightsError, one_line
from diffv2iqa_jax.scoring import predictor as predictors
from diffv2iqa_jax.scoring import program

OK, USAGE, NO_WEIGHTS = 0, 2, 5


def parser() -> argparse.ArgumentParser:
    title, _, rest = __doc__.partition("\n")
    out = argparse.ArgumentParser(prog="export", description=title, epilog=rest)
    out.add_argument("weights", help="'starter', a run's folder or a converted file")
    out.add_argument("dest", help="a new folder, or a file .safetensors")
    out.add_argument("--restorer", help="stage-1 run, for a model that comes without one")
    out.add_argument("--pp", help="another test pipeline than the weights' own: grid(n), center(n)")
    out.add_argument("--by_crops", action="store_true", help="restore each crop by itself")
    out.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="a program of N crops at a time, which an older JAX can run too",
    )
    out.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    out.add_argument("--card", help="JSON file of facts for the card of a .safetensors file")
    return out


def run(o: argparse.Namespace) -> None:
    """Writes what the options ask for.

    Raises:
      WeightsError: there are no such weights, or they cannot be taken elsewhere.
      ValueError, OSError, TypeError: the card cannot be read, or DEST not be written.
    """
    if o.batch is not None and (o.batch < 1 or o.dest.endswith(".safetensors")):
        raise ValueError(f"--batch {o.batch}: must be at least 1, and is for a folder")
    if o.dest.lower().endswith(".safetensors"):
        storage.ending(o.dest, (".safetensors",))
    else:
        storage.check_folder(o.dest)
    facts = json.loads(pathlib.Path(o.card).read_text(encoding="utf-8")) if o.card else {}
    predictor = predictors.load(o.weights, restorer=o.restorer)
    if o.pp is not None:
        protocol = {**predictor.info.protocol, "pp": o.pp}
        info = dataclasses.replace(predictor.info, protocol=protocol)
        predictor = dataclasses.replace(predictor, pp=o.pp, info=info)
    if o.dest.endswith(".safetensors"):
        predictors.pack(predictor, o.dest, dtype=o.dtype, **facts)
    else:
        program.write(predictor, o.dest, by_crops=o.by_crops, batch=o.batch)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; errors are one line on stderr."""
    o = parser().parse_args(argv)
    try:
        run(o)
    except (ValueError, OSError, TypeError) as error:
        print(f"export: {one_line(error)}", file=sys.stderr)
        return NO_WEIGHTS if isinstance(error, WeightsError) else USAGE
    print(f"{o.dest}: written")
    return OK


if __name__ == "__main__":
    sys.exit(main())
