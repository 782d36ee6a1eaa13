"""A folder that scores pictures without this package: a StableHLO program and load.py.

The program holds the model for crops of one size; load.py reads a picture, crops it and runs the
program. `write` writes both, with the weights and a card of what the scores mean.
"""

import dataclasses
import functools
import json
import os
import pathlib
import string

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from diffv2iqa_jax import pixels
from diffv2iqa_jax.errors import WeightsError
from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.scoring.predictor import Predictor
from diffv2iqa_jax.weights import files

PLATFORMS = ("cpu", "cuda")
PROGRAM, WEIGHTS, CARD, LOADER = "program.jax", "weights.safetensors", "card.json", "load.py"

LOADER_TEXT = string.Template('''\
"""Scores a picture: python load.py PICTURE (needs jax, numpy, pillow and safetensors)."""
import pathlib
import sys
import zlib

import jax.export
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

here, size = pathlib.Path(__file__).parent, $size
program = jax.export.deserialize(bytearray((here / "$program").read_bytes()))
picture = np.asarray(Image.open(sys.argv[1]).convert("RGB"))
content = zlib.crc32(picture.tobytes())  # gives the noise that restoring starts from
$crops
weights = load_file(here / "$weights")
scores = jax.jit(program.call)(weights, crops, np.full(len(crops), content, np.uint32))
print(float(np.mean(scores["score"])))
''')
# The lines for $crops. Where the pipeline starts with a resize, the program itself crops.
RESIZED = """\
resized = jax.image.resize(picture.astype(np.float32), (size, size, 3), "cubic")
crops = np.clip(np.rint(resized), 0, 255).astype(np.uint8)[None]"""
CROPPED = string.Template("""\
picture = np.pad(picture, [*((0, max(size - n, 0)) for n in picture.shape[:2]), (0, 0)], "reflect")
tops, lefts = ($starts for n in picture.shape[:2])
crops = np.stack([picture[t : t + size, l : l + size] for t in tops for l in lefts])""")
# Where crops start along an axis of n pixels, as `ops_numpy` cuts them.
STARTS = {
    "grid": "[i * (n - size) // max(-(-n // size) - 1, 1) for i in range(-(-n // size))]",
    "center": "[(n - size) // 2]",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How load.py and the program share the work.

    Attributes:
      size: side of the squares that load.py hands to the program, in pixels.
      crop: pipeline by which the program crops such a square; "" takes it whole.
      crops_text: the lines of load.py that make the squares.
    """

    size: int
    crop: str
    crops_text: str


def write(predictor: Predictor, dest: str, *, by_crops: bool = False) -> None:
    """Writes the folder, complete or not at all.

    Args:
      dest: a new or empty folder.
      by_crops: restore each crop by itself even if the evaluation restored whole pictures.

    Raises:
      WeightsError: such a program cannot say what the evaluation said.
      FileExistsError: the folder is there, and not empty.
    """
    plan = plan_for(predictor, by_crops)
    predictor = dataclasses.replace(predictor, whole=predictor.whole and not by_crops)
    folder = pathlib.Path(dest)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{dest}: is there and not an empty folder; name a new one")
    exported = build(predictor, plan.size, plan.crop).serialize()
    card = dataclasses.asdict(predictor.info)
    if predictor.restores:
        card["protocol"]["views"] = "whole" if predictor.whole else "crop"
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    (unfinished / PROGRAM).write_bytes(exported)
    tensors = {k: np.ascontiguousarray(x) for k, x in files.flatten(predictor.weights).items()}
    safetensors.numpy.save_file(tensors, unfinished / WEIGHTS)
    (unfinished / LOADER).write_text(loader_text(plan))
    (unfinished / CARD).write_text(json.dumps(card, indent=1, allow_nan=False))
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)


def plan_for(predictor: Predictor, by_crops: bool) -> Plan:
    """Shares the work of the predictor's pipeline out.

    Raises:
      WeightsError: load.py cannot crop as the pipeline does, or the program cannot restore.
    """
    resize, rest = spec.head(predictor.pp)
    try:
        name, crop_size = _only_op(rest, STARTS)
        squares = _only_op(resize, ["resize"])[1] if resize else crop_size
    except ValueError:
        known = ", ".join(f"{name}(n)" for name in STARTS)
        raise WeightsError(
            f"pipeline {predictor.pp!r}: load.py knows {known}, with resize(n)| before or not;"
            " name one by --pp"
        ) from None
    if resize:
        return Plan(squares, rest, RESIZED)
    if predictor.whole and not by_crops:
        raise WeightsError(
            f"{predictor.info.name}: restores whole pictures, of any shape, which one program"
            " cannot; --by_crops restores each crop by itself, and scores a little otherwise"
        )
    return Plan(squares, "", CROPPED.substitute(starts=STARTS[name]))


def _only_op(pipeline: str, names: list[str] | dict[str, str]) -> tuple[str, int]:
    """Name and size of a pipeline's one op. Raises ValueError if it has others."""

    def named(name: str, size: int) -> tuple[str, int]:
        spec.check_size(name, size)
        return name, size

    (op,) = spec.build(pipeline, {name: functools.partial(named, name) for name in names})
    return op


def loader_text(plan: Plan) -> str:
    """The text of load.py."""
    return LOADER_TEXT.substitute(
        size=plan.size, crops=plan.crops_text, program=PROGRAM, weights=WEIGHTS
    )


def build(predictor: Predictor, size: int, crop: str = "") -> jax.export.Exported:
    """The model as a program for any number of squares.

    Its arguments are the weights by name, image (b, size, size, 3) uint8 and content (b,) uint32;
    it returns score and score_NAME, (b,).

    Args:
      crop: pipeline by which the program crops its squares, after restoring them if the predictor
        restores whole pictures; a score is then the mean over a square's crops.
    """
    arrays = {name: np.asarray(x) for name, x in files.flatten(predictor.weights).items()}
    crops = ops_numpy.parse(crop)(np.zeros((size, size, 3), np.uint8), 0)
    side, corners = len(crops[0].image_HWC), [each.corner for each in crops]

    def cropped(x: jax.Array) -> jax.Array:
        """All crops along the first axis; of x (b,), as many copies."""
        if x.ndim == 1:
            return jnp.concatenate([x for _ in corners])
        return jnp.concatenate(
            [x[..., top : top + side, left : left + side, :] for top, left in corners]
        )

    def score(tensors: dict, image: jax.Array, content: jax.Array) -> dict[str, jax.Array]:
        weights, batch = files.unflatten(tensors), {"image": image, "content": content}
        if crop and predictor.whole:
            restored = predictor.views(weights, batch).image_BVHWC[:, 1:]
            batch["views"] = pixels.store(restored, predictor.stored)
        batch = {name: cropped(x) for name, x in batch.items()}
        outputs = predictor.score(weights, predictor.views(weights, batch))
        return {
            name: x.reshape(len(corners), -1).mean(0)
            for name, x in outputs.items()
            if name.startswith("score")
        }

    (b,) = jax.export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((b, size, size, 3), np.uint8)
    content = jax.ShapeDtypeStruct((b,), np.uint32)
    like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    return jax.export.export(jax.jit(score), platforms=PLATFORMS)(like, image, content)
