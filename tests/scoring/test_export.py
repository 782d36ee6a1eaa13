"""An exported model scores elsewhere as here, and without the package."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import jax
import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax import errors, export
from diffv2iqa_jax.scoring import predictor, program, scorer
from tests import disk
from tests.pictures import display_p3, encoded, picture, smooth, turned

TOLERANCE = 1e-5  # of a score; README.md names it


@pytest.fixture(scope="module")
def exported(packed, tmp_path_factory):
    dest = tmp_path_factory.mktemp("export") / "dest"
    with jax.default_prng_impl("rbg"):  # which must not be what the program draws by
        assert export.main([str(packed), str(dest)]) == 0
    return dest


def run_alone(folder, apart, *paths) -> subprocess.CompletedProcess:
    """load.py in a process that cannot import the package."""
    blocked = "import sys, runpy; sys.modules['diffv2iqa_jax'] = None; sys.argv = sys.argv[1:]; "
    code = blocked + "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, folder / program.LOADER, *paths]
    return subprocess.run(command, capture_output=True, text=True, env=apart, cwd=folder)


def printed_alone(folder, apart, *paths) -> list[float]:
    """What it prints."""
    done = run_alone(folder, apart, *paths)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every kind that is not the plain bytes of its pixels."""
    folder, alpha = tmp_path_factory.mktemp("kinds"), picture(24, 40, channels=4)
    wide = picture(24, 40, channels=1, dtype=np.uint16)[..., 0]
    kinds = {
        "plain.png": encoded(picture(24, 40)),
        "small.png": encoded(picture(5, 30)),
        "photo.jpg": encoded(smooth(), "JPEG"),
        **{f"turned{n}.jpg": encoded(smooth(), "JPEG", exif=turned(n)) for n in (3, 6, 7)},
        "turned.tiff": encoded(smooth(), "TIFF", exif=turned(8)),
        "p3.png": encoded(smooth(), icc_profile=display_p3()),
        "alpha.png": encoded(alpha),
        "alpha.webp": encoded(alpha, "WEBP", lossless=True),
        "grey.png": encoded(smooth()[..., 0]),
        "grey_alpha.png": encoded(Image.fromarray(alpha).convert("LA")),
        "grey16.png": encoded(wide),
        "grey16.tiff": encoded(wide, "TIFF"),
        "one_bit.png": encoded(Image.fromarray(smooth()).convert("1")),
        "palette.gif": encoded(smooth(), "GIF"),
        "cmyk.jpg": encoded(Image.fromarray(smooth()).convert("CMYK"), "JPEG"),
    }
    for name, data in kinds.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in kinds]


def test_the_loader_says_of_every_file_what_the_scorer_says(
    exported, loaded_by_crops, apart, files
):
    want = [score.score for score in loaded_by_crops(files)]
    assert len(set(want)) > len(want) // 2  # a score that never changes would prove nothing
    apart = apart | {"JAX_DEFAULT_PRNG_IMPL": "rbg"}  # a user's choice, which changes no score
    assert printed_alone(exported, apart, *files) == pytest.approx(want, abs=TOLERANCE)


def test_a_program_of_so_many_crops_says_the_same_and_needs_no_newer_jax(
    packed, loaded_by_crops, apart, files, tmp_path
):
    assert export.main([str(packed), str(tmp_path / "dest"), "--batch", "4"]) == 0
    want = [score.score for score in loaded_by_crops(files[:3])]  # of 6, 2 and 6 crops
    assert printed_alone(tmp_path / "dest", apart, *files[:3]) == pytest.approx(want, abs=TOLERANCE)
    card = json.loads((tmp_path / "dest" / program.CARD).read_text())["program"]
    assert card["batch"] == 4 and card["exported_by"] == f"jax {jax.__version__}"
    assert f"jax>={program.OLDEST_JAX}" in (tmp_path / "dest/requirements.txt").read_text()


