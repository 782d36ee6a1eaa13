"""One loop for both stages: trains, evaluates, saves; started again, it goes on."""

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import errors, rng
from diffv2iqa_jax.data import pristine
from diffv2iqa_jax.data.rated import Data
from diffv2iqa_jax.evaluation import baselines, predictions
from diffv2iqa_jax.pp import spec
from diffv2iqa_jax.reporting import write
from diffv2iqa_jax.tasks import restorers
from diffv2iqa_jax.training import checks, initialize, setup, sharding, steps, view_cache
from diffv2iqa_jax.training.checkpoint import Checkpoints, digest
from diffv2iqa_jax.training.logs import Log
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.types import Weights
from diffv2iqa_jax.weights import files

LOG = logging.getLogger(__name__)


class Preempted(Exception):
    """Asked to stop; everything is saved, the same command goes on."""


def run(
    config: dict,
    workdir: str,
    *,
    mode: str = "train",
    on: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    stop_at: int | None = None,
) -> dict:
    """Trains, evaluates and reports; started again in the same workdir, it resumes.

    Args:
      config: one of configs/, as plain dicts.
      workdir: the folder of this run.
      mode: "train"; "views" only makes the views; "evaluate" only evaluates what is saved.
      on: with "evaluate": all of another data set; what is found goes to eval/ in the workdir.
      stop: asked before each step; if true the run saves and raises Preempted.
      stop_at: leave before this step without saving, as a killed run would.

    Returns:
      What stands in results.json, {} if the run left early.

    Raises:
      ConfigError: the configuration or the workdir cannot work; nothing was changed then.
      Preempted: `stop` asked for it.
      FloatingPointError: the loss is not finite.
    """
    checks.check(config)
    checks.check_prepared(config, on)
    devices = configs.call(sharding.make, "devices", config["devices"])
    checks.check_devices(config, devices.size)
    resolved, stage1 = initialize.resolve(config)
    task = setup.make_task(resolved)
    frozen, rates = config["optim"]["frozen"], config["optim"]["rates"]
    like = setup.shapes(task, config["data"]["size"], frozen, rates)
    given = initialize.parts(resolved, like)
    configs.claim(workdir, config)
    done = finished(workdir)
    if done and done["step"] >= config["optim"]["steps"] and mode == "train":
        LOG.info("%s: is complete, %d steps; nothing to do", workdir, done["step"])
        return done
    first = jax.process_index() == 0
    if first:
        configs.write_json(os.path.join(workdir, "env.json"), environment())

    # Data.
    data = open_data(config["data"], config["evaluate"]["val_images"], on)
    if config["task"] == "quality" and on is None and not data.rated:
        raise errors.ConfigError(
            f"config.data.name {data.source.name!r}: has no opinions to learn from; a pool is for "
            "--mode evaluate --on"
        )
    out = workdir if on is None else os.path.join(workdir, "eval", on.replace("/", "-"))
    if "restorer_from" in resolved and config["restorer"]["cached"]:
        folder = config["restorer"]["folder"] if on is None else ""
        folder = folder or os.path.join(out, "views")
        data.views = make_views(resolved, config, data, stage1, folder, stop)
    if mode == "views":
        return {}

    # State, made on the devices where it stays, then what was saved of it.
    tx, rate = setup.optimiser(config)
    seed = config["seed"]
    example = {k: v[:1] for k, v in next(data.train(0)).items()}

    def create(key, given):
        weights = task.init(key, example)
        for at, source in given.items():
            weights = files.place(weights, at, source)
        return TrainState.create(weights, tx, frozen)

    given = given if stage1 is None else {**given, "restorer": stage1}
    state = devices.init(create, rng.stream(seed, "init"), given)
    checkpoints = Checkpoints(workdir, keep=config["keep"])
    saved = checkpoints.restore(devices.single(state), frozen)
    if saved is None and mode == "evaluate":
        raise errors.ConfigError(f"workdir {workdir}: holds no checkpoint to evaluate; train it")
    state = state if saved is None else devices.spread(saved)
    start = 0 if saved is None else int(saved.step)
    total = config["optim"]["steps"]
    LOG.info("%s: starting at step %d of %d", workdir, start, total)

    # Compiled steps.
    gradients = steps.make_gradients(task, seed=seed, accumulate=config["optim"]["accumulate"])
    train_step = devices.train(
        steps.make_train_step(
            devices.gradients(gradients), tx, average=config["optim"]["average"], rate=rate
        ),
        state,
    )
    kind = config["task"]
    predict = devices.predict(steps.make_predict_step(task, predictions.OUTPUTS[kind]))
    everything = devices.predict(steps.make_predict_step(task))

    def measure(weights, ids):
        rows = predictions.outputs(predict, weights, data.test(ids), devices)
        table = predictions.MEASURES[kind](rows)
        types = data.table["type"][table["id"]]
        return table, predictions.summarise(kind, table, types, span=data.span)

    # The loop.
    log = Log(
        workdir,
        start=start,
        steps=total,
        batch=config["data"]["batch"],
        tensorboard=config["tensorboard"],
        quiet=not first,
    )
    batches = log.watch(data.train(start))
    for step in range(start + 1, total + 1 if mode == "train" else 0):
        if step == stop_at:
            return {}
        if stopping(stop, step):
            checkpoints.save(devices.single(state), resolved)
            checkpoints.close()
            raise Preempted(f"saved at step {step - 1} of {total}")
        state, metrics = train_step(state, devices.put(next(batches)))
        if step % config["every"]["log"] == 0 or step == total:
            values = {k: float(v) for k, v in jax.device_get(devices.single(metrics)).items()}
            if not all(np.isfinite(v) for v in values.values()):
                raise FloatingPointError(f"step {step}: {values}; the last checkpoint is intact")
            log.train(step, values)
        if step % config["every"]["save"] == 0 or step == total:
            checkpoints.save(devices.single(state), resolved)
        if step % config["every"]["evaluate"] == 0 and len(data.val_ids):
            log.pause()
            log.write(step, predictions.curve(kind, measure(state.weights(), data.val_ids)[1]))
            log.resume()

    if mode == "train" and total == 0:  # weights from elsewhere become a run
        checkpoints.save(devices.single(state), resolved)

    # The end: the test part, seen once, by the last weights. Nothing was selected on it.
    weights, step = state.weights(), int(jax.device_get(devices.single(state)).step)
    results = {"task": kind, "step": step, "part": "test", **data.protocol(resolved)}
    if not len(data.test_ids):  # trained on everything: other data sets judge it
        results |= {"part": "none", "images": 0, "scores": {}, "per_type": {}}
        return finish(out, results, log, checkpoints, first)
    table, found = measure(weights, data.test_ids)
    results |= found
    if kind == "quality" and config["evaluate"]["baselines"] and on is None:
        untrained = devices.init(create, rng.stream(seed, "init"), given).weights()
        before = measure(untrained, data.test_ids)[1]["scores"]["score"]["srcc"]
        bars = baselines.srcc(data.test(data.test_ids))
        results["baselines"] = {"untrained": before, **bars}
    chosen = predictions.choose(kind, table, data.table, config["evaluate"]["examples"])
    rows = predictions.outputs(everything, weights, data.test(sorted(chosen)), devices)
    if first:
        os.makedirs(out, exist_ok=True)
        predictions.write_table(os.path.join(out, "predictions.csv"), table, data.table)
        predictions.write_examples(os.path.join(out, "examples.npz"), rows, chosen)
    return finish(out, results, log, checkpoints, first)


