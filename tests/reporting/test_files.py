"""Pages and figures are what their names say, complete or not there, readable as the umask says."""

import os

import pytest
from PIL import Image

from diffv2iqa_jax import bench, convert, errors, export, report, score
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.reporting import charts
from diffv2iqa_jax.tools import bench_score, gmad, monotone, pictures
from tests import disk
from tests.pictures import smooth
from tests.reporting.test_benchmark import write_run
from tests.reporting.test_report import make_quality

STARTS = {
    ".png": b"\x89PNG",
    ".jpg": b"\xff\xd8\xff",
    ".jpeg": b"\xff\xd8\xff",
    ".webp": b"RIFF",
    ".pdf": b"%PDF-",
    ".svg": b"<?xml",
}


@pytest.fixture(scope="module")
def quality(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "quality"
    make_quality(folder)
    return folder


@pytest.mark.parametrize("ending", charts.FIGURES)
def test_a_figure_is_what_its_name_says_and_the_same_each_time(quality, tmp_path, ending):
    path, again = tmp_path / f"x{ending.upper()}", tmp_path / f"again{ending}"
    for out in (path, again):
        assert report.main([str(quality), "--figure", str(out)]) == 0
    data = path.read_bytes()
    assert data.startswith(STARTS[ending]) and data == again.read_bytes()
    if ending == ".webp":
        assert data[8:12] == b"WEBP"
    if ending == ".svg":
        assert b"<svg" in data and b"<text" not in data  # shapes: no font has to be there
    assert {p.name for p in tmp_path.iterdir()} == {path.name, again.name}


COMMANDS = [
    (report.main, ["RUN", "--figure"], "x.gif x.tiff x x.pdf.gz none/x.png"),
    (report.main, ["RUN", "-o"], "x.pdf x.md x none/x.html"),
    (report.main, ["RUN", "--tables", "-o"], "x.csv x.xlsx"),
    (pictures.main, ["flow", "scene:1", "--weights", "none", "-o"], "x.gif x none/x.png"),
    (kadid.main, ["PHOTO", "--sheet"], "x.jpg x none/x.png"),
    (gmad.main, ["RUN", "RUN", "--on", "pool/none", "-o"], "x.html x.json"),
    (bench.main, ["vit", "--json"], "x.csv x none/x.json"),
    (bench_score.main, ["none", "first", "--json"], "x.csv none/x.json"),
    (monotone.main, ["RUN", "--weights", "none", "--json"], "x.csv none/x.json"),
    (convert.main, ["vit_timm", "none.npz"], "x.npz x none/x.safetensors"),
    (export.main, ["none"], "x.onnx x.zip none/x.safetensors"),
    (score.main, ["PHOTO", "--weights", "none", "-o"], "x.pdf none/x.csv"),
    (score.main, ["PHOTO", "--weights", "none", "--maps"], "x.png"),
]


@pytest.mark.parametrize(
    "main, argv, name",
    [(main, argv, name) for main, argv, names in COMMANDS for name in names.split()],
    ids=lambda x: x if isinstance(x, str) else getattr(x, "__module__", None),
)
def test_every_command_refuses_what_it_does_not_write_before_any_work(
    main, argv, name, quality, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(smooth(64, 64)).save("photo.png")
    names = {"RUN": str(quality), "PHOTO": "photo.png"}
    assert main([*(names.get(word, word) for word in argv), name]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and name in err, err
    assert os.listdir() == ["photo.png"]


@pytest.mark.parametrize(
    "main, argv",
    [
        (report.main, ["RUN", "-o", "~/x.html"]),
        (report.main, ["RUN", "--figure", "~/x.png"]),
        (report.main, ["RUN", "--tables", "-o", "~/x"]),
        (export.main, ["starter", "~/x"]),
        (export.main, ["starter", "~/x.safetensors"]),
        (score.main, ["none.png", "--maps", "~/x"]),
        (score.main, ["none.png", "-o", "~/x.csv"]),
    ],
)
def test_no_folder_is_called_as_the_shell_calls_the_home_folder(
    main, argv, quality, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([str(quality) if word == "RUN" else word for word in argv]) == 2
    assert "is not replaced here; write $HOME or a whole path" in capsys.readouterr().err
    assert os.listdir() == []


@pytest.mark.parametrize("argv", [["-o", "x.html"], ["--figure", "x.pdf"], ["--figure", "x.png"]])
def test_a_full_disk_is_one_line_and_leaves_the_older_file(
    quality, tmp_path, monkeypatch, capsys, argv
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / argv[1]).write_text("older")
    with disk.full(5000):
        assert report.main([str(quality), *argv]) == 2
    assert capsys.readouterr().err == f"report: {argv[1]}: File too large; {errors.ROOM}\n"
    assert os.listdir() == [argv[1]] and (tmp_path / argv[1]).read_text() == "older"


def test_what_is_written_can_be_read_by_whom_the_umask_lets(quality, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = os.umask(0o027)
    try:
        write_run(tmp_path / "method")
        assert report.main([str(quality), "-o", "x.html"]) == 0
        assert report.main([str(quality), "--figure", "x.svg"]) == 0
        assert report.main(["method", "--tables", "-o", "tables"]) == 0
    finally:
        os.umask(old)
    found = {p: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert {"x.html", "x.svg", "tables.csv"} <= {p.name for p in found}
    assert {p for p, mode in found.items() if mode != (0o750 if p.is_dir() else 0o640)} == set()


def test_a_run_leaves_no_private_file(quality_run, by_crops, packed):
    """Checkpoints, views, logs, results, pages: of every writer that a run has."""
    mask = os.umask(0)
    os.umask(mask)
    for root in (quality_run, by_crops, packed.parent):
        modes = {p: p.stat().st_mode & 0o777 for p in root.rglob("*")}
        want = {True: 0o777 & ~mask, False: 0o666 & ~mask}
        assert {p for p, mode in modes.items() if mode != want[p.is_dir()]} == set()
