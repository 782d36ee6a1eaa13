"""The views pass: restores every image of a data set once and stores what stage 2 looks at.

A folder of views holds meta.json (what they were made with) and a file for each image,
`{id:08d}.views`: the raw bytes of an array (V - 1, H, W, 3). A file is complete or not there,
so a killed pass goes on where it stopped, and each process makes its own share.
"""

import json
import logging
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import errors, pixels
from diffv2iqa_jax.data import pipeline
from diffv2iqa_jax.tasks import restorers
from diffv2iqa_jax.types import Restorer, Weights

LOG = logging.getLogger(__name__)
META = "meta.json"


def describe(restorer: dict, weights: dict[str, str], data: str, first: str = "") -> dict:
    """What a folder of views depends on: settings, digests of the weights, data set.

    Args:
      first: what is done to each picture before it is restored, see `crops.head`.
    """
    found = {"restorer": restorer, "weights": weights, "data": data}
    return configs.plain(found | ({"first": first} if first else {}))


def stored(folder: str, restorer: dict) -> tuple[str, str, int]:
    """The views of a folder as the pipeline asks for them: folder, dtype, views per image."""
    return folder, restorer["views_dtype"], restorers.count(**restorer) - 1


def run(
    source: pipeline.Source,
    ids: np.ndarray,
    restorer: Restorer,
    weights: Weights,
    *,
    folder: str,
    meta: dict,
    batch: int,
    stop: Callable[[], bool] = lambda: False,
) -> int | None:
    """Makes the views that are missing.

    Args:
      ids: the images of `source` to make views of.
      meta: from `describe`; a folder made with another is refused.
      batch: images at a time, on this process's first device.
      stop: asked after each batch; if true, the pass ends there.

    Returns:
      How many images were restored now; None if it was stopped.

    Raises:
      ConfigError: the folder holds views of other weights, settings or data.
    """
    _claim(folder, meta)
    missing = np.array([i for i in ids if not os.path.exists(path(folder, i))], np.int32)
    if not len(missing):
        return 0
    step = jax.jit(_packed(restorer, meta["restorer"]["views_dtype"]))
    weights = jax.device_put(weights)
    rank = (jax.process_index(), jax.process_count())
    total = len(missing[rank[0] :: rank[1]])
    done, clock = 0, time.monotonic()
    said = clock
    args = {"pp": meta.get("first", ""), "batch": batch * rank[1], "process": rank}
    for found in pipeline.whole(source, missing, **args):
        keep = found["mask"] > 0
        made = np.asarray(step(weights, {k: found[k] for k in ("image", "content")}))
        for number, array in zip(found["id"][keep], made[keep], strict=True):
            _write(path(folder, number), array)
        if stop():
            return None
        done += int(keep.sum())
        now = time.monotonic()
        if now - said > 10 or done == total:
            speed, said = done / (now - clock), now
            left = time.strftime("%H:%M:%S", time.gmtime((total - done) / speed))
            LOG.info("views %d/%d  %.3g images/s  eta %s", done, total, speed, left)
    return done


def path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{number:08d}.views")


def _packed(restorer: Restorer, dtype: str) -> Callable[[Weights, dict], jax.Array]:
    return lambda weights, batch: pixels.store(
        restorer.views(weights, batch).image_BVHWC[:, 1:], dtype
    )


def _claim(folder: str, meta: dict) -> None:
    named = os.path.join(folder, META)
    if not os.path.exists(named):
        os.makedirs(folder, exist_ok=True)
        configs.write_json(named, meta)
        return
    with open(named) as file:
        changed = configs.differences(json.load(file), meta)
    if changed:
        raise errors.ConfigError(
            f"views {folder}: were made otherwise, differing in {', '.join(changed[:3])}; "
            "name another config.restorer.folder or delete that one"
        )


def _write(name: str, array: jnp.ndarray) -> None:
    with open(f"{name}.{os.getpid()}.tmp", "wb") as file:
        file.write(np.ascontiguousarray(array).tobytes())
    os.replace(f"{name}.{os.getpid()}.tmp", name)
