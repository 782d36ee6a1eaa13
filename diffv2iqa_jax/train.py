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

from diffv2iqa_jax import baselines, evaluate, plan, report, restorers, rng, views
from diffv2iqa_jax import config as configs
from diffv2iqa_jax.data import builder, pipeline, pristine, splits
from diffv2iqa_jax.training import sharding, steps
from diffv2iqa_jax.training.checkpoint import Checkpoints, digest
from diffv2iqa_jax.training.logs import Log
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.types import Weights

LOG = logging.getLogger(__name__)


class Preempted(Exception):
    """Asked to stop; everything is saved, the same command goes on."""


def run(
    config: dict,
    workdir: str,
    *,
    mode: str = "train",
    stop: Callable[[], bool] = lambda: False,
    stop_at: int | None = None,
) -> dict:
    """Trains, evaluates and reports; started again in the same workdir, it resumes.

    Args:
      config: one of configs/, as plain dicts.
      workdir: the folder of this run.
      mode: "train"; "views" only makes the views; "evaluate" only evaluates what is saved.
      stop: asked before each step; if true the run saves and raises Preempted.
      stop_at: leave before this step without saving, as a killed run would.

    Returns:
      What stands in results.json, {} if the run left early.

    Raises:
      ConfigError: the configuration or the workdir cannot work; nothing was changed then.
      Preempted: `stop` asked for it.
      FloatingPointError: the loss is not finite.
    """
    plan.check(config)
    devices = configs.call(sharding.make, "devices", config["devices"])
    plan.check_devices(config, devices.size)
    resolved, stage1 = plan.resolve(config)
    task = plan.make_task(resolved)
    plan.shapes(task, config["data"]["size"], config["optim"]["frozen"])
    configs.claim(workdir, config)
    done = finished(workdir)
    if done and done["step"] >= config["optim"]["steps"] and mode == "train":
        LOG.info("%s: is complete, %d steps; nothing to do", workdir, done["step"])
        return done
    first = jax.process_index() == 0
    if first:
        configs.write_json(os.path.join(workdir, "env.json"), environment())

    # Data.
    data = open_data(config["data"], config["evaluate"]["val_images"])
    if "restorer_from" in resolved and config["restorer"]["cached"]:
        data.views = make_views(resolved, config, data, stage1, workdir, stop)
    if mode == "views":
        return {}

    # State, made on the devices where it stays, then what was saved of it.
    tx, rate = plan.optimiser(config)
    frozen, seed = config["optim"]["frozen"], config["seed"]
    example = {k: v[:1] for k, v in next(data.train(0)).items()}

    def create(key, stage1):
        weights = task.init(key, example)
        if stage1 is not None:
            weights = weights.replace(
                params={**weights.params, "restorer": stage1.params},
                stats={**weights.stats, "restorer": stage1.stats},
            )
        return TrainState.create(weights, tx, frozen)

    state = devices.init(create, rng.stream(seed, "init"), stage1)
    checkpoints = Checkpoints(workdir, keep=config["keep"])
    saved = checkpoints.restore(devices.single(state), frozen)
    if saved is None and mode == "evaluate":
        raise configs.ConfigError(f"workdir {workdir}: holds no checkpoint to evaluate; train it")
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
    predict = devices.predict(steps.make_predict_step(task, evaluate.OUTPUTS[kind]))
    everything = devices.predict(steps.make_predict_step(task))

    def measure(weights, ids):
        rows = evaluate.outputs(predict, weights, data.test(ids), devices)
        table = evaluate.MEASURES[kind](rows)
        return table, evaluate.summarise(kind, table, data.table["type"][table["id"]])

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
            log.write(step, evaluate.curve(kind, measure(state.weights(), data.val_ids)[1]))
            log.resume()

    # The end: the test part, seen once, by the last weights. Nothing was selected on it.
    weights, step = state.weights(), int(jax.device_get(devices.single(state)).step)
    table, results = measure(weights, data.test_ids)
    results = {"task": kind, "step": step, "part": "test", **data.protocol(), **results}
    if kind == "quality" and config["evaluate"]["baselines"]:
        untrained = devices.init(create, rng.stream(seed, "init"), stage1).weights()
        before = measure(untrained, data.test_ids)[1]["scores"]["score"]["srcc"]
        bars = baselines.srcc(data.test(data.test_ids))
        results["baselines"] = {"untrained": before, **bars}
    chosen = evaluate.choose(kind, table, data.table, config["evaluate"]["examples"])
    rows = evaluate.outputs(everything, weights, data.test(sorted(chosen)), devices)
    if first:
        evaluate.write_table(os.path.join(workdir, "predictions.csv"), table, data.table)
        evaluate.write_examples(os.path.join(workdir, "examples.npz"), rows, chosen)
        configs.write_json(os.path.join(workdir, "results.json"), results)
        report.write(workdir)
    log.close()
    checkpoints.close()
    return results


def open_data(settings: dict, val_images: int):
    """The data of a run: a built data set, or photos to distort.

    Raises:
      ConfigError: there are no photos, or too many damaged ones.
    """
    if settings["name"] != pristine.NAME:
        return Data(settings, val_images)
    process = (jax.process_index(), jax.process_count())
    try:
        return pristine.Pristine(settings, val_images, process)
    except ValueError as error:
        raise configs.ConfigError(f"config.data: {error}") from error


class Data:
    """The parts of a run's data set, as batches."""

    def __init__(self, settings: dict, val_images: int):
        name, folder = settings["name"], os.path.expanduser(settings["folder"])
        if not builder.found(name, folder):
            LOG.info("building data set %s in %s", name, folder)
            builder.prepare(name, folder)
        self._settings = settings
        self.source = pipeline.load(name, folder)
        self.table = self.source.table
        self.views = None
        parts = splits.split(
            self.table["group"], settings["split"], fractions=tuple(settings["fractions"])
        )
        self._digest = splits.digest(*parts)
        self.train_ids, self.val_ids, self.test_ids = parts
        self.val_ids = self.val_ids[:: max(1, -(-len(self.val_ids) // val_images))]
        self._process = (jax.process_index(), jax.process_count())

    def _pp(self, key: str) -> str:
        return self._settings[key].format(size=self._settings["size"])

    def train(self, start: int):
        return pipeline.to_train(
            self.source,
            self.train_ids,
            pp=self._pp("pp_train"),
            batch=self._settings["batch"],
            seed=self._settings["split"],
            start=start,
            views=self.views,
            process=self._process,
            cache=self._settings["cache"],
        )

    def test(self, ids):
        return pipeline.to_evaluate(
            self.source,
            np.asarray(ids),
            pp=self._pp("pp_test"),
            batch=self._settings["batch"],
            views=self.views,
            process=self._process,
        )

    def protocol(self) -> dict:
        """What has to stand beside every number."""
        keys = ("name", "split", "fractions", "size", "pp_test")
        facts = {k: self._settings[k] for k in keys}
        facts |= {"split_sha256": self._digest, "selection": "last step"}
        facts["references"] = len(set(self.table["group"][self.test_ids].tolist()))
        return {"protocol": facts}


def make_views(resolved: dict, config: dict, data: Data, weights: Weights, workdir, stop):
    """Runs the views pass; returns where the views are."""
    folder = config["restorer"]["folder"] or os.path.join(workdir, "views")
    settings = resolved["restorer"]
    meta = views.describe(settings, digest(weights), data.source.name)
    ids = np.sort(np.concatenate([data.train_ids, data.val_ids, data.test_ids]))
    made = views.run(
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
    return views.stored(folder, settings)


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