def finish(out: str, results: dict, log: Log, checkpoints: Checkpoints, first: bool) -> dict:
    """Writes what was found, draws the report, closes everything."""
    if first:
        os.makedirs(out, exist_ok=True)
        configs.write_json(os.path.join(out, "results.json"), results)
        write.write(out)
    log.close()
    checkpoints.close()
    return results


def open_data(settings: dict, val_images: int, on: str | None):
    """The data of a run: a built data set, or photos to distort.

    Raises:
      ConfigError: there are no photos, or too many damaged ones.
    """
    if settings["name"] != pristine.NAME:
        return Data(settings, val_images, on)
    process = (jax.process_index(), jax.process_count())
    try:
        return pristine.Pristine(settings, val_images, process)
    except ValueError as error:
        raise errors.ConfigError(f"config.data: {error}") from error


def make_views(resolved: dict, config: dict, data: Data, weights: Weights, folder, stop):
    """Runs the views pass; returns where the views are."""
    settings = resolved["restorer"]
    first, _ = spec.head(data.pp("pp_test"))
    meta = view_cache.describe(settings, digest(weights), data.source.name, first)
    ids = np.sort(np.concatenate([data.train_ids, data.val_ids, data.test_ids]))
    made = view_cache.run(
        data.source,
        ids,
        restorers.make(**settings),
        weights,
        folder=folder,
        meta=meta,
        batch=config["data"]["batch"],
        stop=stop,
    )
    if made is None:
        raise Preempted("in the views pass; what is made is kept")
    if jax.process_count() > 1:  # each process made its share; all are read by all
        multihost_utils.sync_global_devices("views")
    return view_cache.stored(folder, settings)


def stopping(stop: Callable[[], bool], step: int) -> bool:
    """Whether to stop before this step; several processes agree on it."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return stop()


def finished(workdir: str) -> dict | None:
    """What stands in a run's results.json, if it has one."""
    path = os.path.join(workdir, "results.json")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def environment() -> dict:
    """Versions, devices and command of this process."""
    packages = "diffv2iqa_jax jax jaxlib flax optax orbax-checkpoint numpy".split()
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "versions": versions,
        "devices": [str(d) for d in jax.devices()][:8],
        "processes": jax.process_count(),
        "argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
