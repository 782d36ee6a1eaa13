"""A folder that scores pictures without this package: a StableHLO program and load.py.

The program holds the model for crops of one size. load.py reads and crops a picture by the same
code as the scorer, of which a copy stands in the folder `reading`, and runs the program. `write`
writes all of it, with the weights, a card of what the scores mean, and requirements.txt.
"""

import ast
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import string

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.errors import WeightsError
from diffv2iqa_jax.pp import ops_numpy, spec
from diffv2iqa_jax.scoring.predictor import Predictor
from diffv2iqa_jax.weights import files

PLATFORMS = ("cpu", "cuda")
PROGRAM, WEIGHTS, CARD, LOADER = "program.jax", "weights.safetensors", "card.json", "load.py"
REQUIREMENTS, READING = "requirements.txt", "reading"
PACKAGE = pathlib.Path(__file__).parents[1]
COPIED = ("pp.decode", "pp.ops_numpy")  # and what they import of this package
COPY = "How pictures are read and cropped: a copy of diffv2iqa_jax's code (Apache-2.0)."
PYTHON = "3.11"  # these modules' syntax; pyproject.toml says the same, and a test compares
# The least versions; a fresh environment of exactly these scored a picture. JAX reads a program by
# flatbuffers, yet does not ask for it.
NEEDS = {"numpy": "2.1", "pillow": "12.2", "safetensors": "0.5", "flatbuffers": "24.3.25"}
# A program of any number of crops names its shape assertions by StableHLO's newest form, which an
# older JAX does not know; one of a fixed number was read by 0.10 when 0.12 had written it.
OLDEST_JAX = "0.10.0"
CROPS = ("grid", "center")  # whose crops are those of any picture of one size

LOADER_TEXT = string.Template('''\
"""Scores pictures: python load.py PICTURE... prints a number for each.

Needs Python $python and what $requirements names. Exit codes: 0, 2 no picture is
named, 3 a picture cannot be read, 5 a package is missing or too old.
"""
import pathlib
import re
import sys
import zlib
from importlib import metadata

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here))


def stop(code, line):
    print("load.py:", " ".join(line.split()), file=sys.stderr)
    sys.exit(code)


def numbers(version):
    return [int(x) for x in re.findall(r"\\d+", version)[:3]]


for line in (here / "$requirements").read_text().splitlines():
    name, _, least = line.partition(">=")
    try:
        found = metadata.version(name) if least else ""
    except metadata.PackageNotFoundError:
        found = "0"
    if least and numbers(found) < numbers(least):
        is_there = f"{found} is there" if found != "0" else "it is not there"
        stop(5, f"needs {name} {least} or newer, {is_there}; pip install -r $requirements")

import jax.export
import numpy as np
from safetensors.numpy import load_file

from reading import decode, ops_numpy
from reading.errors import ImageError

batch = $batch  # crops that the program takes; None: any number
cut = ops_numpy.parse("$squares")


def score(path):
    """Quality of a picture file; raises ImageError where it cannot be read."""
    picture = decode.read(path).image_HWC
    content = zlib.crc32(picture)  # gives the noise that restoring starts from
    crops = np.stack([crop.image_HWC for crop in cut(picture, content)])
    size, values = batch or len(crops), []
    for start in range(0, len(crops), size):
        part = crops[start : start + size]
        filled = np.resize(part, (size, *part.shape[1:]))
        scores = run(weights, filled, np.full(size, content, np.uint32))["score"]
        values += np.asarray(scores)[: len(part)].tolist()
    return sum(values) / len(values)


if __name__ == "__main__":
    code = 0
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        stop(2, "name pictures: python load.py PICTURE...")
    try:
        program = jax.export.deserialize(bytearray((here / "$program").read_bytes()))
        run, weights = jax.jit(program.call), load_file(here / "$weights")
        for path in sys.argv[1:]:
            try:
                print(score(path), flush=True)
            except ImageError as error:
                print(f"load.py: {error}", file=sys.stderr)
                code = 3
    except Exception as error:  # a damaged program makes JAX raise anything
        why = str(error)[:200]
        stop(5, f"JAX {jax.__version__} cannot run what JAX $jax exported; install that ({why})")
    sys.exit(code)
''')


@dataclasses.dataclass(frozen=True)
class Plan:
    """How load.py and the program share the work.

    Attributes:
      size: side of the squares that load.py hands to the program, in pixels.
      squares: pipeline by which load.py makes such squares of a picture.
      crop: pipeline by which the program crops such a square; "" takes it whole.
    """

    size: int
    squares: str
    crop: str


