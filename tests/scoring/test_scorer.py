"""The promises of a score: the evaluation's, of the picture alone, from whatever it comes as."""

import csv
import functools
import io
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffv2iqa_jax
from diffv2iqa_jax import errors
from diffv2iqa_jax.data import evaluation, reading
from diffv2iqa_jax.data.sets import registry
from diffv2iqa_jax.pp import tiles
from diffv2iqa_jax.scoring import predictor, scorer
from diffv2iqa_jax.weights import files, published
from tests import pictures, runs, tiny

ROOT = pathlib.Path(__file__).parents[2]


def picture(h=24, w=40, seed=0):
    return pictures.picture(h, w, seed=seed)


@pytest.fixture(scope="session", params=["whole", "crops"])
def run(request, judged, by_crops):
    return judged if request.param == "whole" else by_crops


@pytest.fixture(scope="session")
def loaded(run):
    return scorer.load(run, jit_cache=None)


def forget(scores):
    scores.forget()
    return scores


@pytest.fixture
def each(loaded):
    """A scorer of each way to restore, which remembers nothing."""
    return forget(loaded)


@pytest.fixture
def score(loaded_by_crops):
    return forget(loaded_by_crops)


@pytest.fixture(scope="session")
def photos(data, tmp_path_factory):
    """The data set's pictures as files, by name."""
    folder = tmp_path_factory.mktemp("photos")
    source = reading.load("builtin/tiny", str(data))
    ids = source.table["id"]
    for batch in evaluation.whole(source, ids, batch=1):
        Image.fromarray(batch["image"][0]).save(
            folder / f"{source.table['name'][batch['id'][0]]}.png"
        )
    return folder


def test_it_says_what_the_evaluation_said_and_needs_no_tensorflow(run, photos, apart):
    """In a process of its own, as a user has it."""
    with open(run / "predictions.csv", newline="") as file:
        want = list(csv.DictReader(file))
    names = [str(photos / f"{row['name']}.png") for row in want]
    code = (
        "import json, sys, diffv2iqa_jax\n"
        f"found = diffv2iqa_jax.load({str(run)!r})({names!r})\n"
        "assert not {'tensorflow', 'clu', 'matplotlib', 'ml_collections'} & set(sys.modules)\n"
        "print(json.dumps([[x.score, x.branches] for x in found]))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=apart)
    assert done.returncode == 0, done.stderr
    for row, (total, branches) in zip(want, json.loads(done.stdout), strict=True):
        assert total == pytest.approx(float(row["score"]), abs=1e-5)
        for name, part in branches.items():
            assert part == pytest.approx(float(row[f"score_{name}"]), abs=1e-5)


def test_a_picture_resized_before_it_is_restored_scores_as_evaluated(
    data, restored, photos, tmp_path
):
    pp = {"data.pp_train": "resize(24)|crop({size})", "data.pp_test": "resize(24)|grid({size})"}
    runs.run(runs.stage2(data, restored, **pp, **{"optim.steps": 1}), str(tmp_path / "run"))
    views = sorted((tmp_path / "run" / "views").glob("*.views"))
    assert {p.stat().st_size for p in views} == {3 * 24 * 24 * 3 * 4}
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:3]
    scores = scorer.load(tmp_path / "run", jit_cache=None)
    for row in rows:
        found = scores(photos / f"{row['name']}.png")
        assert found.crops == 4 and "tiled" not in found.flags
        assert found.score == pytest.approx(float(row["score"]), abs=1e-5)


def test_importing_the_package_imports_next_to_nothing():
    code = "import sys, diffv2iqa_jax; assert not {'jax', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        diffv2iqa_jax.lode  # noqa: B018
    assert diffv2iqa_jax.load is scorer.load


