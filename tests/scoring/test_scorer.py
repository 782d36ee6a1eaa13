"""A score is the evaluation's, depends on the pixels alone, and takes a picture in any form."""

import csv
import functools
import io
import itertools
import json
import pathlib
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffv2iqa_jax
from diffv2iqa_jax import rng
from diffv2iqa_jax.data import evaluation, reading, stored_views
from diffv2iqa_jax.data.sets import store
from diffv2iqa_jax.pp import tiles
from diffv2iqa_jax.scoring import output, predictor, scorer
from diffv2iqa_jax.weights import files
from tests import pictures, runs

ROOT = pathlib.Path(__file__).parents[2]


def picture(h=24, w=40, seed=0):
    return pictures.picture(h, w, seed=seed)


@pytest.fixture(scope="session", params=["whole", "crops"])
def run(request, quality_run, by_crops):
    return quality_run if request.param == "whole" else by_crops


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
        f"scores = diffv2iqa_jax.load({str(run)!r})({names!r})\n"
        "assert not {'tensorflow', 'clu', 'matplotlib', 'ml_collections'} & set(sys.modules)\n"
        "print(json.dumps([[x.score, x.branches] for x in scores]))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=apart)
    assert done.returncode == 0, done.stderr
    for row, (total, branches) in zip(want, json.loads(done.stdout), strict=True):
        assert total == pytest.approx(float(row["score"]), abs=1e-5)
        for name, score_of_branch in branches.items():
            assert score_of_branch == pytest.approx(float(row[f"score_{name}"]), abs=1e-5)


def test_a_picture_resized_before_it_is_restored_scores_as_evaluated(
    data, restored, photos, tmp_path
):
    pp = {"data.pp_train": "resize(24)|crop({size})", "data.pp_test": "resize(24)|grid({size})"}
    runs.run(runs.stage2(data, restored, **pp, every=runs.SELDOM), tmp_path / "run")
    views = stored_views.index(tmp_path / "run" / "views")
    assert set(views.end - views.begin) == {3 * 24 * 24 * 3 * 4}
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:3]
    scores = scorer.load(tmp_path / "run", jit_cache=None)
    for row in rows:
        one = scores(photos / f"{row['name']}.png")
        assert one.crops == 4 and "tiled" not in one.flags
        assert one.score == pytest.approx(float(row["score"]), abs=1e-5)


def test_a_pipeline_that_needs_the_original_is_refused_at_once(by_crops):
    with pytest.raises(ValueError, match="no such op; known are"):
        scorer.load(by_crops, jit_cache=None, pp="shrink(2)|grid(16)")


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
            together = [float(x) for x in forget(each)(pictures[order])][order]
            np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_default_generator_changes_no_score(by_crops, score, monkeypatch):
    """With "rbg", all noise of a batch would follow its first picture."""
    pictures = [picture(h, w, h) for h, w in ((24, 40), (16, 16), (5, 60))]
    want = [float(score(x)) for x in pictures]
    with jax.default_prng_impl("rbg"):
        assert jax.random.key_impl(jax.random.key(0)) != rng.IMPLEMENTATION
        other = scorer.load(by_crops, jit_cache=None)
        for batch in (1, 3):
            monkeypatch.setattr(other, "batch", batch)
            got = [float(x) for x in forget(other)(pictures[::-1])][::-1]
            np.testing.assert_allclose(got, want, atol=1e-5)


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
    assert float(want) == want.score
    batch = np.stack([x, x[::-1]])
    assert [s.score for s in score(batch)] == [score(x).score, score(x[::-1]).score]
    assert score([]) == []


def test_an_iterator_is_read_as_it_is_asked_for(score):
    asked = []

    def pictures():
        for number in itertools.count():
            asked.append(number)
            yield picture(seed=number)

    endless = score(pictures())
    want = [score(picture(seed=i)).score for i in range(3)]
    assert [next(endless).score for _ in range(3)] == want
    assert len(asked) < 12
    endless.close()


