"""The views pass: restores every image of a data set once and stores what stage 2 looks at.

A folder of views, local or in a bucket, holds meta.json (what they were made with) and shards, see
`data.stored_views`. A shard is complete or not there, so a killed pass goes on with what no shard
holds; each process makes its own share, and may be one of another number than before.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.data import evaluation, rated, stored_views
from diffv2iqa_jax.data.reading import Source
from diffv2iqa_jax.data.stored_views import StoredViews
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.pp import spec
from diffv2iqa_jax.tasks import restorers
from diffv2iqa_jax.training import processes, stopping
from diffv2iqa_jax.training.checkpoint import checksums
from diffv2iqa_jax.training.stopping import Preempted
from diffv2iqa_jax.types import Restorer, Weights

LOG = logging.getLogger(__name__)
META = "meta.json"


def make(
    resolved: dict[str, Any],
    data: rated.Rated,
    weights: Weights,
    folder: str,
    stop: Callable[[], bool],
) -> StoredViews:
    """Makes the views that a run's folder lacks, of all images of its data set.

    Raises:
      ConfigError: the folder holds views of other weights, settings or data.
      Preempted: `stop` asked for it.
    """
    settings = resolved["restorer"]
    count = restorers.count(**settings) - 1
    views = StoredViews(folder, settings["views_dtype"], count)
    ids = np.sort(np.concatenate([data.train_ids, data.val_ids, data.test_ids]))
    finished = run(
        data.source,
        ids,
        restorers.make(**settings),
        weights,
        views=views,
        meta=_meta(resolved, data, weights),
        batch=resolved["data"]["batch"],
        stop=stopping.asked(stop),
    )
    # Each process made its share; all are read by all.
    if not all(processes.exchange("views", "made" if finished else "")):
        raise Preempted("in the views pass; what is made is kept")
    return views


def check(
    resolved: dict[str, Any], data: rated.Rated | None, weights: Weights, folder: str
) -> None:
    """Refuses a folder that `make` would refuse; changes nothing.

    Args:
      data: None where it is yet to be made: then there are no views of it.

    Raises:
      ConfigError: see `make`.
    """
    storage.check(folder)
    if data is not None:
        _is_there(folder, _meta(resolved, data, weights))


def _meta(resolved: dict[str, Any], data: rated.Rated, weights: Weights) -> dict[str, Any]:
    first, _ = spec.head(data.pp("pp_test"))
    return describe(resolved["restorer"], checksums(weights), data.name, first)


def describe(
    restorer: dict[str, Any], weights: dict[str, str], data: str, first: str = ""
) -> dict[str, Any]:
    """What a folder of views depends on: settings, digests of the weights, data set.

    Args:
      first: what is done to each picture before it is restored, see `spec.head`.
    """
    meta = {"restorer": restorer, "weights": weights, "data": data}
    return configs.plain(meta | ({"first": first} if first else {}))


def run(
    source: Source,
    ids: np.ndarray,
    restorer: Restorer,
    weights: Weights,
    *,
    views: StoredViews,
    meta: dict[str, Any],
    batch: int,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Makes the views that are missing.

    Args:
      ids: the images of `source` to make views of.
      views: where they shall lie.
      meta: from `describe`; a folder made with another is refused.
      batch: images at a time, on this process's first device.
      stop: asked after each batch; if true, the shard begun is written and the pass ends.

    Returns:
      Whether none is missing now.

    Raises:
      ConfigError: the folder holds views of other weights, settings or data.
    """
    processes.first(lambda: _claim(views.folder, meta))
    number, count = processes.index(), processes.count()
    # By place among all: what the others have made meanwhile must not change who makes what.
    own = ids[number::count]
    missing = own[~np.isin(own, stored_views.index(views.folder).ids)]
    if not len(missing):
        return True
    restore = jax.jit(_stored(restorer, views.dtype))
    weights = jax.device_put(weights)
    progress = _Progress(len(missing))
    with contextlib.closing(stored_views.Writer(views.folder, number)) as writer:
        for pictures in evaluation.whole(
            source,
            missing,
            pp=meta.get("first", ""),
            batch=batch,
        ):
            real = pictures["mask"] > 0
            arrays = np.asarray(restore(weights, {k: pictures[k] for k in ("image", "content")}))
            for id, array in zip(pictures["id"][real], arrays[real], strict=True):
                writer.add(id, array)
            if stop():
                return False
            progress.add(int(real.sum()))
    return True


class _Progress:
    """A line every ten seconds: how many views there are, how fast, and the time left."""

    def __init__(self, total: int):
        self._total, self._done = total, 0
        self._start = self._last_line = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last_line > 10 or self._done == self._total:
            self._last_line = now
            speed = self._done / (now - self._start)
            left = time.strftime("%H:%M:%S", time.gmtime((self._total - self._done) / speed))
            text = "views %d/%d  %.3g images/s  eta %s"
            LOG.info(text, self._done, self._total, speed, left)


def _stored(restorer: Restorer, dtype: str) -> Callable[[Weights, dict], jax.Array]:
    def views(weights: Weights, batch: dict) -> jax.Array:
        return pixels.store(restorer.views(weights, batch).image_BVHWC[:, 1:], dtype)

    return views


def _claim(folder: str, meta: dict[str, Any]) -> None:
    """Makes the folder with its meta.json, unless it is there and of the same views."""
    if _is_there(folder, meta):
        return
    try:
        storage.make_folder(folder)
        configs.write_json(f"{folder}/{META}", meta)
    except Exception as error:  # a client of a bucket raises classes of its own
        if not isinstance(error, OSError) and not storage.is_remote(folder):
            raise
        raise ConfigError(configs.no_access(f"views {folder}", error)) from error


def _is_there(folder: str, meta: dict[str, Any]) -> bool:
    """Whether the folder has been made. Raises ConfigError where it is of other views."""
    path = f"{folder}/{META}"
    storage.check(folder)
    try:
        old = json.loads(storage.read(path)) if storage.exists(path) else None
    except ValueError as error:
        raise ConfigError(f"{path}: not readable ({error}); delete that folder") from error
    except Exception as error:
        if not isinstance(error, OSError) and not storage.is_remote(folder):
            raise
        raise ConfigError(configs.no_access(f"views {folder}", error)) from error
    if old is None:
        return False
    changed = configs.differences(old, meta)
    if changed:
        raise ConfigError(
            f"views {folder}: were made otherwise, differing in {', '.join(changed[:3])}; "
            "name another config.restorer.folder or delete that one"
        )
    return True
