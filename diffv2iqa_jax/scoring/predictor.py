"""Weights with what scoring needs to know of them: the predictor.

Weights come from the package, from a run's folder or from a .safetensors file with its card. The
card's kind says how they score: "diffv2iqa" is a model trained here (see `pack`); "maniqa",
"vcrnet" and "diffv2iqa_release" are published models that `convert` has converted, the last of
which needs the restorer of a stage-1 run beside it.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.errors import ConfigError, WeightsError
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.reporting.words import labels_of
from diffv2iqa_jax.tasks import restorers, stages
from diffv2iqa_jax.training import saved
from diffv2iqa_jax.types import Batch, Params, Restorer, Views, Weights
from diffv2iqa_jax.weights import files, published

STARTER = pathlib.Path(__file__).parents[1] / "weights" / "starter.safetensors"
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")  # formats that may run code when opened
KIND = "diffv2iqa"  # of a model trained here
RELEASE = "diffv2iqa_release"


@dataclasses.dataclass(frozen=True)
class Info:
    """What a reader must know to make sense of a score.

    Attributes:
      name: the weights as the user named them.
      kind: the kind of model, see the module.
      range: (0, 1) if training aimed at it; None if the score has no bounds.
      direction: "higher is better", or what is known.
      scale: of the data set it learned from: name, low, high, higher_better; {} if unknown.
      labels: what those it learned from are: "MOS" or "DMOS" of people, "formula NAME", "given"
        by whoever prepared the set, or "not said".
      data: what it learned from.
      protocol: how pictures are looked at; whoever reports a number reports this with it.
      licence: of the weights.
      sha256: of the file, or of a run's arrays.
    """

    name: str
    kind: str
    range: tuple[float, float] | None
    direction: str
    scale: dict[str, Any]
    labels: str
    data: str
    protocol: dict[str, Any]
    licence: str
    sha256: str


ViewsOf = Callable[[Weights, Batch], Views]
ScoresOf = Callable[[Weights, Views], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Weights, and the pure functions that score with them.

    Attributes:
      weights: arrays on the host.
      views: (weights, batch with image and content) -> Views; takes the views that the batch
        already holds.
      score: (weights, Views) -> dict of score (B,) and, for each branch of a model that has some,
        score_NAME and weight_NAME (B,), map_score_NAME and map_weight_NAME (B, h, w).
      restores: the model looks at restored views, which depend on the picture's noise.
      stored: dtype that views are rounded to between restoring and scoring, as an evaluation
        stores them; one of `pixels.STORED`.
      whole: restore whole pictures and crop their views; else restore each crop by itself.
      pp: the test pipeline, which crops a picture.
      info: what the scores mean.
      card: of a model trained here, what `pack` keeps: settings (of `tasks.quality`), size, pp,
        whole; None for a converted one.
    """

    weights: Weights
    views: ViewsOf
    score: ScoresOf
    restores: bool
    stored: str
    whole: bool
    pp: str
    info: Info
    card: dict[str, Any] | None = None


def load(name: str, *, restorer: str | None = None) -> Predictor:
    """Loads a predictor.

    Args:
      name: "starter"; the folder of a stage-2 run, or of a run of both stages; or a .safetensors
        file with its card beside it.
      restorer: the folder of a stage-1 run, for a converted model that comes without one.

    Raises:
      WeightsError: there are no such weights, or they cannot score; one line.
    """
    path = STARTER if name == "starter" else _path(name)
    if name == "starter" and not path.exists():
        raise WeightsError("starter: no weights are packaged here; name a run's folder or a file")
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{name}: such a file can run code when it is opened, so it is not; first"
            f" python -m diffv2iqa_jax.convert KIND {name} {path.with_suffix('.safetensors')}"
        )
    try:
        if not path.exists():
            raise WeightsError(f"{name}: no such file or folder; name one, or 'starter'")
        if not path.is_dir():
            return _load_file(name, path, restorer)
        if restorer is not None:
            raise WeightsError(f"{name}: is a run, which has its own restorer; name no other")
        return _load_run(name, path)
    except WeightsError:
        raise
    except Exception as error:
        # A client of a bucket raises classes of its own.
        known = isinstance(error, ValueError | OSError | KeyError | TypeError)
        if not known and not storage.is_remote(name):
            raise
        raise WeightsError(" ".join(f"{name}: {error}".split())) from error


def _path(name: str) -> pathlib.Path:
    """The local path, or the bucket's, which has the same methods."""
    if not name.strip():  # a path of no letters is the current folder
        raise WeightsError(f"{name!r}: names no weights; name a run's folder, a file or 'starter'")
    try:
        return storage.path(storage.expanded(name))
    except ConfigError as error:
        raise WeightsError(str(error)) from error