def test_of_several_each_failure_is_told_apart(score, tmp_path):
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    scores = score([str(tmp_path / "none.jpg"), picture(), tmp_path / "text.jpg", b""])
    assert [x.error for x in scores] == ["E_NOT_FOUND", "", "E_DECODE", "E_DECODE"]
    assert [x.status for x in scores] == ["failed", "ok", "failed", "failed"]
    assert np.isnan(float(scores[0])) and scores[0].score is None
    assert scores[0].contributions == {}
    for source, code in ((tmp_path / "none.jpg", "E_NOT_FOUND"), (b"x", "E_DECODE")):
        with pytest.raises(diffv2iqa_jax.ImageError, match=rf"\[{code}\]"):
            score(source)
    with pytest.raises(TypeError):
        score([picture().astype(np.int32)])


def test_details_are_those_of_the_crops(each):
    score = each(picture(24, 40), details=True)
    assert score.corners.tolist() == [[t, x] for t in (0, 8) for x in (0, 12, 24)]
    assert score.views.shape == (6, 4, 16, 16, 3) and score.views.dtype == np.uint8
    for view, (top, left) in zip(score.views[:, 0], score.corners, strict=True):
        np.testing.assert_array_equal(view, picture()[top : top + 16, left : left + 16])
    names = {f"{what}_{branch}" for what in ("score", "weight") for branch in score.branches}
    assert score.maps.keys() == names
    for branch, value in score.branches.items():
        patches, weights = score.maps[f"score_{branch}"], score.maps[f"weight_{branch}"]
        of_crops = (patches * weights).sum((1, 2)) / weights.sum((1, 2))
        assert of_crops.mean() == pytest.approx(value, abs=1e-5)


def test_other_seeds_restore_otherwise_and_give_a_spread(each):
    one, four = each(picture()), each(picture(), seeds=4)
    assert one.spread is None and one.score == four.score
    assert 0 < four.spread < 1
    assert forget(each)(picture(), seeds=4) == four
    # The seed's noise is that of a picture of another content.
    assert scorer.reseeded(7, 0) == 7 and len({scorer.reseeded(7, s) for s in range(99)}) == 99


def test_fewer_crops_are_evenly_chosen(by_crops):
    scores = scorer.load(by_crops, jit_cache=None, crops=2)
    assert scores(picture(24, 40), details=True).corners.tolist() == [[0, 0], [8, 24]]
    assert scores.info.protocol["crops"] == 2


def test_the_same_picture_again_is_remembered(score, monkeypatch):
    first = score(picture())
    monkeypatch.setattr(score, "_score", None)  # would fail if it was scored again
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


def test_large_pictures_are_restored_by_tiles_and_few_shapes_are_kept(quality_run, monkeypatch):
    scores = scorer.load(quality_run, jit_cache=None)
    monkeypatch.setattr(tiles, "PIXELS", 32 * 32)
    monkeypatch.setattr(tiles, "over", functools.partial(tiles.over, side=24, margin=4))
    monkeypatch.setattr(scorer, "SHAPES", 2)
    large = scores([picture(40, 40), picture(60, 32)])
    assert all("tiled" in x.flags for x in large) and scores._restore._cache_size() == 1
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


@pytest.mark.parametrize(
    "source",
    [None, 3, 0.5, True, object(), {"a.png": 1}, {"a.png"}],
    ids=lambda source: type(source).__name__,
)
def test_what_is_no_picture_is_refused_alone_and_among_others(score, source):
    for one in (source, [picture(), source], iter([source])):
        with pytest.raises(TypeError, match="is no picture; pass a path") as caught:
            list(score(one))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["seeds", "crops", "batch", "workers"])
def test_what_is_no_number_of_times_is_refused(score, name):
    def ask(value):
        if name == "seeds":
            return score(picture(), seeds=value)
        return scorer.Scorer(score._predictor, **{name: value})

    for value in (1.5, "2", True, float("nan"), *([None] if name in ("seeds", "workers") else [])):
        with pytest.raises(TypeError, match=f"{name} .*: must be a whole number"):
            ask(value)
    with pytest.raises(ValueError, match=f"{name} -1: must be at least"):
        ask(-1)


@pytest.mark.parametrize("pp", ["grid(8)", "resize(9)", "center(20)"])
def test_crops_that_the_model_does_not_take_are_refused_before_a_picture_comes(score, pp):
    with pytest.raises(
        ValueError, match=r"pp .*: crops of \d+ x \d+ do not fit this model"
    ) as error:
        scorer.Scorer(score._predictor, pp=pp)
    assert "\n" not in str(error.value)
    assert scorer.Scorer(score._predictor, pp=f"center({runs.SIZE})")(picture()).crops == 1