def test_a_score_does_not_depend_on_its_neighbours_or_on_the_batch(each, monkeypatch):
    pictures = [picture(h, w, h) for h, w in ((24, 40), (16, 16), (5, 60))]
    alone = [float(each(x)) for x in pictures]
    assert len(set(alone)) == len(alone)
    for batch in (3, 8):
        monkeypatch.setattr(each, "batch", batch)
        for order in (slice(None), slice(None, None, -1)):
            found = [float(x) for x in forget(each)(pictures[order])][order]
            np.testing.assert_allclose(found, alone, atol=1e-5)


def test_one_program_serves_all_sizes(score):
    score(picture())
    before = score._program._cache_size()
    score([picture(h, w) for h, w in ((16, 16), (50, 20), (1, 1), (31, 100))])
    assert score._program._cache_size() == before


def test_whatever_holds_the_same_pixels_scores_the_same(score, tmp_path):
    x = picture()
    Image.fromarray(x).save(tmp_path / "x.png")
    stream = io.BytesIO()
    Image.fromarray(x).save(stream, "BMP")
    forms = [str(tmp_path / "x.png"), tmp_path / "x.png", stream.getvalue(), Image.fromarray(x)]
    forms += [x, x.astype(np.uint16) * 257, x / 255, (x / 255).astype(np.float32), jnp.asarray(x)]
    want = score(x)
    for form in forms:
        assert score(form).score == want.score
    assert score(str(tmp_path / "x.png")).path == str(tmp_path / "x.png")
    assert (want.width, want.height, want.crops, want.status) == (40, 24, 6, "ok")
    assert float(want) == want.score == pytest.approx(sum(want.branches.values()))
    batch = np.stack([x, x[::-1]])
    assert [s.score for s in score(batch)] == [score(x).score, score(x[::-1]).score]
    assert score([]) == []


def test_an_iterator_is_read_as_it_is_asked_for(score):
    asked = []

    def pictures():
        for number in itertools.count():
            asked.append(number)
            yield picture(seed=number)

    found = score(pictures())
    assert [next(found).score for _ in range(3)] == [score(picture(seed=i)).score for i in range(3)]
    assert len(asked) < 12
    found.close()


def test_of_several_each_failure_is_told_apart(score, tmp_path):
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    found = score([str(tmp_path / "none.jpg"), picture(), tmp_path / "text.jpg", b""])
    assert [x.error for x in found] == ["E_NOT_FOUND", "", "E_DECODE", "E_DECODE"]
    assert [x.status for x in found] == ["failed", "ok", "failed", "failed"]
    assert np.isnan(float(found[0])) and found[0].score is None
    for source, code in ((tmp_path / "none.jpg", "E_NOT_FOUND"), (b"x", "E_DECODE")):
        with pytest.raises(diffv2iqa_jax.ImageError, match=rf"\[{code}\]"):
            score(source)
    with pytest.raises(TypeError):
        score([picture().astype(np.int32)])


def test_details_are_those_of_the_crops(each):
    found = each(picture(24, 40), details=True)
    assert found.corners.tolist() == [[t, x] for t in (0, 8) for x in (0, 12, 24)]
    assert found.views.shape == (6, 4, 16, 16, 3) and found.views.dtype == np.uint8
    for view, (top, left) in zip(found.views[:, 0], found.corners, strict=True):
        np.testing.assert_array_equal(view, picture()[top : top + 16, left : left + 16])
    names = {f"{what}_{branch}" for what in ("score", "weight") for branch in found.branches}
    assert found.maps.keys() == names
    for branch, value in found.branches.items():
        patches, weights = found.maps[f"score_{branch}"], found.maps[f"weight_{branch}"]
        each = (patches * weights).sum((1, 2)) / weights.sum((1, 2))
        assert each.mean() == pytest.approx(value, abs=1e-5)


def test_other_seeds_restore_otherwise_and_give_a_spread(each):
    one, four = each(picture()), each(picture(), seeds=4)
    assert one.spread is None and one.score == four.score
    assert 0 < four.spread < 1
    assert forget(each)(picture(), seeds=4) == four
    # The seed's noise is that of a picture of another content.
    assert scorer.reseeded(7, 0) == 7 and len({scorer.reseeded(7, s) for s in range(99)}) == 99