def test_what_the_loader_cannot_do_is_one_line(exported, apart, files, tmp_path):
    (tmp_path / "x.jpg").write_text("no picture")
    done = run_alone(exported, apart, tmp_path / "x.jpg", files[0])
    assert (done.returncode, done.stderr.count("\n")) == (3, 1) and "[E_DECODE]" in done.stderr
    assert float(done.stdout)  # the others have their scores
    assert run_alone(exported, apart).returncode == 2
    copy = shutil.copytree(exported, tmp_path / "copy")
    for need, message in (("jax>=99.1", "needs jax 99.1 or newer, "), ("nobody>=1", "not there")):
        (copy / program.REQUIREMENTS).write_text(need + "\n")
        done = run_alone(copy, apart, files[0])
        assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
        assert message in done.stderr and "pip install -r" in done.stderr
    (copy / program.REQUIREMENTS).write_text("")
    (copy / program.PROGRAM).write_bytes((copy / program.PROGRAM).read_bytes()[:1000])
    done = run_alone(copy, apart, files[0])
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr


def test_a_program_names_two_platforms_and_what_it_needs(exported):
    assert "diffv2iqa" not in (exported / program.LOADER).read_text()
    loaded = jax.export.deserialize(bytearray((exported / program.PROGRAM).read_bytes()))
    assert loaded.platforms == ("cpu", "cuda")
    card = json.loads((exported / program.CARD).read_text())
    assert card["protocol"]["pp"] == "grid(16)" and card["direction"] == "higher is better"
    lines = (exported / program.REQUIREMENTS).read_text().splitlines()[1:]
    assert lines == card["program"]["needs"]
    assert lines[0] == f"jax>={'.'.join(jax.__version__.split('.')[:3])}"


def test_the_least_versions_are_those_of_the_package(request):
    project = tomllib.loads((request.config.rootpath / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={program.PYTHON}"
    ours = dict(re.match(r"([\w-]+)>=([\d.]+)", x).groups() for x in project["dependencies"]
                if ">=" in x)  # fmt: skip
    needs = {"jax": program.OLDEST_JAX, **program.NEEDS}
    assert ours | {"flatbuffers": needs["flatbuffers"]} == ours | needs


def test_what_is_scored_is_scaled_by_one_code(request):
    """Pillow scales what is looked at, what is damage, and what a set is made of."""
    package = request.config.rootpath / "diffv2iqa_jax"
    calls = re.compile(r"\.thumbnail\(|Resampling\.|jax\.image\.resize\(|tf\.image\.resize\(")
    found = {
        str(path.relative_to(package).with_suffix(""))
        for path in package.rglob("*.py")
        if calls.search(path.read_text(encoding="utf-8"))
    }
    looked_at = {"scoring/maps", "tools/pictures", "tools/gmad", "tools/bench_score"}
    damaged = {"distortions/degrade", "distortions/host_reference", "distortions/kadid"}
    made = {"data/sets/store", "data/sets/scenes"}
    # `shrink`, of training alone; `resize` in TensorFlow, which gives the pixels of the one
    # in NumPy; and the loss, which must be differentiable, so does not round.
    scored = {"pp/ops_numpy", "pp/ops_tf", "scoring/differentiable"}
    assert found - looked_at - damaged - made - {"weights/resize"} == scored


def test_everyone_may_read_what_the_umask_lets_them(packed, tmp_path):
    old = os.umask(0o027)
    try:
        assert export.main([str(packed), str(tmp_path / "dest")]) == 0
        assert export.main([str(packed), str(tmp_path / "again.safetensors")]) == 0
    finally:
        os.umask(old)
    modes = {p: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert len(modes) > 12
    assert {p for p, mode in modes.items() if mode != (0o750 if p.is_dir() else 0o640)} == set()


@pytest.mark.parametrize("dest", ["dest", "dest.safetensors"])
def test_a_full_disk_is_one_line_and_leaves_nothing(packed, tmp_path, capsys, dest):
    with disk.full():
        assert export.main([str(packed), str(tmp_path / dest)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f": File too large; {errors.ROOM}" in err and "[" not in err
    assert list(tmp_path.iterdir()) == []


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
    printed = printed_alone(tmp_path / "dest", apart, tmp_path / "x.png")
    assert printed == pytest.approx([want], abs=TOLERANCE)


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
        ([packed, tmp_path / "x", "--batch", "0"], 2, "at least 1"),
        ([packed, tmp_path / "x.safetensors", "--batch", "2"], 2, "for a folder"),
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