def pack(predictor: Predictor, path: str, *, dtype: str = "float32", **facts: Any) -> None:
    """Writes the weights of a run as one file with a card, which `load` reads.

    Args:
      dtype: of the weights in the file; "float16" halves it, and its scores differ a little.
      facts: for the card, beside or instead of data, labels, scale and licence.

    Raises:
      WeightsError: the model was not trained here.
    """
    info = predictor.info
    if predictor.card is None:
        raise WeightsError(f"{info.name}: only our own runs are packed; keep that file")
    card = {"kind": KIND, **predictor.card}
    card |= {"data": info.data, "labels": info.labels, "scale": info.scale}
    card |= {"licence": info.licence, **facts}
    files.save(path, predictor.weights, card, dtype=dtype)


def _load_run(name: str, folder: pathlib.Path) -> Predictor:
    """The newest checkpoint of a stage-2 run; of a run of both stages, that of its second."""
    if not (folder / "checkpoints").is_dir() and (folder / "quality" / "checkpoints").is_dir():
        folder = folder / "quality"
    config, weights, step = _checkpoint(folder, task="quality")
    data, origin = config["data"], config.get("restorer_from", {})
    card = {
        "settings": stages.settings(config),
        "size": data["size"],
        "pp": data["pp_test"].format(size=data["size"]),
        "whole": bool(origin) and origin.get("cached", True),
        "data": f"{data['name']}, split {data['split']}, {step} steps",
        **_of_data(folder),
        "licence": "",
        "sha256": files.sha256_of_weights(weights),
    }
    return _trained_here(name, weights, card)


def _checkpoint(folder: pathlib.Path, *, task: str) -> tuple[dict, Weights, int]:
    """Configuration, weights and step, see `saved.load`; refuses a run of another task."""
    config, weights, step = saved.load(str(folder))
    if config["task"] != task:
        raise WeightsError(f"{folder}: is a {config['task']} run; name one of task {task!r}")
    return config, weights, step


def _of_data(folder: pathlib.Path) -> dict[str, Any]:
    """What the run's labels are and their scale, for a card, as far as its results tell."""
    path = folder / "results.json"
    protocol = json.loads(path.read_text()).get("protocol") if path.exists() else None
    if not protocol:
        return {}
    facts = {"labels": labels_of(protocol)}
    if "scale" not in protocol:
        return facts
    low, high = protocol["scale"]
    higher_better = protocol.get("higher_is_better", True)
    name = protocol.get("name", "")
    return facts | {
        "scale": {"name": name, "low": low, "high": high, "higher_better": higher_better}
    }


def _load_file(name: str, path: pathlib.Path, restorer_run: str | None) -> Predictor:
    weights, card = files.load(path)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    kind = card.get("kind")
    if kind != KIND and kind not in CONVERTED:
        known = [KIND, *CONVERTED]
        raise WeightsError(f"{name}: is a {kind!r}, which gives no scores; {known} do")
    if restorer_run is not None and kind != RELEASE:
        raise WeightsError(f"{name}: is a {kind!r}, which takes no other restorer")
    if name != "starter":  # whose tests have checked it: this takes a second
        settings = {"task": "quality", **card["settings"]}
        like = saved.shapes(settings, card["size"]) if kind == KIND else published.like(card)
        weights = files.fit(kind, files.Renamed(files.flatten(weights), [], []), like)
    if kind == KIND:
        return _trained_here(name, weights, card)
    if kind == RELEASE:
        return _converted_release(name, weights, card, restorer_run)
    return _converted_without_restorer(name, weights, card)


def _converted_without_restorer(name: str, weights: Weights, card: dict) -> Predictor:
    """A published model that looks at the picture alone: MANIQA, VCRNet."""
    net = CONVERTED[card["kind"]]
    pp = f"grid({net.crop_size(card['settings'])})"
    return Predictor(
        weights=_joined(Weights({}, {}), weights),
        views=_views_by(restorers.none()),
        score=functools.partial(net.score, published.module(card), card["normalise"]),
        restores=False,
        stored="float32",
        whole=False,
        pp=pp,
        info=_info(name, card, pp, {"views": "none"}),
    )


def _converted_release(name: str, weights: Weights, card: dict, run: str | None) -> Predictor:
    """The published DiffV2IQA, with the restorer of a stage-1 run."""
    if run is None:
        raise WeightsError(f"{name}: comes without a restorer; name a stage-1 run's folder as it")
    config, restorer_weights, _ = _checkpoint(_path(run), task="restoration")
    card = {**card, "whole": True, "pp": f"grid({_vit_size(card['settings'])})"}
    score = functools.partial(_score_by_branches, published.module(card), card["normalise"])
    return _with_restorer(name, _joined(restorer_weights, weights), card, config["restorer"], score)