def test_fewer_crops_are_evenly_chosen(by_crops):
    found = scorer.load(by_crops, jit_cache=None, crops=2)(picture(24, 40), details=True)
    assert found.corners.tolist() == [[0, 0], [8, 24]]
    assert scorer.load(by_crops, jit_cache=None, crops=2).info.protocol["crops"] == 2


def test_the_same_picture_again_is_remembered(score, monkeypatch):
    first = score(picture())
    monkeypatch.setattr(score, "_judge", None)  # would fail if it was judged
    assert score(picture()) == first
    assert score([picture(), picture()]) == [first, first]


def test_too_little_memory_halves_the_batch(score, monkeypatch):
    monkeypatch.setattr(score, "batch", 8)
    want, program = score(picture(60, 60)), score._program

    def starved(weights, batch):
        if len(batch["image"]) > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return program(weights, batch)

    monkeypatch.setattr(score, "_program", starved)
    assert forget(score)(picture(60, 60)).score == pytest.approx(want.score, abs=1e-5)
    assert score.batch == 2


def test_large_pictures_are_restored_by_tiles_and_few_shapes_are_kept(judged, monkeypatch):
    scores = scorer.load(judged, jit_cache=None)
    monkeypatch.setattr(tiles, "PIXELS", 32 * 32)
    monkeypatch.setattr(tiles, "over", functools.partial(tiles.over, side=24, margin=4))
    monkeypatch.setattr(scorer, "SHAPES", 2)
    found = scores([picture(40, 40), picture(60, 32)])
    assert all("tiled" in x.flags for x in found) and scores._restore._cache_size() == 1
    scores([picture(16, 16), picture(16, 18)])
    assert scores._restore._cache_size() <= 2


def test_tiles_cover_the_picture_once_and_keep_off_their_sides():
    image = picture(100, 37)

    def work(part):
        out = np.stack([part, 255 - part])
        out[:, [0, -1]] = 0  # a side that no neighbour may show
        return out

    out = tiles.over(image, work, side=32, margin=4)
    np.testing.assert_array_equal(out[0, 1:-1], image[1:-1])
    np.testing.assert_array_equal(out[1, 1:-1], 255 - image[1:-1])


def test_as_a_loss_it_has_finite_gradients_that_change_pictures(each):
    images = jnp.stack([picture(24, 40), np.full((24, 40, 3), 128, np.uint8)]) / 255.0
    value, grad = jax.jit(jax.value_and_grad(each.loss))(images)
    assert np.isfinite(value) and grad.shape == images.shape
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
    with pytest.raises(ValueError, match="must be floating"):
        each.loss(picture()[None])


def test_as_a_loss_it_is_what_the_score_is(score):
    """But for the noise, which a loss cannot derive from pixels."""
    x = picture(24, 40)
    loss, found = jax.jit(score.loss)(x[None] / np.float32(255)), score(x, seeds=8)
    assert abs(1 - float(loss) - found.score) < 6 * found.spread


def test_info_says_what_a_number_means(score):
    info = score.info
    assert info.range == (0, 1) and info.direction == "higher is better"
    assert info.data == "builtin/tiny, split 0, 4 steps" and len(info.sha256) == 64
    assert info.protocol["pp"] == f"grid({runs.SIZE})" and info.protocol["views"] == "crop"


