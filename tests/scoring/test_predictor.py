"""Weights of any origin become predictors, or are refused in a line."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax import errors
from diffv2iqa_jax.scoring import predictor, scorer
from diffv2iqa_jax.types import Views, Weights
from diffv2iqa_jax.weights import files, published
from tests import pictures, tiny


def picture(h=24, w=40, seed=0):
    return pictures.picture(h, w, seed=seed)


def converted(kind, module, inputs, settings, path, normalise="half"):
    """Writes random weights as if `convert` had; returns them."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    weights = tiny.random(Weights(shapes["params"], shapes.get("batch_stats", {})))
    card = {"kind": kind, "settings": settings, "normalise": published.NORMALISE[normalise]}
    files.save(path, weights, card)
    return weights


def test_converted_checkpoints_score_by_a_grid(restored, tmp_path):
    settings = {"branches": {"guidance": tiny.guidance(select=((0,),), noise_width=0)}}
    net = published.KINDS["maniqa"].module(**settings)
    views = Views(jnp.zeros((1, 1, 16, 16, 3)))
    path = tmp_path / "maniqa.safetensors"
    weights = converted("maniqa", net, (views,), settings, path)
    scores = scorer.load(path, jit_cache=None)
    x = picture(16, 16)
    views = Views(jnp.asarray(x, jnp.float32)[None, None] / 127.5 - 1)
    want = jax.jit(net.apply)({"params": weights.params}, views)["score"][0]
    assert scores(x).score == pytest.approx(float(want), abs=1e-5)
    assert scores(picture(24, 40)).crops == 6 and scores.info.range is None
    assert scores(x, seeds=3).spread is None  # it draws no noise
    release = tmp_path / "release.safetensors"
    views = Views(jnp.zeros((1, 4, 16, 16, 3)))
    net = published.KINDS["diffv2iqa_release"].module(**tiny.model())
    converted("diffv2iqa_release", net, (views,), tiny.model(), release)
    with pytest.raises(errors.WeightsError, match="without a restorer"):
        scorer.load(release, jit_cache=None)
    assert np.isfinite(scorer.load(release, restorer=str(restored), jit_cache=None)(x).score)


def test_a_vcrnet_scores_what_imagenets_normalisation_makes_of_it(tmp_path):
    small = {"width": 2, "scale_width": 2, "hidden": 8, "stem": 4, "head": 8}
    small["stages"] = ((1, 3, 1, 4, 1), *4 * ((6, 3, 2, 4, 1),))
    net = published.KINDS["vcrnet"].module(**small)
    path = tmp_path / "vcrnet.safetensors"
    weights = converted("vcrnet", net, (jnp.zeros((1, 64, 64, 3)),), small, path, "imagenet")
    x = picture(64, 64)
    mean, std = (np.array(published.NORMALISE["imagenet"][k], np.float32) for k in ("mean", "std"))
    variables = {"params": weights.params, "batch_stats": weights.stats}
    want, _ = jax.jit(net.apply)(variables, (x[None] / np.float32(255) - mean) / std)
    score = scorer.load(path, jit_cache=None, pp="center(64)")(x)
    assert score.score == pytest.approx(float(want[0]), abs=1e-5)
    assert score.branches == score.branch_weights == score.contributions == {}


def test_weights_that_cannot_score_are_refused_in_a_line(restored, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff\xff\xff\xff\0\0\0\0{}")
    (tmp_path / "cut.json").write_text('{"format": 1, "kind": "maniqa"}')
    unet = tmp_path / "sr3.safetensors"
    files.save(unet, Weights({"x": np.zeros(1)}, {}), {"kind": "sr3"})
    for name, message in {
        tmp_path / "none": "no such file or folder",
        tmp_path / "net.pth": "can run code",
        tmp_path / "cut.safetensors": "header of 4294967295",
        tmp_path: "holds no checkpoint",
        restored: "is a restoration run",
        unet: "'sr3', which gives no scores",
        pathlib.Path("starter"): "no weights are packaged",
        "": "'': names no weights; name a run's folder",
    }.items():
        if str(name) == "starter" and predictor.STARTER.exists():
            continue
        with pytest.raises(errors.WeightsError, match=message) as caught:
            scorer.load(str(name), jit_cache=None)
        assert "\n" not in str(caught.value)
    for settings in ({"batch": 0}, {"crops": 0}, {"pp": "grid(0)"}):
        with pytest.raises(ValueError, match="at least 1|from 1"):
            scorer.Scorer(None if "pp" not in settings else _hollow(), **settings)


def test_a_file_that_does_not_fit_its_card_is_refused_by_name(packed, tmp_path):
    weights, card = files.load(packed)
    flat = files.flatten(weights)
    name = next(name for name in flat if name.endswith("head/score_0/kernel"))
    rest = {key: x for key, x in flat.items() if key != name}
    kept = {key: card[key] for key in ("kind", "settings", "size", "pp", "whole")}
    for changed, message in (
        (rest, f"1 missing: {name}"),
        (flat | {"params/odd": np.zeros(2)}, "1 unknown: params/odd"),
        (flat | {name: flat[name][:1]}, f"1 mis-shaped: {name}"),
        (flat | {name: flat[name] * np.nan}, f"1 not finite: {name}"),
    ):
        path = tmp_path / "changed.safetensors"
        files.save(path, files.unflatten(changed), kept)
        with pytest.raises(errors.WeightsError, match=message):
            predictor.load(str(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(errors.WeightsError, match="cut short"):
        predictor.load(str(path))
    path.write_bytes(packed.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.WeightsError, match="SHA-256"):
        predictor.load(str(path))


def test_the_data_sets_scale_comes_from_the_runs_results(by_crops, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(by_crops, run)
    results = json.loads((run / "results.json").read_text())
    scale = {"name": "set", "scale": [10, 60], "higher_is_better": False}
    for labels in ("DMOS", "formula FSIM"):
        results["protocol"] |= {**scale, "labels": labels}
        (run / "results.json").write_text(json.dumps(results))
        loaded = scorer.load(run, jit_cache=None)
        score = loaded(picture())
        assert loaded.info.labels == labels
        want = pytest.approx(60 - 50 * score.score) if labels == "DMOS" else None
        assert score.mos == want  # no person's opinion where a formula gave the labels


def _hollow():
    """A predictor that nothing is asked of."""
    info = predictor.Info("x", "x", None, "", {}, "", "", {}, "", "")
    settings = {"restores": False, "stored": "float32", "whole": False, "pp": "", "info": info}
    return predictor.Predictor(weights={}, views=None, score=None, **settings)
