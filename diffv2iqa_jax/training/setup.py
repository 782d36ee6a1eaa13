"""From a resolved configuration to what a run works with: task, optimiser, compiled steps."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from diffv2iqa_jax import rng
from diffv2iqa_jax.config import call, plain
from diffv2iqa_jax.distortions.names import PAIRS
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.models import building, quality
from diffv2iqa_jax.tasks import distorting as tasks_distorting
from diffv2iqa_jax.tasks import restorers, stages
from diffv2iqa_jax.tasks.example import example
from diffv2iqa_jax.training import optim, sharding, steps
from diffv2iqa_jax.training.state import TrainState, check_rates, partition
from diffv2iqa_jax.types import Task, Views, Weights
from diffv2iqa_jax.weights import files

Devices = sharding.Jit | sharding.Pmap
# The sections that compiled steps depend on; of `data`, only these keys.
COMPILED = ("task", "seed", "restorer", "model", "loss", "branch_loss", "optim", "devices")
COMPILED_DATA = ("size", "distort")


@dataclasses.dataclass(frozen=True)
class Programs:
    """The steps of a configuration; what they compiled is kept as long as this is.

    Attributes:
      kind: of task.
      devices: where arrays live.
      shapes: of the task's weights.
      create: (key, pretrained) -> the state before the first step.
      train_step: (state, batch) -> (state, metrics); the state is donated.
      predict: (weights, batch) -> what is measured.
      everything: (weights, batch) -> all outputs of the task, for examples.
    """

    kind: str
    devices: Devices
    shapes: Weights
    create: Callable
    train_step: Callable
    predict: Callable
    everything: Callable


def key_of(resolved: dict[str, Any]) -> str:
    """What the compiled steps of a resolved configuration depend on, as text."""
    sections = {key: resolved[key] for key in COMPILED if key in resolved}
    data = {key: resolved["data"][key] for key in COMPILED_DATA if key in resolved["data"]}
    return json.dumps(plain(sections | {"data": data}), sort_keys=True)


def programs(resolved: dict[str, Any], kept: dict[str, Programs] | None = None) -> Programs:
    """The steps of a resolved configuration, on all devices.

    Args:
      kept: those of earlier runs by `key_of`; taken from there, or added to it.

    Raises:
      ConfigError: the devices cannot be used so, they do not divide the batch, the task cannot be
        built, or an expression of the optimiser matches nothing.
    """
    devices = call(sharding.make, "devices", resolved["devices"])
    check_devices(resolved, devices.size)
    kept, key = {} if kept is None else kept, key_of(resolved)
    if key not in kept:
        kept[key] = build(resolved, devices)
    return kept[key]


def check_devices(config: dict, count: int) -> None:
    """Refuses a batch that `count` devices cannot share evenly."""
    batch, accumulate = config["data"]["batch"], config["optim"]["accumulate"]
    if accumulate < 1 or batch % (count * accumulate):
        raise ConfigError(
            f"config.data.batch {batch}: must be a multiple of {count} devices x "
            f"optim.accumulate {accumulate}; try {-(-batch // (count * accumulate))}"
            f" x {count * accumulate}"
        )


def begin(
    programs: Programs, seed: int, pretrained: dict[str, Weights]
) -> Callable[[], TrainState]:
    """The function that makes the state before the first step, on the devices where it stays."""
    key = rng.stream(seed, "init")
    return lambda: programs.devices.init(programs.create, key, pretrained)


def distorting(task: Task, pairs: int = 0, test: str = "", **settings: Any) -> Task:
    """Wraps a task so that each step distorts its images.

    Args:
      pairs, test: only for evaluation; checked here because their section is.
      settings: of `tasks.distorting.distorting`.
    """
    if not 0 <= pairs <= len(PAIRS):
        raise ValueError(f"pairs {pairs}: must be 0 (all) to {len(PAIRS)}")
    return tasks_distorting.distorting(task, **settings)


def optimiser(config: dict[str, Any]) -> tuple[optax.GradientTransformation, Callable]:
    """The update rule and the learning rate of the configuration."""
    other = ("frozen", "accumulate", "remat", "average")
    settings = {k: v for k, v in config["optim"].items() if k not in other}
    return call(optim.make, "optim", settings)


def make_task(config: dict[str, Any]) -> Task:
    """The task of a resolved configuration."""
    task = call(stages.TASKS[config["task"]], config["task"], stages.settings(config))
    if "distort" in config["data"]:
        task = call(distorting, "data.distort", config["data"]["distort"], task=task)
    return task


def shapes(task: Task, size: int, frozen: str = "", rates: tuple = ()) -> Weights:
    """Shapes of the task's weights for images of `size`; nothing is computed.

    Raises:
      ConfigError: the task cannot be built, or an expression of the optimiser matches nothing.
    """
    try:
        weights = jax.eval_shape(task.init, rng.stream(0, "init"), _forms(example(size)))
    except building.UNFIT as error:
        raise ConfigError(f"config, with data.size {size}: {building.why(error)}") from error
    trained, _ = call(partition, "optim", {"frozen": frozen}, params=weights.params)
    call(check_rates, "optim", {"rates": rates}, names=trained)
    return weights


def shapes_of(resolved: dict[str, Any]) -> Weights:
    """As `shapes`, of a resolved configuration."""
    settings = resolved["optim"]
    size = resolved["data"]["size"]
    return shapes(make_task(resolved), size, settings["frozen"], settings["rates"])


def unfit(resolved: dict[str, Any], sides: tuple[int, int], weights: Weights) -> str:
    """Why a net does not take pictures of these sides, height and width; "" if it does.

    Args:
      weights: shapes of the task's weights, which those of such pictures must equal.
    """
    key = rng.stream(0, "init")
    if resolved["task"] == "quality":  # its restorer fills up what its net does not take
        net = quality.QualityModel(**resolved["model"])
        shape = (1, restorers.count(**resolved["restorer"]), *sides, 3)
        start, weights = net.init, weights.params["quality"]
        example_of = Views(jax.ShapeDtypeStruct(shape, np.float32))
    else:
        picture = np.zeros((1, *sides, 3), np.uint8)
        start = make_task(resolved).init
        example_of = _forms(example(1) | {"image": picture, "reference": picture})
    try:
        variables = jax.eval_shape(start, key, example_of)
    except building.UNFIT as error:
        return building.why(error)
    variables = variables["params"] if resolved["task"] == "quality" else variables
    same = jax.tree.map(lambda a, b: a.shape == b.shape, variables, weights)
    return "" if all(jax.tree.leaves(same)) else "its weights would have other shapes"


def _forms(batch: dict[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes alone: nothing is put on a device."""
    return {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}