def test_a_packed_run_scores_as_the_run(run, each, tmp_path):
    scale = {"name": "stars", "low": 5, "high": 1, "higher_better": True}
    path = tmp_path / "packed.safetensors"
    found = predictor.load(str(run))
    predictor.pack(found, str(path), scale=scale, data="stars", licence="CC0")
    scores = scorer.load(path, jit_cache=None)
    x = scores(picture())
    assert x.score == pytest.approx(each(picture()).score, abs=1e-6)
    assert x.mos == pytest.approx(5 - 4 * x.score)
    assert scores.info.licence == "CC0" and scores.info.data == "stars"
    small = tmp_path / "half.safetensors"
    predictor.pack(found, str(small), dtype="float16")
    assert small.stat().st_size < 0.6 * path.stat().st_size
    assert predictor.load(str(small)).weights.params.keys() == found.weights.params.keys()


def converted(kind, module, inputs, settings, path, normalise="half"):
    made = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    weights = tiny.random(predictor.Weights(made["params"], made.get("batch_stats", {})))
    card = {"kind": kind, "settings": settings, "normalise": published.NORMALISE[normalise]}
    files.save(path, weights, card)
    return weights


def test_converted_checkpoints_score_by_a_grid(restored, tmp_path):
    settings = {"branches": {"guidance": tiny.guidance(select=((0,),), noise_width=0)}}
    net = published.KINDS["maniqa"].module(**settings)
    views = predictor.Views(jnp.zeros((1, 1, 16, 16, 3)))
    path = tmp_path / "maniqa.safetensors"
    weights = converted("maniqa", net, (views,), settings, path)
    scores = scorer.load(path, jit_cache=None)
    x = picture(16, 16)
    views = predictor.Views(jnp.asarray(x, jnp.float32)[None, None] / 127.5 - 1)
    want = jax.jit(net.apply)({"params": weights.params}, views)["score"][0]
    assert scores(x).score == pytest.approx(float(want), abs=1e-5)
    assert scores(picture(24, 40)).crops == 6 and scores.info.range is None
    assert scores(x, seeds=3).spread is None  # it draws no noise
    release = tmp_path / "release.safetensors"
    views = predictor.Views(jnp.zeros((1, 4, 16, 16, 3)))
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
    found = scorer.load(path, jit_cache=None, pp="center(64)")(x)
    assert found.score == pytest.approx(float(want[0]), abs=1e-5) and found.branches == {}


def test_weights_that_cannot_score_are_refused_in_a_line(restored, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff\xff\xff\xff\0\0\0\0{}")
    (tmp_path / "cut.json").write_text('{"format": 1, "kind": "maniqa"}')
    unet = tmp_path / "sr3.safetensors"
    files.save(unet, predictor.Weights({"x": np.zeros(1)}, {}), {"kind": "sr3"})
    for name, message in {
        tmp_path / "none": "no such file or folder",
        tmp_path / "net.pth": "can run code",
        tmp_path / "cut.safetensors": "header of 4294967295",
        tmp_path: "holds no checkpoint",
        restored: "is a restoration run",
        unet: "'sr3', which gives no scores",
        pathlib.Path("starter"): "no weights are packaged",
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
    own = {key: card[key] for key in ("kind", "settings", "size", "pp", "whole")}
    for changed, message in (
        (rest, f"1 missing: {name}"),
        (flat | {"params/odd": np.zeros(2)}, "1 unknown: params/odd"),
        (flat | {name: flat[name][:1]}, f"1 mis-shaped: {name}"),
        (flat | {name: flat[name] * np.nan}, f"1 not finite: {name}"),
    ):
        path = tmp_path / "changed.safetensors"
        files.save(path, files.unflatten(changed), own)
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
    results["protocol"] |= {"name": "set", "scale": [10, 60], "higher_is_better": False}
    (run / "results.json").write_text(json.dumps(results))
    found = scorer.load(run, jit_cache=None)(picture())
    assert found.mos == pytest.approx(60 - 50 * found.score)


def _hollow():
    info = predictor.Info("x", "x", None, "", {}, "", {}, "", "")
    return predictor.Judge({}, None, None, False, "float32", False, "", info)


def test_the_content_of_a_picture_is_the_pipelines():
    assert registry.content(picture()) == zlib.crc32(picture())
