"""Weights from elsewhere: converted files and earlier runs, and what does not fit."""

import jax
import numpy as np
import pytest

from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import checks, initialize, saved, setup
from diffv2iqa_jax.training.checkpoint import Checkpoints
from diffv2iqa_jax.weights import files, published
from tests import runs, theirs, tiny

WIDE = 128  # two heads of 64, as a ViT has them unless it is said


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    """A converted ViT of 16 pixels with two blocks, for pixels in [-1, 1]."""
    path = str(tmp_path_factory.mktemp("weights") / "vit.safetensors")
    tensors = theirs.random(theirs.vit(width=WIDE, depth=2, patch=4, side=4, mlp=16))
    weights, card, _ = published.convert("vit_timm", tensors)
    files.save(path, weights, card)
    return path


def quality(path: str, **changes) -> dict:
    """A resolved configuration without a restorer whose ViT starts from `path`."""
    config = runs.maniqa_run("nowhere")
    config["model"]["branches"]["guidance"]["vit"] = tiny.vit(width=WIDE, mlp=16) | changes
    config["pretrained"]["vit"] = path
    return config


def shapes(config: dict):
    return setup.shapes(setup.make_task(config), config["data"]["size"])


def test_a_converted_backbone_is_put_in_its_place(vit_file):
    config = quality(vit_file)
    found = initialize.pretrained(config, shapes(config))
    assert list(found) == ["quality/guidance/vit"]
    task = setup.make_task(config)
    weights = jax.jit(task.init)(jax.random.key(0), tiny.batch(count=1))
    placed = files.place(weights, "quality/guidance/vit", found["quality/guidance/vit"])
    have, want = placed.params["quality"]["guidance"]["vit"], files.load(vit_file)[0].params
    assert set(have) < set(want)  # the net ends at its last tap: no block 1, no head
    jax.tree.map(np.testing.assert_array_equal, have, {k: want[k] for k in have})
    rest = placed.params["quality"]["guidance"]["head"]
    before = weights.params["quality"]["guidance"]["head"]
    jax.tree.map(np.testing.assert_array_equal, rest, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vit": {"heads": 4}}, "settings differ: heads 2 there, 4 here"),
        ({"vit": {"width": 64}}, "settings differ: width 128 there, 64 here"),
        ({"normalise": "imagenet"}, r"normalised as \['half'\], but .* is 'imagenet'"),
        ({"path": "none.safetensors"}, "needs both the file and its card"),
        ({"path": "none.pth"}, "named .safetensors"),
    ],
)
def test_what_does_not_fit_is_one_line(vit_file, changes, message):
    config = quality(changes.get("path", vit_file), **changes.get("vit", {}))
    guidance = config["model"]["branches"]["guidance"]
    guidance["normalise"] = changes.get("normalise", "half")
    with pytest.raises(ConfigError, match=f"config.pretrained.vit .*{message}") as caught:
        initialize.pretrained(config, shapes(config))
    assert "\n" not in str(caught.value)


def test_a_part_that_the_model_does_not_have_is_refused(vit_file):
    config = quality("")
    config["pretrained"]["resnet"] = vit_file
    with pytest.raises(ConfigError, match="'quality/difference/resnet': .* no such part"):
        initialize.pretrained(config, shapes(config))


def test_a_part_that_no_task_has_is_refused():
    config = quality("")
    config["pretrained"]["resnett"] = ""
    with pytest.raises(ConfigError, match="pretrained.resnett: no such key; .*'resnet'"):
        checks.check(config)


def test_a_run_of_no_steps_makes_a_run_of_weights_from_elsewhere(data, tmp_path):
    """Then another run starts from that one."""
    one, two = tmp_path / "one", tmp_path / "two"
    none = {"optim.steps": 0, "optim.warmup": 0, "seed": 5}
    results = runs.run(runs.stage1(data, **none), str(one))
    assert results["step"] == 0 and results["images"] == 16
    assert runs.run(runs.stage1(data, **none), str(one)) == results  # is complete
    again = {"optim.steps": 0, "optim.warmup": 0, "pretrained.restorer": str(one)}
    assert runs.run(runs.stage1(data, **again), str(two))["psnr_restored"] == pytest.approx(
        results["psnr_restored"], abs=1e-6
    )
    assert Checkpoints(str(two)).steps() == [0]


@pytest.fixture(scope="module")
def looked(data, tmp_path_factory):
    """A MANIQA run's folder."""
    folder = str(tmp_path_factory.mktemp("looked"))
    runs.run(runs.maniqa_run(data, **{"optim.steps": 0, "optim.warmup": 0}), folder)
    return folder


def test_a_backbone_is_taken_from_a_run_of_another_model(looked, data):
    """DiffV2IQA's ViT starts as MANIQA left it; the rest of that run is not asked for."""
    settings = {"model.branches.guidance.width": 4, "pretrained.vit": looked}
    config = runs.maniqa_run(data, **settings)
    placed = initialize.pretrained(config, shapes(config))["quality/guidance/vit"]
    theirs_all = saved.load(looked)[1].params["quality"]["guidance"]
    jax.tree.map(np.testing.assert_array_equal, placed.params, theirs_all["vit"])


