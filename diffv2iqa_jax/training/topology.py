"""What the training step is on chips that are not there (--dry_run --topology)."""

import contextlib
import importlib.util
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import jax
from jax.experimental import topologies

from diffv2iqa_jax import rng
from diffv2iqa_jax.config import call
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.tasks import restorers
from diffv2iqa_jax.tasks.example import example
from diffv2iqa_jax.training import setup, sharding

# What libtpu calls a slice of each kind: its name, then the cores or chips in its number.
KINDS = {"v4": ("v4", 2), "v5e": ("v5litepod", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1)}
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
WIDTHS = {"pred": 1, "bf16": 2}  # bytes; of others the name ends in the bits


def chips(name: str) -> list[jax.Device]:
    """The chips of a topology, for the compiler alone: nothing runs on them.

    Args:
      name: a kind of chip and how they are laid out, as "v5e:4x4".

    Raises:
      ConfigError: no such topology, or the compiler for TPUs (libtpu) is not here.
    """
    kind, _, layout = name.partition(":")
    if kind not in KINDS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", layout):
        raise ConfigError(
            f"--topology {name!r}: must be one of {sorted(KINDS)}, a colon and how the chips lie, "
            "as in v5e:4x4"
        )
    libtpu = importlib.util.find_spec("libtpu")
    if libtpu is None:
        raise ConfigError(
            f"--topology {name}: needs the compiler for TPUs; pip install 'diffv2iqa_jax[tpu]'"
        )
    count = math.prod(int(side) for side in layout.split("x"))
    prefix, each = KINDS[kind]
    alone = {  # without these libtpu looks for the machine's own chips
        "TPU_LIBRARY_PATH": os.path.join(
            next(iter(libtpu.submodule_search_locations)), "libtpu.so"
        ),
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is touched: several may compile at once
        "TPU_ACCELERATOR_TYPE": f"{prefix}-{count * each}",
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    with _environment(alone):
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        except Exception as error:  # of which kind differs between versions
            raise ConfigError(f"--topology {name}: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def report(config: dict, devices: Sequence[jax.Device]) -> list[str]:
    """Compiles the training step for these devices and says what it needs, line by line.

    Args:
      config: resolved, as `initialize.resolve` gives it.
      devices: real ones, or `chips`.

    Raises:
      ConfigError: the configuration does not fit the devices, or is mapped by pmap.
    """
    if config["devices"]["map"] != "jit":
        raise ConfigError("config.devices.map 'pmap': --topology compiles for 'jit' alone")
    setup.check_devices(config, len(devices))
    where = call(sharding.make, "devices", config["devices"], devices=devices)
    programs = setup.build(config, where)
    state = jax.eval_shape(programs.create, rng.stream(0, "shapes"), {})
    try:
        program = programs.train_step.lower(state, _batch(config)).compile()
    except jax.errors.JaxRuntimeError as error:  # as when it does not fit the chip's memory
        raise ConfigError(f"--topology: the compiler says: {str(error).splitlines()[0]}") from error
    memory = program.memory_analysis()
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "of the arguments reused": memory.alias_size_in_bytes,
    }
    parts = ", ".join(f"{size / 2**20:.1f} MiB {what}" for what, size in sizes.items())
    flops = program.cost_analysis().get("flops", 0.0)
    return [
        f"devices       {len(devices)} x {devices[0].device_kind}",
        f"memory        {parts}; on each",
        *[f"collective    {line}" for line in collectives(program.as_text())],
        f"FLOPs         {flops / 1e9:.2f} G a step on each, a loop's body counted once",
    ]


def _batch(config: dict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a training batch, with stored views where a step has these."""
    size, count, restorer = config["data"]["size"], config["data"]["batch"], config["restorer"]
    batch = {k: (v.shape[1:], v.dtype) for k, v in example(size).items()}
    if config["task"] == "quality" and restorer["kind"] != "none":
        views = restorers.count(**restorer) - 1
        batch["views"] = ((views, size, size, 3), restorer["views_dtype"])
    return {k: jax.ShapeDtypeStruct((count, *shape), dtype) for k, (shape, dtype) in batch.items()}


def collectives(hlo: str) -> list[str]:
    """What the devices exchange in a compiled program, by operation, dtype and place.

    Bytes are of what each operation puts out on one device. What lies in a loop's body happens
    in each turn.
    """
    count, size, entry = Counter(), Counter(), False
    for line in hlo.splitlines():
        if line.endswith("{"):
            entry = line.startswith("ENTRY")
        match = re.search(rf"= (.*?) ({COLLECTIVES})(-start)?\(", line)
        if not match:
            continue
        for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", match[1]):
            key = (match[2], dtype, "once" if entry else "in a loop or branch")
            width = WIDTHS.get(dtype) or int(re.search(r"\d+$", dtype)[0]) // 8
            size[key] += width * math.prod(int(n) for n in sides.split(",") if n)
            count[key] += 1
    return [
        f"{kind} of {count[key]} {dtype} array(s), {size[key] / 2**20:.2f} MiB, {place}"
        for key in sorted(size)
        for kind, dtype, place in [key]
    ] or ["none"]
