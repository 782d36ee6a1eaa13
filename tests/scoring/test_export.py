"""An exported model scores elsewhere as here, and without the package."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax import export
from diffv2iqa_jax.scoring import predictor, program, scorer
from tests.pictures import picture


@pytest.fixture(scope="module")
def exported(packed, tmp_path_factory):
    dest = tmp_path_factory.mktemp("export") / "dest"
    with jax.default_prng_impl("rbg"):  # which must not be what the program draws by
        assert export.main([str(packed), str(dest)]) == 0
    return dest


def printed_alone(folder, path, apart) -> float:
    """What load.py prints in a process that cannot import the package."""
    blocked = "import sys, runpy; sys.modules['diffv2iqa_jax'] = None; sys.argv = sys.argv[1:]; "
    code = blocked + "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, folder / program.LOADER, path]
    done = subprocess.run(command, capture_output=True, text=True, env=apart, cwd=folder)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize("h, w, generator", [(24, 40, "rbg"), (5, 30, "threefry2x32")])
def test_the_loader_says_what_the_scorer_says(
    exported, loaded_by_crops, apart, tmp_path, h, w, generator
):
    apart = apart | {"JAX_DEFAULT_PRNG_IMPL": generator}
    Image.fromarray(picture(h, w)).save(tmp_path / "x.png")
    want = loaded_by_crops(picture(h, w)).score
    assert printed_alone(exported, tmp_path / "x.png", apart) == pytest.approx(want, abs=1e-4)


def test_the_loader_has_ten_lines_and_the_program_two_platforms(exported):
    text = (exported / program.LOADER).read_text()
    assert "diffv2iqa" not in text
    uncounted = ('"""', "import", "from")
    assert sum(bool(line) and not line.startswith(uncounted) for line in text.splitlines()) <= 10
    loaded = jax.export.deserialize(bytearray((exported / program.PROGRAM).read_bytes()))
    assert loaded.platforms == ("cpu", "cuda")
    card = json.loads((exported / program.CARD).read_text())
    assert card["protocol"]["pp"] == "grid(16)" and card["direction"] == "higher is better"


def test_whole_pictures_are_exported_by_crops_only_on_request(quality_run, tmp_path, capsys):
    assert export.main([str(quality_run), str(tmp_path / "x")]) == 5
    assert "--by_crops" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert export.main([str(quality_run), str(tmp_path / "x"), "--by_crops"]) == 0
    assert json.loads((tmp_path / "x" / program.CARD).read_text())["protocol"]["views"] == "crop"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("pp", ["resize(24)|grid(16)", "resize(20)|center(16)"])
def test_pictures_of_one_size_are_restored_as_the_evaluation_did(
    quality_run, by_crops, apart, tmp_path, whole, pp
):
    """Resized first, even whole pictures have one shape; the program then crops the views."""
    run = quality_run if whole else by_crops
    assert export.main([str(run), str(tmp_path / "dest"), "--pp", pp]) == 0
    card = json.loads((tmp_path / "dest" / program.CARD).read_text())
    assert card["protocol"] | {"pp": pp, "views": "whole" if whole else "crop"} == card["protocol"]
    Image.fromarray(picture(30, 40)).save(tmp_path / "x.png")
    want = scorer.load(run, pp=pp, jit_cache=None)(picture(30, 40)).score
    printed = printed_alone(tmp_path / "dest", tmp_path / "x.png", apart)
    assert printed == pytest.approx(want, abs=1e-4)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(packed, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for argv, code, message in (
        ([tmp_path / "none", tmp_path / "x"], 5, "no such file"),
        ([packed, tmp_path / "full"], 2, "not an empty folder"),
        ([packed, tmp_path / "x", "--pp", "resize(16)|flip(0.5)"], 5, "load.py knows"),
        ([packed, tmp_path / "x", "--pp", "flip(0.5)|grid(16)"], 5, "load.py knows"),
        ([packed, tmp_path / "x", "--pp", "resize(16)|grid(0)"], 5, "load.py knows"),
        ([packed, tmp_path / "x", "--card", tmp_path / "none"], 2, "No such file"),
    ):
        assert export.main([str(x) for x in argv]) == code
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_a_run_becomes_one_file_with_what_its_card_should_say(by_crops, tmp_path):
    (tmp_path / "facts.json").write_text('{"licence": "CC0", "data": "drawings"}')
    dest = tmp_path / "packed.safetensors"
    card = ["--card", str(tmp_path / "facts.json"), "--dtype", "float16"]
    assert export.main([str(by_crops), str(dest), *card]) == 0
    packed = predictor.load(str(dest))
    assert (packed.info.licence, packed.info.data) == ("CC0", "drawings")
    assert packed.card == predictor.load(str(by_crops)).card
    assert export.main([str(dest), str(tmp_path / "again.safetensors")]) == 0
    again = scorer.load(tmp_path / "again.safetensors", jit_cache=None)
    assert np.isfinite(again(picture()).score)