def test_a_run_without_restorer_and_statistics_stops_goes_on_and_is_read(looked, data, tmp_path):
    """Weights of such a run have one part and no statistics, wherever they come from."""
    config = runs.maniqa_run(data, **{"optim.steps": 3, "pretrained.vit": looked})
    assert runs.run(config, str(tmp_path), stop_at=2) == {}
    assert runs.run(config, str(tmp_path))["step"] == 3
    weights = saved.load(str(tmp_path))[1]
    assert set(weights.params) == {"quality"} and not weights.stats


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.branches.guidance.normalise": "imagenet"}, r"as \['half'\], but .* 'imagenet'"),
        ({"model.branches.guidance.vit": tiny.vit(heads=4)}, "heads 2 there, 4 here"),
    ],
)
def test_a_backbone_of_a_run_must_be_the_same_net_with_the_same_input(
    looked, data, changes, message
):
    config = runs.maniqa_run(data, **{"pretrained.vit": looked, **changes})
    with pytest.raises(ConfigError, match=message):
        initialize.pretrained(config, shapes(config))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The folder of a run with both branches that looks at the image alone."""
    folder = str(tmp_path_factory.mktemp("alone"))
    difference = tiny.difference(compare=(), resnet=tiny.resnet(norm="frozen"))
    config = runs.maniqa_run(data, **{"optim.steps": 0, "optim.warmup": 0})
    config["model"]["branches"] = {"guidance": ALONE, "difference": difference}
    runs.run(config, folder)
    return folder


ALONE = tiny.guidance(select=((0,),), noise_width=0, tabs=0)


def four_views(folder: str, alone: str, **changes) -> dict:
    """A resolved configuration of all four views whose branches start from the run `alone`."""
    config = runs.maniqa_run(folder)
    guidance = tiny.guidance(**{"tabs": 0, **changes})
    difference = tiny.difference(resnet=tiny.resnet(norm="frozen"))
    config["model"] |= {"branches": {"guidance": guidance, "difference": difference}, "w2": 5.0}
    config["restorer"] = tiny.restorer(net={"multipliers": (1,)})
    config["pretrained"] |= {"guidance": alone, "difference": alone}
    return config


def test_branches_that_saw_the_image_alone_start_ones_that_see_more(alone, data):
    """At first the guidance branch scores half of what it did; other views enter by zeros."""
    config = four_views(data, alone)
    task = setup.make_task(config)
    weights = jax.jit(task.init)(jax.random.key(0), tiny.batch(count=1))
    for at, source in initialize.pretrained(config, shapes(config)).items():
        weights = files.place(weights, at, source)
    theirs_config, before, _ = saved.load(alone)
    batch = tiny.batch(views=3)
    out = jax.jit(task.predict)(weights, batch)
    want = jax.jit(setup.make_task(theirs_config).predict)(before, batch)
    np.testing.assert_allclose(out["score_guidance"], want["score_guidance"] / 2, rtol=1e-5)
    ours, old = (w.params["quality"]["difference"] for w in (weights, before))

    def score(params):
        return params["head"].pop("score_1")["kernel"]

    np.testing.assert_allclose(score(ours), score(old) / (2 * 5.0), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, {k: ours[k] for k in old}, old)
    assert set(ours) - set(old) == {"rtab"}


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("guidance", {"normalise": "imagenet"}, "normalise half there, imagenet here"),
        (
            "guidance",
            {"select": ((), (0,), (0,), (0,))},
            r"blocks of the image .*0.* there, \(\) here",
        ),
        ("difference", {}, "is a run without a difference branch"),
    ],
)
def test_branches_that_do_not_fit_are_one_line(looked, data, part, changes, message):
    config = four_views(data, "", **{"tabs": 1, **changes})
    config["pretrained"] |= {"guidance": "", "difference": "", part: looked}
    with pytest.raises(ConfigError, match=f"config.pretrained.{part} .*{message}") as caught:
        initialize.pretrained(config, shapes(config))
    assert "\n" not in str(caught.value)


def test_a_branch_alone_keeps_its_scores_and_one_without_a_say_is_refused(alone, data):
    """w2 weighs the difference branch beside another only."""
    config = four_views(data, alone)
    config["pretrained"]["guidance"] = ""
    del config["model"]["branches"]["guidance"]
    found = initialize.pretrained(config, shapes(config))["quality/difference/head"]
    before = saved.load(alone)[1].params["quality"]["difference"]["head"]
    jax.tree.map(np.testing.assert_array_equal, found.params, before)
    config = four_views(data, alone)
    config["model"]["w2"] = 0.0
    with pytest.raises(ConfigError, match="pretrained.difference .*w2 0.0: the branch has no say"):
        initialize.pretrained(config, shapes(config))


@pytest.mark.parametrize("part", ["guidance", "difference"])
def test_a_branch_comes_from_a_folder(vit_file, data, part):
    config = four_views(data, "")
    config["pretrained"] |= {"guidance": "", "difference": "", part: vit_file}
    with pytest.raises(ConfigError, match=f"config.pretrained.{part} .*a branch comes from a run"):
        initialize.pretrained(config, shapes(config))


def test_a_whole_model_must_have_seen_the_same_views(looked, data):
    """Blocks of the same width but another place would pass by their shapes alone."""
    config = runs.maniqa_run(data, **{"pretrained.model": looked})
    assert initialize.pretrained(config, shapes(config))
    guidance = config["model"]["branches"]["guidance"]
    guidance |= {"select": [[1]], "vit": {**guidance["vit"], "depth": 2}}
    with pytest.raises(ConfigError, match=r"settings differ: .*select .* there, .* here"):
        initialize.pretrained(config, shapes(config))


def test_a_branch_that_saw_other_views_starts_no_other(looked, data, monkeypatch):
    config = four_views(data, "")
    config["pretrained"] |= {"guidance": looked, "difference": ""}
    theirs_config, weights, step = saved.load(looked)
    theirs_config["model"]["branches"]["guidance"]["noise_width"] = 4
    monkeypatch.setattr(initialize.saved, "load", lambda path: (theirs_config, weights, step))
    with pytest.raises(ConfigError, match="looked at other views too; pretrained.model takes"):
        initialize.pretrained(config, shapes(config))
