"""What scoring needs of weights, wherever they lie: packaged, a run's folder, a converted file.

A file of ours that scores has a card of kind "diffv2iqa" (see `pack`), or is one that `convert`
made of a published model: "maniqa", "vcrnet", or "diffv2iqa_release" with a restorer beside it.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffv2iqa_jax import pixels
from diffv2iqa_jax.errors import WeightsError
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.tasks import restorers, stages
from diffv2iqa_jax.training import saved
from diffv2iqa_jax.training.saved import digest, shapes
from diffv2iqa_jax.types import Batch, Params, Restorer, Views, Weights
from diffv2iqa_jax.weights import files, published

STARTER = pathlib.Path(__file__).parents[1] / "weights" / "starter.safetensors"


PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")


KIND = "diffv2iqa"


@dataclasses.dataclass(frozen=True)
class Info:
    """What has to be known of a score.

    Attributes:
      name: of the weights, as they were asked for.
      kind: of net.
      range: of the score where training aimed at one, (0, 1); None: unbounded.
      direction: "higher is better", or what is known.
      scale: of the data set it was trained on: name, low, high, higher_better; {}: unknown.
      data: what it was trained on.
      protocol: how pictures are looked at; whoever reports a number reports this with it.
      licence: of the weights.
      sha256: of the file, or of a run's arrays.
    """

    name: str
    kind: str
    range: tuple[float, float] | None
    direction: str
    scale: dict[str, Any]
    data: str
    protocol: dict[str, Any]
    licence: str
    sha256: str


class Judge(NamedTuple):
    """Attributes:
    weights: on the host.
    views: (weights, batch with image and content) -> Views; those that a batch carries are
      taken, see `restorers.cached`.
    score: (weights, Views) -> score, score_NAME (B,), map_score_NAME and map_weight_NAME.
    restores: whether `views` makes any, of its noise.
    stored: what views are rounded to, one of `pixels.STORED`.
    whole: restore whole pictures and cut the views, rather than restoring each crop.
    pp: the test pipeline.
    card: of a net of ours, what `pack` keeps: settings (of `tasks.quality`), size, pp, whole.
    """

    weights: Weights
    views: Callable[[Weights, Batch], Views]
    score: Callable[[Weights, Views], dict[str, jax.Array]]
    restores: bool
    stored: str
    whole: bool
    pp: str
    info: Info
    card: dict[str, Any] | None = None


def load(name: str, *, restorer: str | None = None) -> Judge:
    """The judge of this name.

    Args:
      name: "starter"; a stage-2 run's folder, or that of a run of both stages; or a file
        .safetensors with its card.
      restorer: the folder of a stage-1 run, for a converted model that comes without one.

    Raises:
      WeightsError: one line.
    """
    path = STARTER if name == "starter" else pathlib.Path(name).expanduser()
    if name == "starter" and not path.exists():
        raise WeightsError("starter: no weights are packaged here; name a run's folder or a file")
    if path.suffix in PICKLES:
        raise WeightsError(
            f"{name}: such a file can run code when it is opened, so it is not; first"
            f" python -m diffv2iqa_jax.convert KIND {name} {path.with_suffix('.safetensors')}"
        )
    if not path.exists():
        raise WeightsError(f"{name}: no such file or folder; name one, or 'starter'")
    try:
        if not path.is_dir():
            return _of_file(name, path, restorer)
        if restorer is not None:
            raise WeightsError(f"{name}: is a run, which has its own restorer; name no other")
        return _of_run(name, path)
    except (ValueError, OSError, KeyError, TypeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(" ".join(f"{name}: {error}".split())) from error


def _of_run(name: str, folder: pathlib.Path) -> Judge:
    if not (folder / "checkpoints").is_dir() and (folder / "quality" / "checkpoints").is_dir():
        folder = folder / "quality"
    config, weights, step = _of_task(folder, "quality")
    data, origin = config["data"], config.get("restorer_from", {})
    card = {
        "settings": stages.settings(config),
        "size": data["size"],
        "pp": data["pp_test"].format(size=data["size"]),
        "whole": bool(origin) and origin.get("cached", True),
        "data": f"{data['name']}, split {data['split']}, {step} steps",
        "scale": _scale(folder),
        "licence": "",
        "sha256": digest(weights),
    }
    return _ours(name, weights, card)


def _scale(folder: pathlib.Path) -> dict:
    """The scale of the run's data set, where its results tell."""
    path = folder / "results.json"
    told = json.loads(path.read_text()).get("protocol", {}) if path.exists() else {}
    if "scale" not in told:
        return {}
    low, high = told["scale"]
    up = told.get("higher_is_better", True)
    return {"name": told.get("name", ""), "low": low, "high": high, "higher_better": up}


def _of_task(folder: pathlib.Path, task: str) -> tuple[dict, Weights, int]:
    """As `saved`, of a run of this task."""
    found = saved.load(str(folder))
    if found[0]["task"] != task:
        raise WeightsError(f"{folder}: is a {found[0]['task']} run; name one of task {task!r}")
    return found


