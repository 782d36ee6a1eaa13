"""Times the parts: python -m diffv2iqa_jax.bench unet_forward views --batch 4 --json out.json

Each row is the median of repeated, finished runs of one compiled function on random inputs; three
sets of inputs take turns. "A/A" is the difference between the medians of every other run: what
is smaller than it is noise. GFLOP is XLA's count for the function with its loops written out.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import host_reference
from diffv2iqa_jax.distortions import kadid as distortions
from diffv2iqa_jax.models import layers
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.models.vit import ViT
from diffv2iqa_jax.tasks import quality, restoration, restorers
from diffv2iqa_jax.types import Weights

SMALL_NET = {"multipliers": (1, 2), "res_blocks": 1, "attn_res": (), "image_size": 16, "groups": 4}
SMALL_VIT = {"patch": 4, "width": 16, "depth": 1, "heads": 2, "mlp": 32, "taps": (0,)}
SMALL_RESNET = {"blocks": (1,), "width": 8}
SMALL_SWIN = {"depths": (1,), "heads": (2,), "mlp": 16}
SMALL_GUIDANCE = {"select": 4 * ((0,),), "reduce": (16,), "width": 8, "swin": SMALL_SWIN}


class Case(NamedTuple):
    """What to time."""

    fn: Callable
    shapes: tuple  # of its arguments, the first of which are the parameters
    flop: list[tuple[Callable, tuple, int]] | None = None  # what it runs, and how many times
    against: tuple[str, int] | None = None  # (row, times) to compare its time with


def _shape(*sides: int, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sides, dtype)


def _size(o, usual: int) -> int:
    return o.size or (16 if o.small else usual)


def _images(o, usual: int, *views: int, dtype=jnp.float32):
    return _shape(o.batch, *views, _size(o, usual), _size(o, usual), 3, dtype=dtype)


def _batch(o, usual: int) -> dict:
    image = _images(o, usual, dtype=jnp.uint8)
    return {"image": image, "content": _shape(o.batch, dtype=jnp.uint32)}


def _net(o) -> dict:
    return {"inner": o.inner or 8, **SMALL_NET} if o.small else {"inner": o.inner or 64}


def _restorer(o) -> dict:
    """SR3's U-Net with the paper's chain; the states kept of 50 steps are the 5th and 10th."""
    keep = (max(1, o.steps // 10), max(2, o.steps // 5))
    chain = {"steps": o.steps, "spacing": "tabulate", "sampler": "ddpm", "keep": keep, "clip": True}
    target = {"prediction": "eps", "residual": False, "loss": "l1", "levels": "per_batch"}
    fixed = {"kind": "diffusion", "conditional": True, "seed": 0}
    fixed |= {"schedule": {"name": "cosine", "steps": 2000}}
    own = {"net": _net(o), "sampling": chain, "views_dtype": "float16", "dtype": o.dtype}
    return fixed | target | own


def _module(module, *inputs) -> Case:
    return Case(module.apply, (jax.eval_shape(module.init, jax.random.key(0), *inputs), *inputs))


def _taps(module, images) -> Case:
    return _module(module, images)._replace(fn=lambda *args: module.apply(*args)[0])


def unet_forward(o, usual: int = 128) -> dict[str, Case]:
    net, image = UNet(**_net(o), dtype=o.dtype), _images(o, usual)
    return {"unet_forward": _module(net, image, image, _shape(o.batch))}


def unet_train(o) -> dict[str, Case]:
    task, tx, batch = (
        restoration.restoration(restorer=_restorer(o)),
        optax.adam(1e-4),
        _batch(o, 128),
    )
    batch |= {"reference": batch["image"], "draw": batch["content"], "mask": _shape(o.batch)}
    params = jax.eval_shape(task.init, jax.random.key(0), batch).params

    def step(state, batch):
        params, moments = state
        loss = lambda p: task.loss(Weights(p, {}), batch, rng.stream(0, "train"))[0]
        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = tx.update(grads, moments, params)
        return value, optax.apply_updates(params, updates), moments

    return {"unet_train": Case(step, ((params, jax.eval_shape(tx.init, params)), batch))}


def views(o) -> dict[str, Case]:
    restorer, one, batch = restorers.make(**_restorer(o)), unet_forward(o), _batch(o, 128)
    forward = one["unet_forward"]
    weights = jax.eval_shape(restorer.init, jax.random.key(0), batch)
    chain = Case(lambda *args: restorer.views(*args).image_BVHWC, (weights, batch))
    flop, against = [(forward.fn, forward.shapes, o.steps)], ("unet_forward", o.steps)
    return one | {"views": chain._replace(flop=flop, against=against)}


def vit(o) -> dict[str, Case]:
    net = ViT(image_size=_size(o, 224), dtype=o.dtype, **(SMALL_VIT if o.small else {}))
    return {"vit": _taps(net, _images(o, 224))}


def resnet(o) -> dict[str, Case]:
    net = ResNet(dtype=o.dtype, **(SMALL_RESNET if o.small else {}))
    return {"resnet": _taps(net, _images(o, 224))}


def tab(o) -> dict[str, Case]:
    """Transposed attention over Z's channels, whole and in blocks, and with its gradient."""
    channels, block, patch = (32, 8, 4) if o.small else (6912, 768, 8)
    x = _shape(o.batch, channels, (_size(o, 224) // patch) ** 2)
    make = lambda block: _module(layers.TransposedAttention(block=block, dtype=o.dtype), x)
    plain, blocks = make(None), make(block)
    total = lambda fn: lambda *args: jnp.sum(fn(*args))
    gradient = lambda case: case._replace(fn=jax.grad(total(case.fn), (0, 1)))
    rows = {"tab/plain": plain, "tab/plain_gradient": gradient(plain)}
    for name, case in (("tab/plain", blocks), ("tab/plain_gradient", gradient(blocks))):
        flop = [(rows[name].fn, plain.shapes, 1)]
        rows[name.replace("plain", "blocks")] = Case(case.fn, case.shapes, flop, (name, 1))
    return rows


def score(o) -> dict[str, Case]:
    """Image to score with nothing stored: the chain, then both branches of the paper's form."""
    size = _size(o, 224)
    branches = {"guidance": {"vit": {"image_size": size}}, "difference": {}}
    if o.small:
        guidance = {**SMALL_GUIDANCE, "vit": {**SMALL_VIT, "image_size": size}}
        branches = {"guidance": guidance, "difference": {"resnet": SMALL_RESNET, "width": 8}}
    model = {"branches": branches, "dtype": o.dtype}
    task = quality.quality(restorer=_restorer(o), model=model, loss="mse")
    batch, forward = _batch(o, 224), unet_forward(o, 224)["unet_forward"]
    weights = jax.eval_shape(task.init, jax.random.key(0), batch)
    fn = lambda *args: task.predict(*args)["score"]  # compiled, the rest is not computed
    stored = (weights, batch | {"views": _images(o, 224, 3)})
    flop = [(forward.fn, forward.shapes, o.steps), (fn, stored, 1)]
    return {"score": Case(fn, (weights, batch), flop)}


def data(o) -> dict:
    """Ten training batches of the built-in data set, decoded and cropped."""
    try:
        from diffv2iqa_jax.data import pipeline, reading
        from diffv2iqa_jax.data.sets import registry
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    name, size = "builtin/tiny" if o.small else "builtin/small", _size(o, 48)
    with tempfile.TemporaryDirectory() as folder:
        registry.prepare(name, folder)
        source = reading.load(name, folder)
        own = {"pp": f"crop({size})", "batch": o.batch, "seed": 0, "start": 0}
        batches = pipeline.to_train(source, source.table["id"], **own)
        row = _times(lambda i: [next(batches) for _ in range(10)], o.repeat)
    return row | {"images_per_s": round(1e4 * o.batch / row["ms"])}


def reading(o) -> dict:
    """Ten training batches of JPEG photos of 512 x 384, cropped to 224; and preparing them."""
    try:
        from PIL import Image

        from diffv2iqa_jax.data import pipeline, reading
        from diffv2iqa_jax.data.sets import own, scenes, store
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    size, count = (64, 16) if o.small else (512, 256)
    crop, batch = (16 if o.small else _size(o, 224)), max(o.batch, 8)
    with tempfile.TemporaryDirectory() as folder:
        raw = pathlib.Path(folder, "raw")
        raw.mkdir()
        pictures = [Image.fromarray(scenes.scene(i, size)[: size * 3 // 4]) for i in range(8)]
        for i in range(count):
            pictures[i % 8].save(raw / f"{i}.jpg", quality=90 - i % 5)
        rows, spec = own.pool(raw)
        start = time.perf_counter()
        store.build("pool/bench", folder, spec, rows)
        prepared = count / (time.perf_counter() - start)
        source = reading.load("pool/bench", folder)
        given = {"pp": f"crop({crop})|flip(0.5)", "batch": batch, "seed": 0, "start": 0}
        batches = pipeline.to_train(source, source.table["id"], **given)
        row = _times(lambda i: [next(batches) for _ in range(10)], o.repeat)
    row |= {"images_per_s": round(1e4 * batch / row["ms"]), "prepared_per_s": round(prepared)}
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return row | {"cores": len(usable(0))}


def distort(o) -> dict:
    """All 25 types and 5 levels mixed in one batch, beside the host's libraries."""
    count, size = 8 if o.small else 64, 32 if o.small else _size(o, 128)
    image = np.stack([x for _, x in scenes.photos(size)])
    image = image[np.arange(count) % len(image)]
    type, level = np.arange(count) % 25, 1 + np.arange(count) // 5 % 5
    x, args = pixels.to_float(jnp.asarray(image)), (type.astype(np.int32), level.astype(np.int32))
    device = jax.jit(lambda key, x: distortions.distort(key, x, *args, group=o.group))
    compiled = device.lower(rng.stream(0, "bench"), x).compile()
    names = [distortions.TYPES[t] for t in type]
    todo = list(zip(image, names, level.tolist(), strict=True))
    host = lambda i: [host_reference.distort(*one, seed=i + 2) for one in todo]
    other = _times(host, max(5, o.repeat // 4))
    row = _times(lambda i: compiled(rng.stream(i + 2, "bench"), x), o.repeat)
    row |= {"temp_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20}
    row |= {"images_per_s": round(1e3 * count / row["ms"]), "host_ms": other["ms"]}
    return row | {"faster": f"{other['ms'] / row['ms']:.2f} times than Pillow and SciPy"}


# A GPU that trains on 1,426 crops of 128 pixels a second (the full net's FLOPs at half of an H200's
# measured speed), fed by 16 cores.
CROPS_PER_CORE = 1426 / 16


def photos(o) -> dict:
    """Crops of JPEG photos of 512 x 384, and what a loop as fast as CROPS_PER_CORE waits for."""
    try:
        from diffv2iqa_jax.data import pristine, shelf
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    count, cores = 64, len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for i, (_, x) in zip(range(4 if o.small else 24), scenes.photos(384), strict=False):
            wide = Image.fromarray(np.concatenate([x, x[:, ::-1]], axis=1)[:, :512])
            wide.save(f"{folder}/{i}.jpg", quality=90)
        files = shelf.Shelf(folder)
        own = {"pp": f"crop({_size(o, 128)})|flip(0.5)", "batch": count, "seed": 0, "start": 0}
        batches = pristine.to_train(files, np.arange(len(files.names)), **own)
        next(batches)
        start = time.process_time()
        row = _times(lambda i: next(batches), o.repeat)
        rate = count * (o.repeat + 2) / (time.process_time() - start)
        step, waited = count / (CROPS_PER_CORE * cores), 0.0
        for _ in range(o.repeat):
            time.sleep(step)  # the device is at work, the loop asleep
            start = time.perf_counter()
            next(batches)
            waited += time.perf_counter() - start
        batches.close()  # before its files are gone
    wait = waited / (waited + o.repeat * step)
    row |= {"crops_per_core_s": rate, "images_per_s": round(1e3 * count / row["ms"])}
    return row | {"input_wait": f"{wait:.2%} of a step of {1e3 * step:.0f} ms, {cores} cores"}


WHAT = {"unet_forward": unet_forward, "unet_train": unet_train, "views": views, "vit": vit}
# The last three time themselves; data and photos run on the host alone.
WHAT |= {"resnet": resnet, "tab": tab, "score": score, "data": lambda o: {"data": data}}
WHAT |= {"distort": lambda o: {"distort": distort}, "photos": lambda o: {"photos": photos}}
WHAT |= {"reading": lambda o: {"reading": reading}}


def _random(path, leaf, g: np.random.Generator) -> jax.Array:
    names = {str(getattr(key, "key", getattr(key, "name", ""))) for key in path}
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(g.integers(0, 256, leaf.shape), leaf.dtype)
    if names & {"scale", "var", "nu", "mask"}:
        return jnp.ones(leaf.shape, leaf.dtype)
    return jnp.asarray(0.02 * g.standard_normal(leaf.shape, np.float32), leaf.dtype)


def _parameters(state):
    """Without an optimiser's moments and a BatchNorm's statistics."""
    state = state[0] if isinstance(state, tuple) else state
    return state.params if isinstance(state, Weights) else state.get("params", state)


def _times(run: Callable[[int], object], repeat: int) -> dict:
    """Milliseconds of run(0), run(1), ...; two more runs before warm up."""
    seconds = []
    for i in range(-2, repeat):
        start = time.perf_counter()
        jax.block_until_ready(run(i))
        seconds.append(time.perf_counter() - start)
    ms = 1e3 * np.array(seconds[2:])
    whole, one, other = (float(np.median(x)) for x in (ms, ms[::2], ms[1::2]))
    return {"ms": whole, "aa_percent": 100 * abs(one - other) / whole}


def measure(case: Case, repeat: int) -> dict:
    """Times, operations and memory of one case."""
    start, g = time.perf_counter(), np.random.default_rng(0)
    compiled = jax.jit(case.fn).lower(*case.shapes).compile()
    row = {"compile_s": time.perf_counter() - start}
    make = lambda tree: jax.tree_util.tree_map_with_path(lambda *leaf: _random(*leaf, g), tree)
    params = make(case.shapes[0])
    inputs = [make(case.shapes[1:]) for _ in range(3)]
    row |= _times(lambda i: compiled(params, *inputs[i % 3]), repeat)
    cost = lambda fn, shapes: (jax.jit(fn).lower(*shapes).cost_analysis() or {}).get("flops", 0.0)
    parts = case.flop or [(case.fn, case.shapes, 1)]
    row["gflop"] = sum(times * cost(fn, shapes) for fn, shapes, times in parts) / 1e9
    row["gflop_per_s"] = 1e3 * row["gflop"] / row["ms"]
    row["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(_parameters(case.shapes[0])))
    memory = compiled.memory_analysis()
    row["temp_mib"] = memory.temp_size_in_bytes / 2**20 if memory else None
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")  # of all rows so far
    return row | {"device_peak_mib": peak and peak / 2**20}


NOTES = ("over", "images_per_s", "prepared_per_s", "cores", "faster", "crops_per_core_s")
NOTES += ("input_wait", "skipped")
COLUMNS = ("ms", "aa_percent", "gflop", "gflop_per_s", "parameters", "temp_mib", "compile_s")


def _line(name: str, row: dict) -> str:
    show = lambda x: f"{x:,.5g}" if isinstance(x, int | float) else x or "-"
    text = f"{name:20}" + "".join(f"{show(row.get(column)):>12}" for column in COLUMNS)
    notes = (f"  {k}: {row[k]}" for k in NOTES if k in row)
    return text + "".join(notes)


def run(o) -> dict[str, dict]:
    """Rows by name. Every case is checked before the first one is compiled."""
    cases, rows = {}, {}
    for what in o.what:
        cases |= WHAT[what](o)
    for case in (case for case in cases.values() if isinstance(case, Case)):
        jax.eval_shape(case.fn, *case.shapes)
    print(_line("", {column: column for column in COLUMNS}))
    for name, case in cases.items():
        rows[name] = row = measure(case, o.repeat) if isinstance(case, Case) else case(o)
        if isinstance(case, Case) and case.against:
            other, times = case.against
            row["over_percent"] = 100 * (row["ms"] / (times * rows[other]["ms"]) - 1)
            row["over"] = f"{row['over_percent']:+.1f} % against {times} x {other}"
        print(_line(name, row), flush=True)
    return rows


NUMBERS = (  # name, default, least, what it is
    ("repeat", 10, 5, "runs of each"),
    ("steps", 50, 1, "of the sampler"),
    ("batch", 1, 1, "images at a time"),
    ("size", None, 1, "side of the images in pixels"),
    ("group", 1, 1, "images of one type distorted at once"),
    ("inner", None, 1, "width of the U-Net's first level"),
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; raises ValueError for an unknown row or a number that is too small."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", metavar="WHAT", default=[*WHAT], help=f"of {[*WHAT]}")
    parser.add_argument("--json", type=pathlib.Path, help="also write the rows to this file")
    for name, default, _, text in NUMBERS:
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--small", action="store_true", help="tiny nets: does it run at all?")
    o = parser.parse_args(argv)
    unknown = [what for what in o.what if what not in WHAT]
    if unknown:
        raise ValueError(f"{unknown}: known are {[*WHAT]}")
    for name, _, least, _ in NUMBERS:
        if (value := getattr(o, name)) is not None and value < least:
            raise ValueError(f"--{name} {value}: must be at least {least}")
    if o.json and not o.json.absolute().parent.is_dir():
        raise ValueError(f"--json {o.json}: there is no such folder")
    return o


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
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
        o.json.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