def _trained_here(name: str, weights: Weights, card: dict) -> Predictor:
    settings = card["settings"]
    score = functools.partial(_score_by_branches, QualityModel(**settings["model"]), None)
    predictor = _with_restorer(name, weights, {**card, "kind": KIND}, settings["restorer"], score)
    packed = {key: card[key] for key in ("settings", "size", "pp", "whole")}
    return dataclasses.replace(predictor, card=packed)


def _with_restorer(
    name: str, weights: Weights, card: dict, settings: dict, score: ScoresOf
) -> Predictor:
    """A predictor that looks at what the restorer of these settings makes of a picture."""
    restores = settings["kind"] != "none"
    facts = {"views": ("whole" if card["whole"] else "crop") if restores else "none"}
    if restores:
        # An autoencoder restores in one pass.
        steps = settings.get("sampling", {}).get("steps", 1)
        facts |= {"steps": steps, "seed": settings["seed"]}
    return Predictor(
        weights=weights,
        views=_views_by(restorers.make(**settings)),
        score=score,
        restores=restores,
        stored=settings.get("views_dtype", "float32"),
        whole=restores and card["whole"],
        pp=card["pp"],
        info=_info(name, card, card["pp"], facts),
    )


def _info(name: str, card: dict, pp: str, facts: dict) -> Info:
    trained_here = card["kind"] == KIND
    source = card.get("source", {}).get("file", "")
    return Info(
        name=name,
        kind=card["kind"],
        range=(0.0, 1.0) if trained_here else None,
        direction="higher is better" if trained_here else "as its labels were",
        scale=card.get("scale") or {},
        labels=card.get("labels") or "not said",
        data=card.get("data", f"unknown: converted from {source}"),
        protocol={"pp": pp, **facts},
        licence=card.get("licence") or "not said",
        sha256=card["sha256"],
    )


def _joined(restorer: Weights, quality: Weights) -> Weights:
    """Weights of both stages in one, by the names that stage 2 gives them."""
    params = {"restorer": restorer.params, "quality": quality.params}
    return Weights(params, {"restorer": restorer.stats, "quality": quality.stats})


def _weights_of(stage: str, weights: Weights) -> Weights:
    """Those of the "restorer" or of the "quality" model; a file leaves out an empty one."""
    return Weights(weights.params.get(stage, {}), weights.stats.get(stage, {}))


def _views_by(restorer: Restorer) -> ViewsOf:
    restorer = restorers.cached(restorer)

    def views(weights: Weights, batch: Batch) -> Views:
        return restorer.views(_weights_of("restorer", weights), batch)

    return views


def _variables(weights: Weights) -> Params:
    """The quality model's weights as Flax wants them."""
    quality = _weights_of("quality", weights)
    return {"params": quality.params, "batch_stats": quality.stats}


def _normalised(image: jax.Array, normalise: dict | None) -> jax.Array:
    """Pixels in [-1, 1] -> what the net was trained on."""
    if normalise is None or normalise == published.NORMALISE["half"]:
        return image
    return pixels.standardise(image, normalise["mean"], normalise["std"])


def _score_by_branches(
    net: nn.Module, normalise: dict | None, weights: Weights, views: Views
) -> dict[str, jax.Array]:
    return net.apply(_variables(weights), Views(_normalised(views.image_BVHWC, normalise)))


def _score_by_vcrnet(
    net: nn.Module, normalise: dict | None, weights: Weights, views: Views
) -> dict[str, jax.Array]:
    score, _ = net.apply(_variables(weights), _normalised(views.image_BVHWC[:, 0], normalise))
    return {"score": score}


def _vit_size(settings: dict) -> int:
    return settings["branches"]["guidance"]["vit"]["image_size"]


class Converted(NamedTuple):
    """How a published model scores.

    Attributes:
      score: (net, normalise, weights, Views) -> scores, as `Predictor.score` gives them.
      crop_size: settings -> side of the crops that it looks at, in pixels.
    """

    score: Callable[..., dict[str, jax.Array]]
    crop_size: Callable[[dict], int]


CONVERTED = {
    "maniqa": Converted(_score_by_branches, _vit_size),
    "vcrnet": Converted(_score_by_vcrnet, lambda settings: 224),
    RELEASE: Converted(_score_by_branches, _vit_size),
}
