"""Scores pictures: whatever comes in is cut as the test pipeline says, and judged in batches.

A batch holds crops of one shape, of any pictures; one compiled program serves all of them, and
a score is a function of the weights and of the picture's pixels alone.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from PIL import Image

from diffv2iqa_jax import pixels
from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, spec, tiles
from diffv2iqa_jax.pp import ops_numpy as cutting
from diffv2iqa_jax.pp.decode import Reading
from diffv2iqa_jax.scoring import loss as objective
from diffv2iqa_jax.scoring import predictor
from diffv2iqa_jax.types import Weights

REMEMBERED = 1000  # scores kept for pictures that come again
JUDGED = ("small", "tiled", "out_of_range")  # flags that are not from reading
SHAPES = 8  # compiled restorations kept, each for one shape of picture
ONE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


@dataclasses.dataclass(frozen=True)
class Score:
    """What is said of a picture.

    Attributes:
      path: where it was read from; None: it was passed.
      score: quality, by the model alone: [0, 1] is what training aims at, it is not clipped.
      branches: each branch's part of it, by name.
      mos: on the scale of the data set it was trained on, where that is known.
      spread: standard deviation over the seeds asked for.
      width, height: as it is seen, in pixels.
      crops: how many parts were judged.
      status: "ok" or "failed".
      error, reason: code and line where it failed.
      flags: what was done to it (`images.Picture`), and "small": continued by reflection,
        "tiled": restored in parts, "out_of_range": the score is outside [0, 1].
      corners: on request, top and left of each crop.
      maps: on request, name -> (crops, h, w): score_NAME and weight_NAME of the patches.
      views: on request, (crops, V, h, w, 3) uint8: the crop, restored, then the noisy states.
    """

    path: str | None = None
    score: float | None = None
    branches: dict[str, float] = dataclasses.field(default_factory=dict)
    mos: float | None = None
    spread: float | None = None
    width: int = 0
    height: int = 0
    crops: int = 0
    status: str = "ok"
    error: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()
    corners: np.ndarray | None = dataclasses.field(default=None, repr=False)
    maps: dict[str, np.ndarray] | None = dataclasses.field(default=None, repr=False)
    views: np.ndarray | None = dataclasses.field(default=None, repr=False)

    def __float__(self) -> float:
        return math.nan if self.score is None else self.score


@dataclasses.dataclass
class _Job:
    """A picture on its way."""

    known: Score
    picture: np.ndarray | None = None
    key: tuple | None = None
    total: int = 0
    small: bool = False
    tiled: bool = False
    parts: list[dict] = dataclasses.field(default_factory=list)
    corners: list[tuple[int, int]] = dataclasses.field(default_factory=list)


class Scorer:
    """Scores pictures; made by `load`.

    Args:
      judged: from `judge.load`.
      pp: another test pipeline than the weights' own; "" too is one.
      crops: look at this many of the crops at most, evenly chosen.
      batch: crops judged at a time; changes speed and memory, no score.
      reading: how files are read.
      workers: threads that read ahead.
    """

    def __init__(
        self,
        judged: predictor.Judge,
        *,
        pp: str | None = None,
        crops: int | None = None,
        batch: int | None = None,
        reading: Reading = Reading(),  # noqa: B008, it is frozen
        workers: int = 2,
    ):
        for name, value in (("crops", crops), ("batch", batch)):
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: must be at least 1")
        pp = judged.pp if pp is None else pp
        protocol = {**judged.info.protocol, "pp": pp, "crops": crops, "icc": reading.icc}
        if reading.orientation != "apply":
            protocol["orientation"] = reading.orientation
        self.info = dataclasses.replace(judged.info, protocol=protocol)
        # A CPU gains nothing from more, and a photo of one crop would be filled up in vain.
        self.batch = batch or (1 if jax.default_backend() == "cpu" else 32)
        self._first, self._cut = (cutting.parse(part) for part in spec.head(pp))
        self._crops, self._pp = crops, pp
        self._reading, self._workers = reading, workers
        self._judged, self._weights = judged, jax.device_put(judged.weights)
        self._program = jax.jit(partial(_judge, judged))
        self._restore = jax.jit(partial(_restore, judged))
        self._shapes: set[tuple] = set()
        self._seen: collections.OrderedDict[tuple, Score] = collections.OrderedDict()

    def forget(self) -> None:
        """Lets go of the scores kept for pictures that come again."""
        self._seen.clear()

    def __call__(self, source: Any, *, seeds: int = 1, details: bool = False):
        """The Score of a picture; a list of them of several, an iterator of an iterator.

        Args:
          source: a path (str or path-like), an encoded file (bytes), a PIL image or an array:
            (H, W, 3) uint8, uint16 or floating in 0..1. Several: an array (N, H, W, 3), a list
            or tuple of these, or an iterator, which is read only as far as it is asked for.
          seeds: also judge this many restorations of different noise, for `spread`.
          details: also return corners, maps and views.

        Raises:
          ImageError: the one picture cannot be read. Of several, its Score says so instead.
          TypeError, ValueError: an array of another type, shape or range.
        """
        if seeds < 1:
            raise ValueError(f"seeds {seeds}: must be at least 1")
        run = partial(self._run, seeds=seeds, details=details)
        if _is_one(source):
            (found,) = run([source], workers=0)
            if found.error:
                raise ImageError(found.error, found.reason)
            return found
        if isinstance(source, Iterator):
            return run(source, workers=self._workers)
        return list(run(source, workers=self._workers))

    def loss(self, images_BHWC: jax.Array) -> jax.Array:
        """1 - mean quality, differentiable by the images: a loss for training other nets.

        The restored views are taken as given: gradients go through the image alone. The noise is
        the same for all images.

        Args:
          images_BHWC: floating, RGB in [0, 1].
        """
        return objective.loss(self._judged, self._weights, self._pp, self._few, images_BHWC)

    def _run(self, sources: Iterable, *, seeds: int, details: bool, workers: int):
        """The Score of each source, in order."""
        seeds = seeds if self._judged.restores else 1
        queue: collections.deque[_Job] = collections.deque()
        waiting: list[tuple[_Job, dict]] = []
        for job in _ahead(partial(self._read, seeds=seeds, details=details), sources, workers):
            queue.append(job)
            for row in self._rows(job, seeds):
                if waiting and waiting[0][1]["image"].shape != row["image"].shape:
                    self._flush(waiting, details)
                waiting.append((job, row))
                if len(waiting) >= self.batch:
                    self._flush(waiting, details)
            job.picture = None
            while queue and len(queue[0].parts) == queue[0].total:
                yield self._finished(queue.popleft(), seeds, details)
        self._flush(waiting, details)
        while queue:
            yield self._finished(queue.popleft(), seeds, details)

    def _read(self, source: Any, *, seeds: int, details: bool) -> _Job:
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        try:
            image, flags = decode.read(source, self._reading)
        except ImageError as error:
            return _Job(Score(path, status="failed", error=error.code, reason=error.reason))
        height, width = image.shape[:2]
        key = (image.shape, hashlib.blake2b(image, digest_size=16).digest(), seeds)
        if not details and (found := self._seen.get(key)):
            said = tuple(flag for flag in found.flags if flag in JUDGED)
            return _Job(dataclasses.replace(found, path=path, flags=flags + said))
        return _Job(Score(path, width=width, height=height, flags=flags), image, key, total=-1)

    def _rows(self, job: _Job, seeds: int) -> Iterator[dict]:
        """What is to be judged of a picture: its crops, for each seed."""
        if job.picture is None:
            return
        content, rows = zlib.crc32(job.picture), 0
        picture = self._first(job.picture, content)[0].image_HWC
        for seed in range(seeds):
            noise, views = reseeded(content, seed), None
            if self._judged.whole:
                views = self._restored(picture, noise)
                job.tiled = not _fits(*picture.shape[:2])
            parts = self._few(self._cut(picture, content, views))
            rows += len(parts)
            shapes = zip(picture.shape, parts[0].image_HWC.shape, strict=True)
            job.small = any(have < seen for have, seen in shapes)
            # Known before its last row is judged: until then it counts as unfinished.
            job.total = rows if seed == seeds - 1 else -1
            for part in parts:
                job.corners += [] if seed else [part.corner]
                row = {"image": part.image_HWC, "content": np.uint32(noise)}
                yield row if views is None else row | {"views": part.views_VHWC}

    def _few(self, found: list) -> list:
        if self._crops is None or len(found) <= self._crops:
            return found
        chosen = np.linspace(0, len(found) - 1, self._crops).round().astype(int)
        return [found[i] for i in chosen]

    def _restored(self, image: np.ndarray, noise: int) -> np.ndarray:
        """The picture's other views, as an evaluation stores them; a large one's by tiles."""

        def restore(part_HWC: np.ndarray) -> np.ndarray:
            if part_HWC.shape not in self._shapes and len(self._shapes) == SHAPES:
                self._restore.clear_cache()
                self._shapes.clear()
            self._shapes.add(part_HWC.shape)
            batch = {"image": part_HWC[None], "content": np.array([noise], np.uint32)}
            return np.asarray(self._restore(self._weights, batch))[0]

        return restore(image) if _fits(*image.shape[:2]) else tiles.over(image, restore)

    def _flush(self, waiting: list[tuple[_Job, dict]], details: bool) -> None:
        """Judges what waits, filled up to a whole batch, and empties it."""
        if not waiting:
            return
        rows = [row for _, row in waiting]
        rows += rows[-1:] * (self.batch - len(rows))
        out = self._judge({key: np.stack([row[key] for row in rows]) for key in rows[0]})
        wanted = {k: np.asarray(x) for k, x in out.items() if details or k[:5] == "score"}
        for place, (job, _) in enumerate(waiting):
            job.parts.append({key: x[place] for key, x in wanted.items()})
        waiting.clear()

    def _judge(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One batch through the program; where memory does not suffice, by halves."""
        try:
            return jax.block_until_ready(self._program(self._weights, batch))
        except jax.errors.JaxRuntimeError as error:
            size = len(batch["image"])
            if "RESOURCE_EXHAUSTED" not in str(error) or size == 1:
                raise
            self.batch = min(self.batch, size // 2)
        halves = np.array_split(np.arange(size), -(-size // self.batch))
        whole = [np.resize(rows, self.batch) for rows in halves]
        outs = [self._judge({k: x[rows] for k, x in batch.items()}) for rows in whole]
        real = lambda key: [np.asarray(out[key])[: len(r)] for out, r in zip(outs, halves)]  # noqa: B905
        return {key: np.concatenate(real(key)) for key in outs[0]}

    def _finished(self, job: _Job, seeds: int, details: bool) -> Score:
        if job.key is None:
            return job.known
        count = len(job.parts) // seeds
        first = job.parts[:count]
        mean = lambda parts, key: float(np.mean([part[key] for part in parts], dtype=np.float64))
        found = {key: mean(first, key) for key in first[0] if key[:5] == "score"}
        score = found.pop("score")
        if not math.isfinite(score):
            reason = "the model gives no finite score for this picture"
            return dataclasses.replace(
                job.known, status="failed", error="E_NOT_FINITE", reason=reason
            )
        each = [mean(job.parts[i * count :][:count], "score") for i in range(seeds)]
        known = dataclasses.replace(
            job.known,
            score=score,
            branches={key[6:]: value for key, value in found.items()},
            mos=_to_scale(score, self.info.scale),
            spread=float(np.std(each)) if seeds > 1 else None,
            crops=count,
        )
        known = dataclasses.replace(known, flags=known.flags + self._said(job, known))
        if not details:
            self._seen[job.key] = known
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return known
        stacked = lambda key: np.stack([part[key] for part in first])
        return dataclasses.replace(
            known,
            corners=np.array(job.corners),
            maps={key[4:]: stacked(key) for key in first[0] if key.startswith("map_")},
            views=stacked("views"),
        )

    def _said(self, job: _Job, known: Score) -> tuple[str, ...]:
        bounds = self.info.range
        outside = bounds is not None and not bounds[0] <= known.score <= bounds[1]
        return tuple(flag for flag, so in zip(JUDGED, (job.small, job.tiled, outside)) if so)  # noqa: B905


def load(
    name: str = "starter",
    *,
    restorer: str | None = None,
    jit_cache: str | None = "~/.cache/diffv2iqa_jax/jit",
    **settings,
) -> Scorer:
    """A scorer with these weights.

    Args:
      name: "starter", a run's folder, or a file of `convert`; see `judge.load`.
      restorer: a stage-1 run's folder, for a converted model that comes without one.
      jit_cache: folder of compiled programs, which makes every start but the first fast; None
        leaves JAX as it is, and so does a cache that is set already.
      settings: of `Scorer`.

    Raises:
      WeightsError: there are no such weights, or they cannot score.
    """
    if jit_cache and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(jit_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return Scorer(predictor.load(os.fspath(name), restorer=restorer), **settings)


def reseeded(content: int, seed: int) -> int:
    """What stands for a picture's content in its noise: seed 0 is the evaluation's."""
    return zlib.crc32(struct.pack("<II", content, seed)) if seed else content


def _is_one(source: Any) -> bool:
    if isinstance(source, ONE):
        return True
    if hasattr(source, "ndim"):
        return source.ndim != 4
    return not isinstance(source, Iterable)


def _ahead(read: Callable[[Any], _Job], sources: Iterable, workers: int) -> Iterator[_Job]:
    """What `read` makes of each source, in order; some are read while others are judged."""
    if not workers:
        yield from map(read, sources)
        return
    window: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for source in sources:
                window.append(pool.submit(read, source))
                if len(window) > workers:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()


def _judge(judged: predictor.Judge, weights: Weights, batch: dict) -> dict[str, jax.Array]:
    views = judged.views(weights, batch)
    return {**judged.score(weights, views), "views": pixels.to_uint8(views.image_BVHWC)}


def _restore(judged: predictor.Judge, weights: Weights, batch: dict) -> jax.Array:
    return pixels.store(judged.views(weights, batch).image_BVHWC[:, 1:], judged.stored)


def _fits(height: int, width: int) -> bool:
    return height * width <= tiles.PIXELS


def _to_scale(score: float, scale: dict) -> float | None:
    if not scale:
        return None
    share = score if scale.get("higher_better", True) else 1 - score
    return scale["low"] + share * (scale["high"] - scale["low"])
