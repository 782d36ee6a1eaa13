"""Writes weights to take elsewhere: python -m diffv2iqa_jax.export WEIGHTS DEST

DEST.safetensors: one file and its card, which `diffv2iqa_jax.load` reads.
DEST, a folder: a StableHLO program (jax.export) for CPUs and CUDA GPUs, its weights beside it,
and load.py, which scores a picture with them and without this package. Exit codes: 0 done, 2
what was asked for cannot be, 5 weights missing or unfit.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from diffv2iqa_jax import pixels
from diffv2iqa_jax.errors import WeightsError
from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.scoring import predictor as judges
from diffv2iqa_jax.scoring.predictor import Judge
from diffv2iqa_jax.weights import files

PLATFORMS = ("cpu", "cuda")
PROGRAM, WEIGHTS, CARD, LOADER = "program.jax", "weights.safetensors", "card.json", "load.py"

OPS = r"\s*(\w+)\((?:size=)?(\d+)\)\s*"
# How load.py cuts a picture that is at least of the crop's size: corners along one axis.
STARTS = {
    "grid": "[i * (n - s) // max(-(-n // s) - 1, 1) for i in range(-(-n // s))]",
    "center": "[(n - s) // 2]",
}
LOAD = '''"""Scores a picture: python load.py PICTURE (needs jax, numpy, pillow and safetensors)."""
import pathlib, sys, zlib
import jax.export, numpy as np
from PIL import Image
from safetensors.numpy import load_file
here, s = pathlib.Path(__file__).parent, {size}
program = jax.export.deserialize(bytearray((here / "{program}").read_bytes()))
x = np.asarray(Image.open(sys.argv[1]).convert("RGB"))
noise = zlib.crc32(x.tobytes())
{looks}
weights = load_file(here / "{weights}")
out = jax.jit(program.call)(weights, crops, np.full(len(crops), noise, np.uint32))
print(float(np.mean(out["score"])))
'''
CUT = """x = np.pad(x, [(0, max(s - n, 0)) for n in x.shape[:2]] + [(0, 0)], "reflect")
starts = lambda n: {starts}
crops = np.stack([x[t : t + s, u : u + s] for t in starts(len(x)) for u in starts(x.shape[1])])"""
# Where the program cuts: all it sees is of one size.
SCALE = """x = jax.image.resize(x.astype(np.float32), (s, s, 3), "cubic")
crops = np.clip(np.rint(x), 0, 255).astype(np.uint8)[None]"""


def program(judge: Judge, size: int, cut: str = "") -> jax.export.Exported:
    """(weights by name, image (b, size, size, 3) uint8, content (b,) uint32) -> scores (b,).

    Args:
      cut: pipeline by which the program cuts its images, after restoring them if the judge
        restores whole ones; their scores are the means over the crops.
    """
    flat = {name: np.asarray(x) for name, x in files.flatten(judge.weights).items()}
    found = ops_numpy.parse(cut)(np.zeros((size, size, 3), np.uint8), 0)
    side, corners = len(found[0].image_HWC), [crop.corner for crop in found]

    def cut_all(x):
        part = lambda t, u: x[..., t : t + side, u : u + side, :] if x.ndim > 1 else x
        return jnp.concatenate([part(*corner) for corner in corners])

    def score(tensors, image, content):
        weights, batch = files.unflatten(tensors), {"image": image, "content": content}
        if cut and judge.whole:
            restored = judge.views(weights, batch).image_BVHWC[:, 1:]
            batch["views"] = pixels.store(restored, judge.stored)
        batch = {k: cut_all(x) for k, x in batch.items()}
        out = judge.score(weights, judge.views(weights, batch))
        mean = lambda x_B: x_B.reshape(len(corners), -1).mean(0)
        return {name: mean(x) for name, x in out.items() if name.startswith("score")}

    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct
    image, content = shape((b, size, size, 3), np.uint8), shape((b,), np.uint32)
    like = {name: shape(x.shape, x.dtype) for name, x in flat.items()}
    return jax.export.export(jax.jit(score), platforms=PLATFORMS)(like, image, content)


def _plan(judge: Judge, by_crops: bool) -> tuple[int, str, str]:
    """Side of what the program sees, its `cut`, and how load.py comes by it."""
    first, rest = spec.head(judge.pp)
    found = re.fullmatch(OPS, rest)
    if not found or found[1] not in STARTS:
        known = ", ".join(f"{name}(n)" for name in STARTS)
        raise WeightsError(
            f"pipeline {judge.pp!r}: load.py knows {known}, with resize(n)| before or not;"
            " name one by --pp"
        )
    if first:
        return int(re.fullmatch(OPS, first)[2]), rest, SCALE
    if judge.whole and not by_crops:
        raise WeightsError(
            f"{judge.info.name}: restores whole pictures, of any shape, which one program cannot;"
            " --by_crops restores each crop by itself, and scores a little otherwise"
        )
    return int(found[2]), "", CUT.format(starts=STARTS[found[1]])


def write(judge: Judge, dest: str, *, by_crops: bool = False) -> None:
    """Writes the folder.

    Args:
      by_crops: restore each crop by itself even where the evaluation restored whole pictures.

    Raises:
      WeightsError: such a program cannot say what the evaluation said.
      FileExistsError: the folder is there, and not empty.
    """
    size, cut, looks = _plan(judge, by_crops)
    judge = judge._replace(whole=judge.whole and not by_crops)
    folder = pathlib.Path(dest)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{dest}: is there and not an empty folder; name a new one")
    data = program(judge, size, cut).serialize()
    text = LOAD.format(size=size, program=PROGRAM, weights=WEIGHTS, looks=looks)
    facts = dataclasses.asdict(judge.info)
    facts["protocol"] |= {"views": "whole" if judge.whole else "crop"} if judge.restores else {}
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    (unfinished / PROGRAM).write_bytes(data)
    tensors = {k: np.ascontiguousarray(x) for k, x in files.flatten(judge.weights).items()}
    safetensors.numpy.save_file(tensors, unfinished / WEIGHTS)
    (unfinished / LOADER).write_text(text)
    (unfinished / CARD).write_text(json.dumps(facts, indent=1, allow_nan=False))
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)


def parser() -> argparse.ArgumentParser:
    first, _, rest = __doc__.partition("\n")
    out = argparse.ArgumentParser(prog="export", description=first, epilog=rest)
    out.add_argument("weights", help="'starter', a run's folder or a converted file")
    out.add_argument("dest", help="a new folder, or a file .safetensors")
    out.add_argument("--restorer", help="stage-1 run, for a model that comes without one")
    out.add_argument("--pp", help="another test pipeline than the weights' own: grid(n), center(n)")
    out.add_argument("--by_crops", action="store_true", help="restore each crop by itself")
    out.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    out.add_argument("--card", help="JSON file of facts for the card of a .safetensors file")
    return out


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status; errors are one line on stderr."""
    o = parser().parse_args(argv)
    try:
        facts = json.loads(pathlib.Path(o.card).read_text(encoding="utf-8")) if o.card else {}
        judge = judges.load(o.weights, restorer=o.restorer)
        if o.pp is not None:
            protocol = {**judge.info.protocol, "pp": o.pp}
            info = dataclasses.replace(judge.info, protocol=protocol)
            judge = judge._replace(pp=o.pp, info=info)
        if o.dest.endswith(".safetensors"):
            judges.pack(judge, o.dest, dtype=o.dtype, **facts)
        else:
            write(judge, o.dest, by_crops=o.by_crops)
    except (ValueError, OSError, TypeError) as error:
        print(f"export: {' '.join(str(error).split())}", file=sys.stderr)
        return 5 if isinstance(error, WeightsError) else 2
    print(f"{o.dest}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
