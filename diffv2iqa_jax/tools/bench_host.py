"""Rows of `bench` that feed a net: reading, cropping and distorting pictures.

Each function takes the options of `bench` and returns a row. TensorFlow is imported only by the
rows that need it; without it they say that they were skipped.
"""

import argparse
import os
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import host_reference, kadid
from diffv2iqa_jax.tools.timing import times

# A GPU that trains on 1,426 crops of 128 pixels a second (the full net's FLOPs at half of an H200's
# measured speed), fed by 16 cores.
CROPS_PER_CORE = 1426 / 16


def data(o: argparse.Namespace) -> dict[str, Any]:
    """Ten training batches of the built-in data set, decoded and cropped."""
    try:
        from diffv2iqa_jax.data import pipeline
        from diffv2iqa_jax.data import reading as data_sets
        from diffv2iqa_jax.data.sets import registry
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    name, size = "builtin/tiny" if o.small else "builtin/small", side(o, 48)
    with tempfile.TemporaryDirectory() as folder:
        registry.prepare(name, folder)
        source = data_sets.load(name, folder)
        settings = {"pp": f"crop({size})", "batch": o.batch, "seed": 0, "start": 0}
        batches = pipeline.to_train(source, source.table["id"], **settings)
        row = times(lambda i: [next(batches) for _ in range(10)], o.repeat)
    return row | {"images_per_s": round(1e4 * o.batch / row["ms"])}


def reading(o: argparse.Namespace) -> dict[str, Any]:
    """Ten training batches of JPEG photos of 512 x 384, cropped to 224; and preparing them."""
    try:
        from diffv2iqa_jax.data import pipeline
        from diffv2iqa_jax.data import reading as data_sets
        from diffv2iqa_jax.data.sets import own, store
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    size, count = (64, 16) if o.small else (512, 256)
    crop, batch = (16 if o.small else side(o, 224)), max(o.batch, 8)
    with tempfile.TemporaryDirectory() as folder:
        raw = pathlib.Path(folder, "raw")
        raw.mkdir()
        pictures = [Image.fromarray(scenes.scene(i, size)[: size * 3 // 4]) for i in range(8)]
        for i in range(count):
            pictures[i % 8].save(raw / f"{i}.jpg", quality=90 - i % 5)
        rows, spec, _ = own.pool(raw)
        start = time.perf_counter()
        store.build("pool/bench", folder, spec, rows)
        prepared = count / (time.perf_counter() - start)
        source = data_sets.load("pool/bench", folder)
        settings = {"pp": f"crop({crop})|flip(0.5)", "batch": batch, "seed": 0, "start": 0}
        batches = pipeline.to_train(source, source.table["id"], **settings)
        row = times(lambda i: [next(batches) for _ in range(10)], o.repeat)
    row |= {"images_per_s": round(1e4 * batch / row["ms"]), "prepared_per_s": round(prepared)}
    return row | {"cores": cores()}


def distort(o: argparse.Namespace) -> dict[str, Any]:
    """All 25 types and 5 levels mixed in one batch, beside the host's libraries."""
    count, size = 8 if o.small else 64, 32 if o.small else side(o, 128)
    images = np.stack([x for _, x in scenes.photos(size)])
    images = images[np.arange(count) % len(images)]
    type, level = np.arange(count) % 25, 1 + np.arange(count) // 5 % 5
    x, args = pixels.to_float(jnp.asarray(images)), (type.astype(np.int32), level.astype(np.int32))
    device = jax.jit(lambda key, x: kadid.distort(key, x, *args, group=o.group))
    compiled = device.lower(rng.stream(0, "bench"), x).compile()
    names = [kadid.TYPES[t] for t in type]

    def on_host(i: int) -> list[np.ndarray]:
        todo = zip(images, names, level.tolist(), strict=True)
        return [host_reference.distort(*one, seed=i + 2) for one in todo]

    host_ms = times(on_host, max(5, o.repeat // 4))["ms"]
    row = times(lambda i: compiled(rng.stream(i + 2, "bench"), x), o.repeat)
    row |= {"temp_mib": compiled.memory_analysis().temp_size_in_bytes / 2**20}
    row |= {"images_per_s": round(1e3 * count / row["ms"]), "host_ms": host_ms}
    return row | {"faster": f"{host_ms / row['ms']:.2f} times than Pillow and SciPy"}


def photos(o: argparse.Namespace) -> dict[str, Any]:
    """Crops of JPEG photos of 512 x 384, and what a loop as fast as CROPS_PER_CORE waits for."""
    try:
        from diffv2iqa_jax.data import pristine, shelf
    except ModuleNotFoundError as error:
        return {"skipped": f"{error.name} is not installed"}
    count = 64
    with tempfile.TemporaryDirectory() as folder:
        for i, (_, x) in zip(range(4 if o.small else 24), scenes.photos(384), strict=False):
            wide = Image.fromarray(np.concatenate([x, x[:, ::-1]], axis=1)[:, :512])
            wide.save(f"{folder}/{i}.jpg", quality=90)
        files = shelf.Shelf(folder)
        settings = {"pp": f"crop({side(o, 128)})|flip(0.5)", "batch": count, "seed": 0, "start": 0}
        batches = pristine.to_train(files, np.arange(len(files.names)), **settings)
        next(batches)
        start = time.process_time()
        row = times(lambda i: next(batches), o.repeat)
        rate = count * (o.repeat + 2) / (time.process_time() - start)
        step, waited = count / (CROPS_PER_CORE * cores()), 0.0
        for _ in range(o.repeat):
            time.sleep(step)  # the device is at work, the loop asleep
            start = time.perf_counter()
            next(batches)
            waited += time.perf_counter() - start
        batches.close()  # before its files are gone
    wait = waited / (waited + o.repeat * step)
    row |= {"crops_per_core_s": rate, "images_per_s": round(1e3 * count / row["ms"])}
    return row | {"input_wait": f"{wait:.2%} of a step of {1e3 * step:.0f} ms, {cores()} cores"}


ROWS = {"data": data, "distort": distort, "photos": photos, "reading": reading}


def side(o: argparse.Namespace, usual: int) -> int:
    """Side of the images in pixels: what was asked for, 16 with --small, or the usual."""
    return o.size or (16 if o.small else usual)


def cores() -> int:
    """How many this process may use."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(usable(0))