def test_crops_of_no_one_size_are_refused_by_a_model_that_takes_one(score):
    with pytest.raises(ValueError, match="pp '': its crops are of any size, and this model takes"):
        scorer.Scorer(score._predictor, pp="")


def test_a_loss_of_what_is_no_image_in_0_to_1_says_the_range_and_what_to_do(score):
    x = np.full((1, 24, 24, 3), 0.5, np.float32)
    for bad in (255 * x, x - 1, np.where(x > 0, np.nan, x), 2.1 * jnp.asarray(x)):
        for call in (score.loss, jax.grad(lambda x: score.loss(x))):
            with pytest.raises(ValueError, match="must be finite and lie in 0..1; divide 0..255"):
                call(bad)
    for bad in (None, "photo.jpg", [1.0], x[0], x[:0], x[..., :1], x.transpose(0, 3, 1, 2)):
        with pytest.raises(ValueError, match="images .*: must be floating .B, H, W, 3. in .0, 1."):
            score.loss(bad)


def test_as_a_loss_it_is_what_the_score_is(score):
    """But for the noise, which a loss cannot derive from pixels."""
    x = picture(24, 40)
    loss, one = jax.jit(score.loss)(x[None] / np.float32(255)), score(x, seeds=8)
    assert abs(1 - float(loss) - one.score) < 6 * one.spread


def test_info_says_what_a_number_means(score):
    info = score.info
    assert info.range == (0, 1) and info.direction == "higher is better"
    assert info.data == "builtin/tiny, split 0, 4 steps" and len(info.sha256) == 64
    assert info.protocol["pp"] == f"grid({runs.SIZE})" and info.protocol["views"] == "crop"


@pytest.mark.parametrize("w2", [1.0, 5.0, "learned"])
def test_contributions_add_up_to_the_score(packed, tmp_path, w2):
    weights, card = files.load(packed)
    tensors = files.flatten(weights)
    weight = 2.5 if w2 == "learned" else w2
    if w2 == "learned":
        tensors["params/quality/w2"] = np.float32(weight)
    settings = card["settings"] | {"model": card["settings"]["model"] | {"w2": w2}}
    kept = {key: card[key] for key in ("kind", "size", "pp", "whole")}
    files.save(tmp_path / "x.safetensors", files.unflatten(tensors), {**kept, "settings": settings})
    score = scorer.load(tmp_path / "x.safetensors", jit_cache=None)(picture())
    assert score.branch_weights == {"guidance": 1.0, "difference": weight}
    assert score.branches.keys() == {"guidance", "difference"}
    assert sum(score.contributions.values()) == pytest.approx(score.score, rel=1e-6)
    assert score.contributions["guidance"] == score.branches["guidance"]
    assert score.contributions["difference"] == weight * score.branches["difference"]
    row = output.row_of(score, {})  # the file of scores keeps the branches' own scores
    assert row["score_difference"] == score.branches["difference"]


def test_a_packed_run_scores_as_the_run(run, each, tmp_path):
    scale = {"name": "stars", "low": 5, "high": 1, "higher_better": True}
    path = tmp_path / "packed.safetensors"
    of_run = predictor.load(str(run))
    facts = {"scale": scale, "data": "stars", "labels": "given", "licence": "CC0"}
    predictor.pack(of_run, str(path), **facts)
    scores = scorer.load(path, jit_cache=None)
    x = scores(picture())
    assert x.score == pytest.approx(each(picture()).score, abs=1e-6)
    assert x.mos == pytest.approx(5 - 4 * x.score)
    assert scores.info.licence == "CC0" and scores.info.data == "stars"
    small = tmp_path / "half.safetensors"
    predictor.pack(of_run, str(small), dtype="float16")
    assert small.stat().st_size < 0.6 * path.stat().st_size
    assert predictor.load(str(small)).weights.params.keys() == of_run.weights.params.keys()


def test_the_content_of_a_picture_is_the_pipelines():
    assert store.content(picture()) == zlib.crc32(picture())