def _of_file(name: str, path: pathlib.Path, restorer: str | None) -> Judge:
    weights, card = files.load(path)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    kind = card.get("kind")
    if kind != KIND and kind not in CONVERTED:
        known = [KIND, *CONVERTED]
        raise WeightsError(f"{name}: is a {kind!r}, which gives no scores; {known} do")
    if restorer is not None and kind != "diffv2iqa_release":
        raise WeightsError(f"{name}: is a {kind!r}, which takes no other restorer")
    if name != "starter":  # whose tests have done it: it takes a second
        settings = {"task": "quality", **card["settings"]}
        like = shapes(settings, card["size"]) if kind == KIND else published.like(card)
        weights = files.fit(kind, files.Renamed(files.flatten(weights), [], []), like)
    if kind == KIND:
        return _ours(name, weights, card)
    if kind == "diffv2iqa_release":
        return _release(name, weights, card, restorer)
    whole = Weights(
        {"restorer": {}, "quality": weights.params}, {"restorer": {}, "quality": weights.stats}
    )
    net = CONVERTED[kind]
    pp = f"grid({net.size(card['settings'])})"
    score = functools.partial(net.score, published.module(card), card["normalise"])
    info = _info(name, kind, card, pp, {"views": "none"})
    return Judge(whole, _views(restorers.none()), score, False, "float32", False, pp, info)


def _ours(name: str, weights: Weights, card: dict) -> Judge:
    settings = card["settings"]
    restorer, net = restorers.make(**settings["restorer"]), QualityModel(**settings["model"])
    score = functools.partial(_quality, net, None)
    made = _restoring(name, KIND, weights, card, restorer, settings["restorer"], score)
    return made._replace(card={key: card[key] for key in ("settings", "size", "pp", "whole")})


def _release(name: str, weights: Weights, card: dict, run: str | None) -> Judge:
    if run is None:
        raise WeightsError(f"{name}: comes without a restorer; name a stage-1 run's folder as it")
    config, first, _ = _of_task(pathlib.Path(run), "restoration")
    restorer = config["restorer"]
    both = Weights(
        {"restorer": first.params, "quality": weights.params},
        {"restorer": first.stats, "quality": weights.stats},
    )
    card = {**card, "whole": True, "pp": f"grid({_vit_size(card['settings'])})"}
    score = functools.partial(_quality, published.module(card), card["normalise"])
    made = restorers.make(**restorer)
    return _restoring(name, card["kind"], both, card, made, restorer, score)


def _restoring(name, kind, weights, card, restorer: Restorer, settings: dict, score) -> Judge:
    restores = settings["kind"] != "none"
    facts = {"views": ("whole" if card["whole"] else "crop") if restores else "none"}
    if restores:
        # An autoencoder restores in one pass.
        steps = settings.get("sampling", {}).get("steps", 1)
        facts |= {"steps": steps, "seed": settings["seed"]}
    stored = settings.get("views_dtype", "float32")
    info = _info(name, kind, card, card["pp"], facts)
    whole = restores and card["whole"]
    return Judge(weights, _views(restorer), score, restores, stored, whole, card["pp"], info)


def _part(weights: Weights, name: str) -> Weights:
    """The restorer's or the branches' part; a file does not keep that one of them is empty."""
    return Weights(weights.params.get(name, {}), weights.stats.get(name, {}))


def _views(restorer: Restorer) -> Callable[[Weights, Batch], Views]:
    made = restorers.cached(restorer)
    return lambda weights, batch: made.views(_part(weights, "restorer"), batch)


def _info(name: str, kind: str, card: dict, pp: str, facts: dict) -> Info:
    trained = kind == KIND
    source = card.get("source", {}).get("file", "")
    return Info(
        name=name,
        kind=kind,
        range=(0.0, 1.0) if trained else None,
        direction="higher is better" if trained else "as its labels were",
        scale=card.get("scale") or {},
        data=card.get("data", f"unknown: converted from {source}"),
        protocol={"pp": pp, **facts},
        licence=card.get("licence") or "not said",
        sha256=card["sha256"],
    )


def pack(judge: Judge, path: str, *, dtype: str = "float32", **facts) -> None:
    """Writes the weights of a run as one file with a card, which `load` reads.

    Args:
      dtype: what the weights are kept in; "float16" halves the file, at a loss of accuracy.
      facts: of the card: data, scale, licence and what else is worth saying.

    Raises:
      WeightsError: it is no net of ours.
    """
    if judge.card is None:
        raise WeightsError(f"{judge.info.name}: only our own runs are packed; keep that file")
    card = {"kind": KIND, **judge.card}
    known = {key: getattr(judge.info, key) for key in ("data", "scale", "licence")}
    files.save(path, judge.weights, {**card, **known, **facts}, dtype=dtype)


def _normalised(image: jax.Array, normalise: dict | None) -> jax.Array:
    """Pixels in [-1, 1] -> what the net was trained on."""
    if normalise is None or normalise == published.NORMALISE["half"]:
        return image
    return pixels.standardise(image, normalise["mean"], normalise["std"])


def _variables(weights: Weights) -> Params:
    part = _part(weights, "quality")
    return {"params": part.params, "batch_stats": part.stats}


def _quality(net, normalise, weights: Weights, views: Views) -> dict[str, jax.Array]:
    return net.apply(_variables(weights), Views(_normalised(views.image_BVHWC, normalise)))


def _vcrnet(net, normalise, weights: Weights, views: Views) -> dict[str, jax.Array]:
    score, _ = net.apply(_variables(weights), _normalised(views.image_BVHWC[:, 0], normalise))
    return {"score": score}


def _vit_size(settings: dict) -> int:
    return settings["branches"]["guidance"]["vit"]["image_size"]


class Converted(NamedTuple):
    """How a published net scores: (net, normalise, weights, Views) -> scores; size of a crop."""

    score: Callable[..., dict[str, jax.Array]]
    size: Callable[[dict], int]


CONVERTED = {
    "maniqa": Converted(_quality, _vit_size),
    "vcrnet": Converted(_vcrnet, lambda settings: 224),
    "diffv2iqa_release": Converted(_quality, _vit_size),
}
