"""Scores pictures: cuts them into crops by the test pipeline, and scores the crops in batches.

A batch mixes crops of different pictures; all have one shape, so one compiled program serves
pictures of any size. A score is a function of the weights and of the picture's pixels alone.
"""

import collections
import dataclasses
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, ops_numpy, spec, tiles
from diffv2iqa_jax.pp.ahead import in_order
from diffv2iqa_jax.pp.decode import Reading
from diffv2iqa_jax.scoring import arguments, differentiable
from diffv2iqa_jax.scoring import predictor as predictors
from diffv2iqa_jax.scoring.predictor import Predictor
from diffv2iqa_jax.scoring.result import SCORING_FLAGS, Score
from diffv2iqa_jax.types import Weights

REMEMBERED = 1000  # scores kept for pictures that come again
SHAPES = 8  # compiled restorations kept, each for one shape of picture


@dataclasses.dataclass
class _Job:
    """A picture on its way to its Score.

    Attributes:
      result: what is known so far; final if there is no key: it failed or is remembered.
      picture: (H, W, 3) uint8, until its rows are made.
      key: what the score is remembered by.
      rows: how many rows of batches it takes, -1 while that is not known.
      small, tiled: see the flags of Score.
      outputs: what the program said of each row so far, seed by seed.
      corners: of the crops.
    """

    result: Score
    picture: np.ndarray | None = None
    key: tuple | None = None
    rows: int = 0
    small: bool = False
    tiled: bool = False
    outputs: list[dict] = dataclasses.field(default_factory=list)
    corners: list[tuple[int, int]] = dataclasses.field(default_factory=list)