def build(resolved: dict[str, Any], devices: Devices) -> Programs:
    """The steps of a resolved configuration on these devices; they may be a compiler's alone."""
    task, optimisation = make_task(resolved), resolved["optim"]
    size, frozen = resolved["data"]["size"], optimisation["frozen"]
    tx, rate = optimiser(resolved)

    def create(key: jax.Array, pretrained: dict[str, Weights]) -> TrainState:
        weights = task.init(key, example(size))
        for place, part in pretrained.items():
            weights = files.place(weights, place, part)
        return TrainState.create(weights, tx, frozen)

    weights = shapes(task, size, frozen, optimisation["rates"])
    gradients = steps.make_gradients(
        task,
        seed=resolved["seed"],
        accumulate=optimisation["accumulate"],
        recompute=optimisation["remat"],
    )
    train_step = steps.make_train_step(
        devices.gradients(gradients), tx, average=optimisation["average"], rate=rate
    )
    state = jax.eval_shape(create, rng.stream(0, "init"), {})
    kind = resolved["task"]
    from diffv2iqa_jax.evaluation.predictions import OUTPUTS  # SciPy: checks do not wait for it

    return Programs(
        kind=kind,
        devices=devices,
        shapes=weights,
        create=create,
        train_step=devices.train(train_step, state),
        predict=devices.predict(steps.make_predict_step(task, OUTPUTS[kind])),
        everything=devices.predict(steps.make_predict_step(task)),
    )
