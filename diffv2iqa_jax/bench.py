"""Times the parts: python -m diffv2iqa_jax.bench unet_forward views --batch 4 --json out.json

Each row is the median of repeated, finished runs of one compiled function on random inputs; three
sets of inputs take turns. "A/A" is the difference between the medians of every other run: what
is smaller than it is noise. GFLOP is XLA's count for the function with its loops written out.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffv2iqa_jax import rng, storage
from diffv2iqa_jax.models import layers
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.models.vit import ViT
from diffv2iqa_jax.tasks import quality, restoration, restorers
from diffv2iqa_jax.tools import bench_host
from diffv2iqa_jax.tools.bench_host import side
from diffv2iqa_jax.tools.timing import times
from diffv2iqa_jax.types import Weights

SMALL_NET = {"multipliers": (1, 2), "res_blocks": 1, "attn_res": (), "image_size": 16, "groups": 4}
SMALL_VIT = {"patch": 4, "width": 16, "depth": 1, "heads": 2, "mlp": 32, "taps": (0,)}
SMALL_RESNET = {"blocks": (1,), "width": 8}
SMALL_SWIN = {"depths": (1,), "heads": (2,), "mlp": 16}
SMALL_GUIDANCE = {"select": 4 * ((0,),), "reduce": (16,), "width": 8, "swin": SMALL_SWIN}


class Case(NamedTuple):
    """A function to compile and time.

    Attributes:
      fn: the function.
      shapes: of its arguments, the first of which are the parameters.
      flop: what it runs, (function, shapes, how many times), if XLA's count of fn misses loops.
      against: (row, times): compare its time with so many times that row's.
    """

    fn: Callable
    shapes: tuple
    flop: list[tuple[Callable, tuple, int]] | None = None
    against: tuple[str, int] | None = None


Options = argparse.Namespace


def _shape(*sides: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, dtype)


def _images(o: Options, usual: int, *views: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return _shape(o.batch, *views, side(o, usual), side(o, usual), 3, dtype=dtype)


def _batch(o: Options, usual: int) -> dict[str, jax.ShapeDtypeStruct]:
    image = _images(o, usual, dtype=jnp.uint8)
    return {"image": image, "content": _shape(o.batch, dtype=jnp.uint32)}


def _net(o: Options) -> dict:
    return {"inner": o.inner or 8, **SMALL_NET} if o.small else {"inner": o.inner or 64}


def _restorer(o: Options) -> dict:
    """SR3's U-Net with the paper's chain; the states kept of 50 steps are the 5th and 10th."""
    keep = (max(1, o.steps // 10), max(2, o.steps // 5))
    chain = {"steps": o.steps, "spacing": "tabulate", "sampler": "ddpm", "keep": keep, "clip": True}
    target = {"prediction": "eps", "residual": False, "loss": "l1", "levels": "per_batch"}
    fixed = {"kind": "diffusion", "conditional": True, "seed": 0}
    fixed |= {"schedule": {"name": "cosine", "steps": 2000}}
    asked = {"net": _net(o), "sampling": chain, "views_dtype": "float16", "dtype": o.dtype}
    return fixed | target | asked


def _module(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> Case:
    return Case(
        module.apply, (jax.eval_shape(module.init, rng.stream(0, "shapes"), *inputs), *inputs)
    )


def _taps(module: nn.Module, images: jax.ShapeDtypeStruct) -> Case:
    """A backbone's forward pass to its taps, without what it says itself."""
    return _module(module, images)._replace(fn=lambda *args: module.apply(*args)[0])


def unet_forward(o: Options, usual: int = 128) -> dict[str, Case]:
    net, image = UNet(**_net(o), dtype=o.dtype), _images(o, usual)
    return {"unet_forward": _module(net, image, image, _shape(o.batch))}


def unet_train(o: Options) -> dict[str, Case]:
    """A training step of stage 1."""
    task, tx = restoration.restoration(restorer=_restorer(o)), optax.adam(1e-4)
    batch = _batch(o, 128)
    batch |= {"reference": batch["image"], "draw": batch["content"], "mask": _shape(o.batch)}
    params = jax.eval_shape(task.init, rng.stream(0, "shapes"), batch).params

    def step(state, batch):
        params, moments = state

        def loss(params):
            return task.loss(Weights(params, {}), batch, rng.stream(0, "train"))[0]

        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = tx.update(grads, moments, params)
        return value, optax.apply_updates(params, updates), moments

    return {"unet_train": Case(step, ((params, jax.eval_shape(tx.init, params)), batch))}