class Scorer:
    """Scores pictures; `load` makes one.

    Args:
      predictor: from `predictor.load`.
      pp: a test pipeline instead of the predictor's own; "" is one too: the whole picture.
      crops: how many crops of a picture to score at most, evenly chosen; None: all.
      batch: crops scored at a time; changes speed and memory, not the scores.
      reading: how files are read.
      workers: threads that read ahead.

    Attributes:
      info: what the scores mean.
      batch: crops scored at a time; halved where memory does not suffice.

    Raises:
      ValueError: crops, batch or pp are impossible.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        pp: str | None = None,
        crops: int | None = None,
        batch: int | None = None,
        reading: Reading = Reading(),  # noqa: B008, it is frozen
        workers: int = 2,
    ):
        for name, value in (("crops", crops), ("batch", batch)):
            if value is not None:
                arguments.check_count(name, value)
        arguments.check_count("workers", workers, least=0)
        own, pp = pp is None, predictor.pp if pp is None else pp
        if not isinstance(pp, str):
            raise TypeError(f"pp {pp!r}: must be text, op(settings)|op(settings)")
        protocol = {**predictor.info.protocol, "pp": pp, "crops": crops, "icc": reading.icc}
        if reading.orientation != "apply":
            protocol["orientation"] = reading.orientation
        self.info = dataclasses.replace(predictor.info, protocol=protocol)
        # A CPU gains nothing from more, and would fill up the batch of a photo with one crop.
        self.batch = batch or (1 if jax.default_backend() == "cpu" else 32)
        self._resize, self._crop = (ops_numpy.parse(ops) for ops in spec.head(pp))
        self._crops, self._pp = crops, pp
        self._reading, self._workers = reading, workers
        self._predictor, self._weights = predictor, jax.device_put(predictor.weights)
        self._program = jax.jit(partial(_predict, predictor))
        self._restore = jax.jit(partial(_restore, predictor))
        if not own:
            crops_of = ops_numpy.parse(pp)
            arguments.check_crops(pp, lambda x: crops_of(x, 0)[0].image_HWC, self._traced)
        self._restored_shapes: set[tuple] = set()
        self._remembered: collections.OrderedDict[tuple, Score] = collections.OrderedDict()

    def _traced(self, shape_HWC: tuple[int, int, int]) -> Any:
        """What the program returns for one crop of this shape; nothing is computed."""
        crop = jax.ShapeDtypeStruct((1, *shape_HWC), np.uint8)
        content = jax.ShapeDtypeStruct((1,), np.uint32)
        batch = {"image": crop, "content": content}
        return jax.eval_shape(partial(_predict, self._predictor), self._weights, batch)

    def forget(self) -> None:
        """Lets go of the scores kept for pictures that come again."""
        self._remembered.clear()

    def __call__(self, source: Any, *, seeds: int = 1, details: bool = False):
        """Scores one picture or several.

        Args:
          source: a path (str or path-like), an encoded file (bytes), a PIL image or an array:
            (H, W, 3) uint8, uint16, or floating in [0, 1]. Several: an array (N, H, W, 3), a list
            or tuple of these, or an iterator, which is read only as far as it is asked for.
          seeds: how many restorations of different noise to score; the first gives the score,
            all of them the spread.
          details: also return corners, maps and views.

        Returns:
          The Score of one picture; a list of several; an iterator for an iterator.

        Raises:
          ImageError: the one picture cannot be scored. Of several, its Score says so instead.
          TypeError, ValueError: it is no picture, or an array has another type, shape or range.
        """
        arguments.check_count("seeds", seeds)
        run = partial(self._run, seeds=seeds, details=details)
        if arguments.is_one(source):
            (score,) = run([source], workers=0)
            if score.error:
                raise ImageError(score.error, score.reason)
            return score
        if isinstance(source, Iterator):
            return run(source, workers=self._workers)
        return list(run(source, workers=self._workers))

    def loss(self, images_BHWC: jax.Array) -> jax.Array:
        """1 - mean quality, differentiable by the images: a loss for training other nets.

        Gradients go through the images alone; the restored views count as constants. All images
        get the same noise.

        Args:
          images_BHWC: floating, RGB in [0, 1].

        Raises:
          ValueError: the images have another type, shape or range. Under `jax.jit` and `jax.vmap`
            there are no values to look at: there the range is the caller's to keep.
        """
        return differentiable.loss(
            self._predictor, self._weights, self._pp, self._chosen, images_BHWC
        )

    def _run(self, sources: Iterable, *, seeds: int, details: bool, workers: int):
        """The Score of each source, in order."""
        seeds = seeds if self._predictor.restores else 1
        queue: collections.deque[_Job] = collections.deque()
        waiting: list[tuple[_Job, dict]] = []
        read = partial(self._read, seeds=seeds, details=details)
        for job in in_order(read, sources, workers=workers, window=workers):
            queue.append(job)
            for row in self._rows(job, seeds):
                if waiting and waiting[0][1]["image"].shape != row["image"].shape:
                    self._flush(waiting, details)
                waiting.append((job, row))
                if len(waiting) >= self.batch:
                    self._flush(waiting, details)
            job.picture = None
            while queue and len(queue[0].outputs) == queue[0].rows:
                yield self._finished(queue.popleft(), seeds, details)
        self._flush(waiting, details)
        while queue:
            yield self._finished(queue.popleft(), seeds, details)

    def _read(self, source: Any, *, seeds: int, details: bool) -> _Job:
        arguments.check_picture(source)
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        try:
            image, flags = decode.read(source, self._reading)
        except ImageError as error:
            return _Job(Score(path, status="failed", error=error.code, reason=error.reason))
        height, width = image.shape[:2]
        key = (image.shape, hashlib.blake2b(image, digest_size=16).digest(), seeds)
        if not details and (score := self._remembered.get(key)):
            flags += tuple(flag for flag in score.flags if flag in SCORING_FLAGS)
            return _Job(dataclasses.replace(score, path=path, flags=flags))
        return _Job(Score(path, width=width, height=height, flags=flags), image, key, rows=-1)

    def _rows(self, job: _Job, seeds: int) -> Iterator[dict]:
        """The rows of batches that a picture takes: its crops, for each seed."""
        if job.picture is None:
            return
        content, rows = zlib.crc32(job.picture), 0
        picture = self._resize(job.picture, content)[0].image_HWC
        for seed in range(seeds):
            noise, views = reseeded(content, seed), None
            if self._predictor.whole:
                views = self._restored(picture, noise)
                job.tiled = not _fits(*picture.shape[:2])
            crops = self._chosen(self._crop(picture, content, views))
            rows += len(crops)
            sides = zip(picture.shape, crops[0].image_HWC.shape, strict=True)
            job.small = any(of_picture < of_crop for of_picture, of_crop in sides)
            # Set before its last row is scored: until then it counts as unfinished.
            job.rows = rows if seed == seeds - 1 else -1
            for crop in crops:
                job.corners += [] if seed else [crop.corner]
                row = {"image": crop.image_HWC, "content": np.uint32(noise)}
                yield row if views is None else row | {"views": crop.views_VHWC}

    def _chosen(self, crops: list) -> list:
        if self._crops is None or len(crops) <= self._crops:
            return crops
        chosen = np.linspace(0, len(crops) - 1, self._crops).round().astype(int)
        return [crops[i] for i in chosen]

    def _restored(self, image_HWC: np.ndarray, noise: int) -> np.ndarray:
        """The picture's other views, as an evaluation stores them; a large one's by tiles."""

        def restore(tile_HWC: np.ndarray) -> np.ndarray:
            shapes = self._restored_shapes
            if tile_HWC.shape not in shapes and len(shapes) == SHAPES:
                self._restore.clear_cache()
                shapes.clear()
            shapes.add(tile_HWC.shape)
            batch = {"image": tile_HWC[None], "content": np.array([noise], np.uint32)}
            return np.asarray(self._restore(self._weights, batch))[0]

        fits = _fits(*image_HWC.shape[:2])
        return restore(image_HWC) if fits else tiles.over(image_HWC, restore)

    def _flush(self, waiting: list[tuple[_Job, dict]], details: bool) -> None:
        """Scores the rows that wait, filled up to a whole batch, and empties the list."""
        if not waiting:
            return
        rows = [row for _, row in waiting]
        rows += rows[-1:] * (self.batch - len(rows))
        outputs = self._score({key: np.stack([row[key] for row in rows]) for key in rows[0]})
        if not details:  # for one number of each crop nothing else has to leave the device
            outputs = {key: x for key, x in outputs.items() if key.startswith(("score", "weight"))}
        outputs = {key: np.asarray(x) for key, x in outputs.items()}
        for place, (job, _) in enumerate(waiting):
            job.outputs.append({key: x[place] for key, x in outputs.items()})
        waiting.clear()

    def _score(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One batch through the program; where memory does not suffice, by halves."""
        try:
            return jax.block_until_ready(self._program(self._weights, batch))
        except jax.errors.JaxRuntimeError as error:
            size = len(batch["image"])
            if "RESOURCE_EXHAUSTED" not in str(error) or size == 1:
                raise
            self.batch = smaller = min(self.batch, size // 2)
        outputs = []
        for rows in np.array_split(np.arange(size), -(-size // smaller)):
            filled = np.resize(rows, smaller)  # all of one shape, which one program serves
            scored = self._score({key: x[filled] for key, x in batch.items()})
            outputs.append({key: np.asarray(x)[: len(rows)] for key, x in scored.items()})
        return {key: np.concatenate([part[key] for part in outputs]) for key in outputs[0]}

    def _finished(self, job: _Job, seeds: int, details: bool) -> Score:
        if job.key is None:
            return job.result
        crops = len(job.outputs) // seeds
        by_seed = [job.outputs[i * crops :][:crops] for i in range(seeds)]
        first_seed = by_seed[0]
        score = _mean(first_seed, "score")
        if not math.isfinite(score):
            reason = "the model gives no finite score for this picture"
            return dataclasses.replace(
                job.result, status="failed", error="E_NOT_FINITE", reason=reason
            )
        names = [key.removeprefix("score_") for key in first_seed[0] if key.startswith("score_")]
        result = dataclasses.replace(
            job.result,
            score=score,
            branches={name: _mean(first_seed, f"score_{name}") for name in names},
            branch_weights={name: _mean(first_seed, f"weight_{name}") for name in names},
            mos=None if "formula" in self.info.labels else _to_scale(score, self.info.scale),
            spread=float(np.std([_mean(o, "score") for o in by_seed])) if seeds > 1 else None,
            crops=crops,
            flags=job.result.flags + self._flags(job, score),
        )
        if not details:
            self._remembered[job.key] = result
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
            return result
        stacked = {key: np.stack([output[key] for output in first_seed]) for key in first_seed[0]}
        return dataclasses.replace(
            result,
            corners=np.array(job.corners),
            maps={key[4:]: x for key, x in stacked.items() if key.startswith("map_")},
            views=stacked["views"],
        )

    def _flags(self, job: _Job, score: float) -> tuple[str, ...]:
        bounds = self.info.range
        outside = bounds is not None and not bounds[0] <= score <= bounds[1]
        is_set = (job.small, job.tiled, outside)
        return tuple(flag for flag, on in zip(SCORING_FLAGS, is_set, strict=True) if on)


def load(
    name: str | os.PathLike = "starter",
    *,
    restorer: str | None = None,
    jit_cache: str | None = "~/.cache/diffv2iqa_jax/jit",
    **settings: Any,
) -> Scorer:
    """Loads a scorer.

    Args:
      name: "starter", a run's folder, or a file of weights; see `predictor.load`.
      restorer: the folder of a stage-1 run, for a converted model that comes without one.
      jit_cache: folder of compiled programs, which makes every start but the first fast. None
        leaves JAX's settings alone; a cache that is set already stays.
      settings: of `Scorer`.

    Raises:
      WeightsError: there are no such weights, or they cannot score.
    """
    cache = storage.cache(jit_cache) if jit_cache else None
    if cache and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return Scorer(predictors.load(os.fspath(name), restorer=restorer), **settings)


def reseeded(content: int, seed: int) -> int:
    """What stands for a picture's content in its noise; seed 0 gives the evaluation's noise."""
    return zlib.crc32(struct.pack("<II", content, seed)) if seed else content


def _predict(predictor: Predictor, weights: Weights, batch: dict) -> dict[str, jax.Array]:
    views = predictor.views(weights, batch)
    return {**predictor.score(weights, views), "views": pixels.to_uint8(views.image_BVHWC)}


def _restore(predictor: Predictor, weights: Weights, batch: dict) -> jax.Array:
    return pixels.store(predictor.views(weights, batch).image_BVHWC[:, 1:], predictor.stored)


def _fits(height: int, width: int) -> bool:
    return height * width <= tiles.PIXELS


def _mean(outputs: list[dict], key: str) -> float:
    return float(np.mean([output[key] for output in outputs], dtype=np.float64))


def _to_scale(score: float, scale: dict) -> float | None:
    """Quality in [0, 1] -> the data set's own scale, where it is known."""
    if not scale:
        return None
    share = score if scale.get("higher_better", True) else 1 - score
    return scale["low"] + share * (scale["high"] - scale["low"])
