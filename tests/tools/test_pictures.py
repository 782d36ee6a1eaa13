"""tools.pictures: the copies are those of monotone, the numbers beneath are the scorer's."""

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.distortions.names import LEVELS, TYPES
from diffv2iqa_jax.tools import monotone, pictures
from tests.pictures import picture

SIDE = 40


@pytest.fixture(autouse=True)
def quick_types(monkeypatch):
    """All 25 types compile for long; these two are noise of their own and a loss of contrast."""

    def noisy(key, x, level):
        return x + 0.04 * level * kadid.jax.random.normal(key, x.shape)

    def greyer(key, x, level):
        return x + (0.5 - x) * level / 6

    functions = dict.fromkeys(TYPES, greyer) | {"white_noise": noisy}
    monkeypatch.setattr(kadid, "FUNCTIONS", functions)
    monkeypatch.setattr(pictures, "SCENE", SIDE)


@pytest.fixture
def texts(monkeypatch):
    """What the figures hold as text, collected when they are saved."""
    seen = []
    save = matplotlib.figure.Figure.savefig

    def collect(figure, *args, **kwargs):
        found = figure.findobj(matplotlib.text.Text)
        seen.extend(text.get_text() for text in found if text.get_text())
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", collect)
    return seen


class Contrast:
    """Scores pictures by their contrast."""

    def __call__(self, images):
        return [float(x.std()) / 100 for x in images]


@pytest.mark.parametrize("name", ["white_noise", "jpeg"])
def test_copies_are_those_that_monotone_scores(name):
    image = picture(SIDE, SIDE)
    every = list(monotone.copies(image, seed=3))
    first = 1 + TYPES.index(name) * (len(LEVELS) - 1)
    here = pictures.copies(image, name, seed=3)
    for ours, theirs in zip(here, [image, *every[first : first + len(LEVELS) - 1]], strict=True):
        # Another program may round otherwise; other noise or another type differs by far more.
        np.testing.assert_allclose(ours.astype(int), theirs, atol=1)
    assert np.abs(here[1].astype(int) - here[2]).mean() > 4


def test_each_copy_stands_above_its_score(texts, tmp_path):
    image, path = picture(SIDE, SIDE), tmp_path / "levels.png"
    found = pictures.levels(image, ("jpeg", "white_noise"), Contrast(), str(path), part=16)
    assert found.shape == (2, len(LEVELS)) and np.all(np.diff(found[0]) < 0)
    for row, name in zip(found, ("jpeg", "white_noise"), strict=True):
        want = Contrast()(pictures.copies(image, name))
        np.testing.assert_allclose(row, want)
    assert {f"{value:.3f}" for value in found.flat} <= set(texts)
    assert {"jpeg", "white noise", "as it is", "level 5"} <= set(texts)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_strip_names_its_panels(texts, by_crops, tmp_path, capsys):
    path = tmp_path / "strip.webp"
    argv = ["strip", "scene:1", "-o", str(path), "--weights", str(by_crops)]
    assert pictures.main([*argv, "--distort", "jpeg:4", "--half"]) == 0
    assert {"photo", "restored, $y_0$", "quality"} <= set(texts)
    assert "noisy, $y_{t1}$" in texts and "noisy, $y_{t2}$" in texts  # this run keeps two states
    assert path.read_bytes()[8:12] == b"WEBP"
    assert f"{path}: written, score " in capsys.readouterr().out


def test_half_leaves_the_left_half_as_it_is():
    image = picture(SIDE, SIDE)
    whole = pictures.copies(image, "jpeg")[4]
    half = pictures._distorted(image, "jpeg:4", 0, half=True)
    np.testing.assert_array_equal(half[:, : SIDE // 2], image[:, : SIDE // 2])
    np.testing.assert_array_equal(half[:, SIDE // 2 :], whole[:, SIDE // 2 :])
    assert np.any(whole[:, : SIDE // 2] != image[:, : SIDE // 2])


def test_the_flow_shows_the_states_of_three_steps(texts, by_crops, tmp_path, monkeypatch):
    drawn, states = [], pictures._states
    monkeypatch.setattr(pictures, "THUMBNAIL", 16)
    monkeypatch.setattr(pictures, "_states", lambda *args: drawn.extend(states(*args)) or drawn)
    argv = ["flow", "scene:1", "-o", str(tmp_path / "flow.png"), "--weights", str(by_crops)]
    assert pictures.main(argv) == 0
    assert {"$y_0$, restored", "$y_{t1}$, still noisy", "$y_{t2}$, noisier", "$S_1$"} <= set(texts)
    np.testing.assert_array_equal(drawn[0], pictures._thumbnail(pictures.read("scene:1")))
    assert len(drawn) == 4 and len({state.tobytes() for state in drawn}) == 4


def test_a_photo_is_a_file_or_a_scene(tmp_path):
    Image.fromarray(picture(20, 30)).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(pictures.read(str(tmp_path / "photo.png")), picture(20, 30))
    np.testing.assert_array_equal(pictures.read("scene:3"), scenes.scene(3, SIDE))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["levels", "none.png", "-o", "a.png"], "none.png"),
        (["levels", "scene:x", "-o", "a.png"], "a number"),
        (["levels", "scene:1", "-o", "a.png", "--types", "jpg"], "known are"),
        (["levels", "scene:1", "-o", "a.png", "--part", "0"], "at least 1"),
        (["strip", "scene:1", "-o", "a.png", "--distort", "jpeg:9"], "TYPE:LEVEL"),
        (
            ["flow", "scene:1", "-o", "a.gif"],
            ".gif is not written; name a file that ends in .png, .svg",
        ),
        (["strip", "scene:1", "-o", "a.png", "--weights", "none"], "none"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(argv, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, "THUMBNAIL", 16)
    assert pictures.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())