def views(o: Options) -> dict[str, Case]:
    """The restorer's whole chain, beside as many forward passes of its net."""
    restorer, rows, batch = restorers.make(**_restorer(o)), unet_forward(o), _batch(o, 128)
    forward = rows["unet_forward"]
    weights = jax.eval_shape(restorer.init, rng.stream(0, "shapes"), batch)
    chain = Case(lambda *args: restorer.views(*args).image_BVHWC, (weights, batch))
    flop, against = [(forward.fn, forward.shapes, o.steps)], ("unet_forward", o.steps)
    return rows | {"views": chain._replace(flop=flop, against=against)}


def vit(o: Options) -> dict[str, Case]:
    net = ViT(image_size=side(o, 224), dtype=o.dtype, **(SMALL_VIT if o.small else {}))
    return {"vit": _taps(net, _images(o, 224))}


def resnet(o: Options) -> dict[str, Case]:
    net = ResNet(dtype=o.dtype, **(SMALL_RESNET if o.small else {}))
    return {"resnet": _taps(net, _images(o, 224))}


def tab(o: Options) -> dict[str, Case]:
    """Transposed attention over Z's channels, whole and in blocks, and with its gradient."""
    channels, block, patch = (32, 8, 4) if o.small else (6912, 768, 8)
    x = _shape(o.batch, channels, (side(o, 224) // patch) ** 2)

    def attention(block: int | None) -> Case:
        return _module(layers.TransposedAttention(block=block, dtype=o.dtype), x)

    def gradient(case: Case) -> Case:
        return case._replace(fn=jax.grad(lambda *args: jnp.sum(case.fn(*args)), (0, 1)))

    plain, blocks = attention(None), attention(block)
    rows = {"tab/plain": plain, "tab/plain_gradient": gradient(plain)}
    for name, case in (("tab/plain", blocks), ("tab/plain_gradient", gradient(blocks))):
        flop = [(rows[name].fn, plain.shapes, 1)]
        rows[name.replace("plain", "blocks")] = Case(case.fn, case.shapes, flop, (name, 1))
    return rows


def score(o: Options) -> dict[str, Case]:
    """Image to score with nothing stored: the chain, then both branches of the paper's form."""
    size = side(o, 224)
    branches = {"guidance": {"vit": {"image_size": size}}, "difference": {}}
    if o.small:
        guidance = {**SMALL_GUIDANCE, "vit": {**SMALL_VIT, "image_size": size}}
        branches = {"guidance": guidance, "difference": {"resnet": SMALL_RESNET, "width": 8}}
    model = {"branches": branches, "dtype": o.dtype}
    task = quality.quality(restorer=_restorer(o), model=model, loss="mse")
    batch, forward = _batch(o, 224), unet_forward(o, 224)["unet_forward"]
    weights = jax.eval_shape(task.init, rng.stream(0, "shapes"), batch)

    def score_alone(weights, batch):  # compiled, the rest is not computed
        return task.predict(weights, batch)["score"]

    stored = (weights, batch | {"views": _images(o, 224, 3)})
    flop = [(forward.fn, forward.shapes, o.steps), (score_alone, stored, 1)]
    return {"score": Case(score_alone, (weights, batch), flop)}


# Rows that are compiled here and measured; those of bench_host time themselves.
CASES = {make.__name__: make for make in (unet_forward, unet_train, views, vit, resnet, tab, score)}
WHAT = [*CASES, *bench_host.ROWS]


def _random(path: tuple, leaf: jax.ShapeDtypeStruct, g: np.random.Generator) -> jax.Array:
    """Numbers for one argument; ones where a net divides by them."""
    names = {str(getattr(key, "key", getattr(key, "name", ""))) for key in path}
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(g.integers(0, 256, leaf.shape), leaf.dtype)
    if names & {"scale", "var", "nu", "mask"}:
        return jnp.ones(leaf.shape, leaf.dtype)
    return jnp.asarray(0.02 * g.standard_normal(leaf.shape, np.float32), leaf.dtype)


def _parameters(state: Any) -> Any:
    """Without an optimiser's moments and a BatchNorm's statistics."""
    state = state[0] if isinstance(state, tuple) else state
    return state.params if isinstance(state, Weights) else state.get("params", state)


def _flop(fn: Callable, shapes: tuple) -> float:
    """XLA's count of floating-point operations; a loop's body counts once."""
    return (jax.jit(fn).lower(*shapes).cost_analysis() or {}).get("flops", 0.0)


def measure(case: Case, repeat: int) -> dict[str, Any]:
    """Times, operations and memory of one case."""
    start, g = time.perf_counter(), np.random.default_rng(0)
    compiled = jax.jit(case.fn).lower(*case.shapes).compile()
    row = {"compile_s": time.perf_counter() - start}

    def random(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: _random(path, leaf, g), tree)

    params = random(case.shapes[0])
    inputs = [random(case.shapes[1:]) for _ in range(3)]
    row |= times(lambda i: compiled(params, *inputs[i % 3]), repeat)
    counted = case.flop or [(case.fn, case.shapes, 1)]
    row["gflop"] = sum(count * _flop(fn, shapes) for fn, shapes, count in counted) / 1e9
    row["gflop_per_s"] = 1e3 * row["gflop"] / row["ms"]
    row["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(_parameters(case.shapes[0])))
    memory = compiled.memory_analysis()
    row["temp_mib"] = memory.temp_size_in_bytes / 2**20 if memory else None
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")  # of all rows so far
    return row | {"device_peak_mib": peak and peak / 2**20}


NOTES = ("over", "images_per_s", "prepared_per_s", "cores", "faster", "crops_per_core_s")
NOTES += ("input_wait", "skipped")
COLUMNS = ("ms", "aa_percent", "gflop", "gflop_per_s", "parameters", "temp_mib", "compile_s")


def _line(name: str, row: dict[str, Any]) -> str:
    cells = [row.get(column) for column in COLUMNS]
    texts = [f"{x:,.5g}" if isinstance(x, int | float) else x or "-" for x in cells]
    notes = [f"  {key}: {row[key]}" for key in NOTES if key in row]
    return f"{name:20}" + "".join(f"{text:>12}" for text in texts) + "".join(notes)


def run(o: Options) -> dict[str, dict]:
    """Rows by name. Checks every case before it compiles the first one."""
    cases, rows = {}, {}
    for what in o.what:
        cases |= CASES[what](o) if what in CASES else {what: bench_host.ROWS[what]}
    for case in (case for case in cases.values() if isinstance(case, Case)):
        jax.eval_shape(case.fn, *case.shapes)
    print(_line("", {column: column for column in COLUMNS}))
    for name, case in cases.items():
        rows[name] = row = measure(case, o.repeat) if isinstance(case, Case) else case(o)
        if isinstance(case, Case) and case.against:
            other, count = case.against
            row["over_percent"] = 100 * (row["ms"] / (count * rows[other]["ms"]) - 1)
            row["over"] = f"{row['over_percent']:+.1f} % against {count} x {other}"
        print(_line(name, row), flush=True)
    return rows


NUMBERS = (  # name, default, smallest, what it is
    ("repeat", 10, 5, "runs of each"),
    ("steps", 50, 1, "of the sampler"),
    ("batch", 1, 1, "images at a time"),
    ("size", None, 1, "side of the images in pixels"),
    ("group", 1, 1, "images of one type distorted at once"),
    ("inner", None, 1, "width of the U-Net's first level"),
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ValueError for an unknown row or a number that is too small."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", default=WHAT, help=f"of {WHAT}")
    parser.add_argument("--json", type=pathlib.Path, help="also write the rows to this file")
    for name, default, _, text in NUMBERS:
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--small", action="store_true", help="tiny nets: does it run at all?")
    o = parser.parse_args(argv)
    unknown = [what for what in o.what if what not in WHAT]
    if unknown:
        raise ValueError(f"{unknown}: known are {WHAT}")
    for name, _, smallest, _ in NUMBERS:
        if (value := getattr(o, name)) is not None and value < smallest:
            raise ValueError(f"--{name} {value}: must be at least {smallest}")
    if o.json:
        storage.ending(o.json, (".json",))
    return o


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line on stderr."""
    try:
        o = parse(argv)
        rows = run(o)
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    about = {"device": jax.devices()[0].device_kind, "python": sys.version.split()[0]}
    about |= {x.__name__: x.__version__ for x in (jax, flax, np)}
    print(about)
    if o.json:
        out = about | {"options": {**vars(o), "json": str(o.json)}, "rows": rows}
        try:
            storage.write(o.json, json.dumps(out, indent=1) + "\n")
        except OSError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
