"""What a run would be: parameters, FLOPs, memory, data (--dry_run)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import rng
from diffv2iqa_jax.models import quality, unet
from diffv2iqa_jax.models.layers import BATCH_AXES
from diffv2iqa_jax.tasks import restorers
from diffv2iqa_jax.tasks.example import example
from diffv2iqa_jax.training.opening import Opened
from diffv2iqa_jax.training.setup import make_task, optimiser, shapes
from diffv2iqa_jax.training.state import TrainState, merge, partition
from diffv2iqa_jax.types import Params, Task, Views, Weights


def describe(opened: Opened, devices: int) -> list[str]:
    """What a run would be, line by line.

    Args:
      opened: as `opening.open_run` gives it.
      devices: how many share a batch.
    """
    config = opened.resolved
    if opened.results:
        return [f"is complete, {opened.results['step']} steps; nothing to do"]
    there = "MISSING" if opened.data is None else "found"
    task = make_task(config)
    data, size = config["data"], config["data"]["size"]
    frozen = config["optim"]["frozen"]
    weights = shapes(task, size, frozen, config["optim"]["rates"])
    flat, fixed = partition(weights.params, frozen)
    tx, _ = optimiser(config)
    state = jax.eval_shape(lambda w: TrainState.create(w, tx, frozen), weights)
    held = _bytes(state)
    local = data["batch"] // devices // config["optim"]["accumulate"]
    saved, flops = _activations(task, weights, config, local), _forward_flops(config, weights)
    length = f"{config['optim']['steps']} steps x {data['batch']} images"
    lines = [
        f"task          {config['task']}, {length}",
        f"parameters    {_count(flat):,} trained, {_count(fixed):,} frozen",
        *[f"FLOPs         {value / 1e9:.2f} G per image, {what}" for what, value in flops],
        f"memory        {held / 2**20:.0f} MiB state on each of {devices} device(s)"
        f" + about {saved / 2**20:.0f} MiB kept for the backward pass ({local} images at a time)",
        f"data          {data['name']} in {data['folder']}: {there}",
    ]
    if opened.backbones:
        lines.append(f"backbones     {opened.backbones}")
    if "restorer_from" in config:
        lines.append(f"restorer      {config['restorer_from']}")
    return lines


def _count(tree: Params) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _bytes(tree: Params) -> int:
    return sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(tree))


def _flops(fn: Callable, *args: Params) -> float:
    """Floating point operations of one call, as XLA counts them before optimising."""
    cost = jax.jit(fn).lower(*args).cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost).get("flops", 0.0))


def _activations(task: Task, weights: Weights, config: dict, images: int) -> float:
    """Bytes that differentiation keeps, before the compiler saves any: weights not counted."""
    batch = example(config["data"]["size"])
    restorer = config["restorer"]
    if config["task"] == "quality" and restorer["kind"] != "none":
        shape = (1, restorers.count(**restorer) - 1, *batch["image"].shape[1:])
        batch["views"] = np.zeros(shape, restorer["views_dtype"])
    batch = {k: np.repeat(v, images, axis=0) for k, v in batch.items()}
    trainable, fixed = partition(weights.params, config["optim"]["frozen"])

    def residuals(trainable: Params, fixed: Params, stats: Params) -> Callable:
        def loss(trainable: Params) -> tuple:
            return task.loss(
                Weights(merge(trainable, fixed), stats), batch, rng.stream(0, "shapes")
            )

        return jax.vjp(loss, trainable, has_aux=True)[1]

    # A step's BatchNorm averages over the devices: here there is one.
    on_one = residuals
    for axis in BATCH_AXES:
        on_one = jax.vmap(on_one, in_axes=None, axis_name=axis, axis_size=1)
    kept = jax.eval_shape(on_one, trainable, fixed, weights.stats)
    return max(_bytes(kept) - _bytes(weights.params), 0)


def _forward_flops(config: dict, weights: Weights) -> list[tuple[str, float]]:
    """Forward passes per image, from the parts without their loops (XLA counts a loop once)."""
    size, restorer = config["data"]["size"], config["restorer"]
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    out = []
    if restorer["kind"] == "diffusion":
        net = unet.UNet(**restorer["net"], dtype=restorer["dtype"])
        params = weights.params if config["task"] == "restoration" else weights.params["restorer"]
        level = jax.ShapeDtypeStruct((1,), jnp.float32)
        condition = image if restorer["conditional"] else None

        def denoise(params: Params, *inputs: jax.Array) -> jax.Array:
            return net.apply({"params": params}, *inputs)

        once = _flops(denoise, params, condition, image, level)
        steps = restorer["sampling"]["steps"]
        out += [("denoiser, one step", once), (f"views, {steps} steps", steps * once)]
    if config["task"] == "quality":
        views = restorers.count(**restorer)
        model = quality.QualityModel(**_unblocked(config["model"]))
        parts = {"params": weights.params, "batch_stats": weights.stats}
        variables = {kind: tree.get("quality", {}) for kind, tree in parts.items()}
        stack = jax.ShapeDtypeStruct((1, views, size, size, 3), jnp.float32)

        def score(variables: dict[str, Params], image_BVHWC: jax.Array) -> jax.Array:
            return model.apply(variables, Views(image_BVHWC))["score"]

        out.append(("branches", _flops(score, variables, stack)))
    return out


def _unblocked(model: dict) -> dict:
    """The same model with its channel attention in one piece, for counting."""
    branches = {}
    for name, branch in model["branches"].items():
        tab = {"tab": {**branch["tab"], "block": None}} if branch.get("tab") else {}
        branches[name] = {**branch, **tab}
    return {**model, "branches": branches}