def write(
    predictor: Predictor, dest: str, *, by_crops: bool = False, batch: int | None = None
) -> None:
    """Writes the folder, complete or not at all.

    Args:
      dest: a new or empty folder.
      by_crops: restore each crop by itself even if the evaluation restored whole pictures.
      batch: how many crops the program takes at a time; None for any number, which needs a JAX
        that is no older than this one.

    Raises:
      WeightsError: such a program cannot say what the evaluation said.
      FileExistsError: the folder is there, and not empty.
      OSError: it cannot be written; nothing of it is left.
    """
    plan = plan_for(predictor, by_crops)
    predictor = dataclasses.replace(predictor, whole=predictor.whole and not by_crops)
    folder = pathlib.Path(dest)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{dest}: is there and not an empty folder; name a new one")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)  # before the work, which is long
    contents = _contents(predictor, plan, batch)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        (unfinished / READING).mkdir(parents=True)
        for name, data in contents.items():
            storage.write(unfinished / name, data)
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _contents(predictor: Predictor, plan: Plan, batch: int | None) -> dict[str, str | bytes]:
    """The folder's files: name -> what it holds."""
    exported = build(predictor, plan.size, plan.crop, batch)
    least = {"jax": OLDEST_JAX if batch else ".".join(jax.__version__.split(".")[:3]), **NEEDS}
    card = dataclasses.asdict(predictor.info)
    if predictor.restores:
        card["protocol"]["views"] = "whole" if predictor.whole else "crop"
    card["program"] = {
        "exported_by": f"jax {jax.__version__}",
        "needs": [f"{name}>={version}" for name, version in least.items()],
        "python": f">={PYTHON}",
        "platforms": list(exported.platforms),
        "batch": batch,
    }
    tensors = {k: np.ascontiguousarray(x) for k, x in files.flatten(predictor.weights).items()}
    loader = LOADER_TEXT.substitute(
        batch=batch,
        squares=plan.squares,
        program=PROGRAM,
        weights=WEIGHTS,
        requirements=REQUIREMENTS,
        python=f"{PYTHON} or newer",
        jax=jax.__version__,
    )
    requirements = f"# for Python {PYTHON} or newer\n" + "\n".join(card["program"]["needs"]) + "\n"
    return {
        PROGRAM: bytes(exported.serialize()),
        WEIGHTS: safetensors.numpy.save(tensors),
        LOADER: loader,
        CARD: json.dumps(card, indent=1, allow_nan=False) + "\n",
        REQUIREMENTS: requirements,
        f"{READING}/__init__.py": f'"""{COPY}"""\n',
        **{f"{READING}/{name}": text for name, text in reading_code().items()},
    }


def reading_code() -> dict[str, str]:
    """The modules COPIED and those below them, as a package of their own: file name -> text."""
    sources, waiting = {}, list(COPIED)
    while waiting:
        name = waiting.pop()
        file = f"{name.rpartition('.')[2]}.py"
        if file in sources:
            continue
        text = (PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("diffv2iqa_jax"):
                inner = node.module.removeprefix("diffv2iqa_jax").lstrip(".")
                names = [".".join(filter(None, (inner, alias.name))) for alias in node.names]
                waiting += {x if (PACKAGE / f"{x.replace('.', '/')}.py").exists() else inner
                            for x in names}  # fmt: skip
        sources[file] = re.sub(
            r"^(\s*from) diffv2iqa_jax(\.pp)?\b", rf"\1 {READING}", text, flags=re.MULTILINE
        )
    return sources


def plan_for(predictor: Predictor, by_crops: bool) -> Plan:
    """Shares the work of the predictor's pipeline out.

    Raises:
      WeightsError: load.py cannot crop as the pipeline does, or the program cannot restore.
    """
    resize, rest = spec.head(predictor.pp)
    try:
        _, crop_size = _only_op(rest, CROPS)
        squares = _only_op(resize, ("resize",))[1] if resize else crop_size
    except ValueError:
        known = ", ".join(f"{name}(n)" for name in CROPS)
        raise WeightsError(
            f"pipeline {predictor.pp!r}: load.py knows {known}, with resize(n)| before or not;"
            " name one by --pp"
        ) from None
    if resize:
        return Plan(squares, resize, rest)
    if predictor.whole and not by_crops:
        raise WeightsError(
            f"{predictor.info.name}: restores whole pictures, of any shape, which one program"
            " cannot; --by_crops restores each crop by itself, and scores a little otherwise"
        )
    return Plan(squares, predictor.pp, "")


def _only_op(pipeline: str, names: tuple[str, ...]) -> tuple[str, int]:
    """Name and size of a pipeline's one op. Raises ValueError if it has others."""

    def named(name: str, size: int) -> tuple[str, int]:
        spec.check_size(name, size)
        return name, size

    (op,) = spec.build(pipeline, {name: functools.partial(named, name) for name in names})
    return op


def build(
    predictor: Predictor, size: int, crop: str = "", batch: int | None = None
) -> jax.export.Exported:
    """The model as a program for `batch` squares, or for any number.

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

    b = batch or jax.export.symbolic_shape("b")[0]
    image = jax.ShapeDtypeStruct((b, size, size, 3), np.uint8)
    content = jax.ShapeDtypeStruct((b,), np.uint32)
    like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    return jax.export.export(jax.jit(score), platforms=PLATFORMS)(like, image, content)
