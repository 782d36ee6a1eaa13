"""The command: which pictures, which rows, which exit code; runs killed and resumed."""

import csv
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax import errors, score
from diffv2iqa_jax.pp import decode
from diffv2iqa_jax.scoring import formats, inputs, maps, output
from tests.pictures import FORMATS, encoded, picture

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Six pictures, a file that only has a picture's name, and one that has not even that."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "b").mkdir()
    names = ["a.png", "b/c.png", "b/d.bmp", "e.png", "f.png", "g.png"]
    for seed, name in enumerate(names):
        Image.fromarray(picture(20, 20 + seed, seed=seed)).save(folder / name)
    (folder / "b" / "broken.jpg").write_text("<html>")
    (folder / "notes.txt").write_text("no picture")
    return folder


ORDER = ["a.png", "b/broken.jpg", "b/c.png", "b/d.bmp", "e.png", "f.png", "g.png"]


@pytest.fixture
def run(loaded_by_crops, monkeypatch, capfd):
    """Runs the command with weights loaded before: returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(score, "load", lambda o: loaded_by_crops)

    def command(*argv):
        code = score.main([str(x) for x in argv])
        return code, *capfd.readouterr()

    return command


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def files(folder) -> dict:
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def test_a_folder_gets_a_row_for_each_picture_in_order(run, photos, loaded_by_crops):
    code, out, err = run(photos)
    rows = rows_of(out)
    assert code == score.SOME_FAILED
    assert [os.path.relpath(row["path"], photos) for row in rows] == ORDER
    assert [row["error"] for row in rows] == ["", "E_DECODE", "", "", "", "", ""]
    assert list(rows[0]) == output.COLUMNS
    good = rows[0]
    want = loaded_by_crops(picture(20, 20, seed=0))
    assert float(good["score"]) == pytest.approx(want.score, abs=1e-6)
    parts = float(good["score_guidance"]) + float(good["score_difference"])
    assert float(good["score"]) == pytest.approx(parts, abs=2e-6)
    assert (good["width"], good["height"], good["n_crops"], good["status"]) == (
        "20",
        "20",
        "4",
        "ok",
    )
    assert good["weights"] == loaded_by_crops.info.sha256[:16]
    assert json.loads(good["protocol"])["pp"] == "grid(16)"
    assert rows[1]["status"] == "failed" and rows[1]["score"] == ""
    assert "6 ok, 1 failed (1 E_DECODE)" in err and "images/s" in err
    assert err.endswith("score: passed over: 1 .txt\n")


def test_jsonl_holds_the_same(run, photos, tmp_path):
    code, out, _ = run(photos, "--format", "jsonl", "--no_progress")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["score"] == pytest.approx(float(rows_of(run(photos)[1])[0]["score"]))
    assert rows[1]["score"] is None and rows[1]["error"] == "E_DECODE" and rows[0]["error"] is None
    run(photos, "-o", tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_text() == out


def test_every_way_to_name_pictures(run, photos, tmp_path, monkeypatch):
    def names(out):
        return [os.path.relpath(row["path"], photos) for row in rows_of(out)]

    assert names(run(photos / "*.png")[1]) == ["a.png", "e.png", "f.png", "g.png"]
    assert names(run(photos / "**" / "*.png")[1]) == ["a.png", "b/c.png", "e.png", "f.png", "g.png"]
    assert names(run(photos / "e.png", photos / "b")[1]) == ["e.png", *ORDER[1:4]]
    (photos / "table.csv").write_text("﻿mos,file\n1,a.png\n2,b/c.png\n", encoding="utf-8")
    assert names(run("--column", "file", photos / "table.csv")[1]) == ["a.png", "b/c.png"]
    (photos / "table.csv").unlink()
    for null, end in (((), "\n"), (("-0",), "\0")):
        listed = "".join(f"{photos / name}{end}" for name in ("g.png", "a.png"))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
        assert names(run("-", *null)[1]) == ["g.png", "a.png"]
    code, out, _ = run(photos / "none" / "*.png", photos / "a.png")
    assert code == score.SOME_FAILED and [r["error"] for r in rows_of(out)] == ["E_NOT_FOUND", ""]
    assert run(photos / "a.png")[0] == score.OK


def test_shards_share_the_pictures_out(run, photos):
    shards = [rows_of(run(photos, "--shard", f"{i}/3")[1]) for i in (1, 2, 3)]
    assert [len(rows) for rows in shards] == [3, 2, 2]
    whole = rows_of(run(photos)[1])
    for place, row in enumerate(whole):
        other = shards[place % 3][place // 3]
        assert other["path"] == row["path"]
        if row["score"]:
            assert float(other["score"]) == pytest.approx(float(row["score"]), abs=1e-5)
    assert len(rows_of(run(photos, "--limit", "1", "--shard", "2/3")[1])) == 1


def test_a_killed_run_resumed_leaves_the_undisturbed_file(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "CHUNK", 2)
    for name in ("whole.csv", "whole.jsonl"):
        run(photos, "-o", tmp_path / name)
        want = (tmp_path / name).read_bytes()
        for killed in range(len(want) // 200):
            path = tmp_path / name.replace("whole", "broken")
            # What a kill may leave: the file up to any byte.
            (tmp_path / f"{path.name}.part").write_bytes(want[: killed * 200])
            code, _, err = run(photos, "-o", path, "--resume")
            assert path.read_bytes() == want and code == score.SOME_FAILED
            assert "6 ok, 1 failed" in err
            path.unlink()
    assert set(files(tmp_path)) == {"whole.csv", "whole.jsonl"}


def test_a_real_kill_is_resumed(packed, apart, tmp_path):
    """SIGKILL between two rows, in a process of its own; names with newlines and quotes."""
    names = ['q"uote.png', "new\nline.png", *(f"{i:02}.png" for i in range(8))]
    for seed, name in enumerate(names):
        Image.fromarray(picture(40, 40, seed=seed)).save(tmp_path / name)
    slow = (
        "import sys, time\n"
        "from diffv2iqa_jax import score\n"
        "from diffv2iqa_jax.scoring import output\n"
        "output.CHUNK, add = 2, output.Table.add\n"
        "output.Table.add = lambda self, row: (add(self, row), time.sleep(0.2))\n"
        "sys.exit(score.main(sys.argv[1:]))"
    )
    out, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    command = [sys.executable, "-c", slow, tmp_path, "--weights", packed, "-o", out]
    settings = {"cwd": ROOT, "env": apart}
    killed = subprocess.Popen(command, **settings, stderr=subprocess.DEVNULL)
    while not (part.exists() and part.read_bytes().count(b"ok") >= 5):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not out.exists()
    again = subprocess.run([*command, "--resume"], **settings, capture_output=True, text=True)
    assert again.returncode == score.OK, again.stderr
    resumed = out.read_bytes()
    subprocess.run([*command, "--overwrite"], **settings, check=True, stderr=subprocess.DEVNULL)
    assert out.read_bytes() == resumed and not part.exists()
    with open(out, newline="") as file:
        scored = [os.path.basename(row["path"]) for row in csv.DictReader(file)]
    assert scored == sorted(names)


def test_what_is_there_is_not_overwritten_unasked(run, photos, tmp_path):
    path = tmp_path / "x.csv"
    run(photos, "-o", path)
    before = files(tmp_path)
    code, _, err = run(photos, "-o", path)
    assert code == score.USAGE and "--resume" in err
    code, _, err = run(photos, "-o", path, "--resume")
    assert code == score.SOME_FAILED and "nothing left to do" in err
    assert files(tmp_path) == before
    run(photos / "a.png", "-o", path, "--overwrite")
    assert len(rows_of(path.read_text())) == 1


def test_resuming_a_file_that_holds_more_pictures_is_refused(run, photos, tmp_path):
    path = tmp_path / "x.csv"
    run(photos / "a.png", photos / "e.png", "-o", path)
    before = path.read_bytes()
    code, _, err = run(photos / "a.png", "-o", path, "--resume")
    assert code == score.USAGE and "has a row of" in err and "e.png" in err
    assert path.read_bytes() == before


def test_rows_of_other_inputs_weights_or_protocol_are_not_gone_on_with(
    run, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(output, "CHUNK", 1)
    path, part = tmp_path / "x.csv", tmp_path / "x.csv.part"
    run(photos, "-o", path)
    path.rename(part)
    before = part.read_bytes()
    for argv, message in (
        ((photos / "b",), "has a row of"),
        ((photos, "--seeds", "2"), "row 1 has protocol"),
    ):
        code, _, err = run(*argv, "-o", path, "--resume")
        assert code == score.USAGE and message in err and part.read_bytes() == before
    holder = output.Table(str(path), format="csv", resume=True, overwrite=False, safe=False)
    code, _, err = run(photos, "-o", path, "--resume")
    holder.leave()
    assert code == score.USAGE and "another process" in err


def test_formulas_can_be_kept_from_spreadsheets(run, tmp_path, monkeypatch):
    cell = "=cmd('x')\n.png"
    Image.fromarray(picture()).save(tmp_path / cell)
    monkeypatch.chdir(tmp_path)
    assert rows_of(run(cell)[1])[0]["path"] == cell
    code, out, _ = run(cell, "--csv_safe", "-o", "x.csv")
    (row,) = rows_of((tmp_path / "x.csv").read_text())
    assert row["path"] == f"'{cell}" and float(row["score"]) and code == score.OK
    assert not row["score"].startswith("'")


def test_names_of_any_bytes_come_back(run, tmp_path):
    names = [
        b"\xff\xfe.png",
        "照片 🌄.png".encode(),
        b"new\nline.png",
        b"'\".png",
        b"x" * 250 + b".png",
    ]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(encoded(picture()))
    for format in formats.APPENDED:
        out = tmp_path / f"rows.{format}"
        assert run(tmp_path, "-o", out, "--format", format)[0] == score.OK
        with open(out, **output.TEXT) as file:
            scored = [os.fsencode(os.path.basename(r["path"])) for r in output.read(file, format)]
        assert sorted(scored) == sorted(names)
        out.unlink()


def test_odd_things_in_a_folder_get_a_row_and_never_block(run, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "fifo.jpg")
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    os.symlink(tmp_path, tmp_path / "self")
    (tmp_path / "folder.jpg").mkdir()
    os.link(tmp_path / "a.png", tmp_path / "folder.jpg" / "same.png")
    (tmp_path / "new.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        code, out, _ = run(tmp_path)
    rows = {os.path.relpath(row["path"], tmp_path): row for row in rows_of(out)}
    assert code == score.SOME_FAILED
    assert {name: row["error"] for name, row in rows.items()} == {
        "a.png": "",
        "fifo.jpg": "E_NOT_A_FILE",
        "folder.jpg/same.png": "",
        "loop.jpg": "E_UNREADABLE",
        "new.heic": "E_UNSUPPORTED",
        "s.png": "E_NOT_A_FILE",
    }
    assert rows["a.png"]["score"] == rows["folder.jpg/same.png"]["score"]
    assert "diffv2iqa_jax[formats]" in rows["new.heic"]["reason"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_of_damaged_files_is_scored_through(
    run, format, loaded_by_crops, tmp_path, monkeypatch
):
    # A flipped bit may announce 60,000 columns, which are scored too, in their time.
    monkeypatch.setattr(loaded_by_crops, "_reading", decode.Reading(max_pixels=10_000))
    g = np.random.default_rng(0)
    for number in range(30):
        data = bytearray(encoded(picture(seed=number), format))
        for place in g.integers(0, len(data), 4):
            data[place] = g.integers(256)
        (tmp_path / f"{number:02}.png").write_bytes(data)
    code, out, _ = run(tmp_path, "--no_progress")
    assert code in (score.OK, score.SOME_FAILED) and len(rows_of(out)) == 30
    assert {row["status"] for row in rows_of(out)} <= {"ok", "failed"}


@pytest.mark.parametrize("h, w", [(1, 1), (1, 500), (15, 15), (16, 16)])
def test_tiny_and_thin_pictures_have_scores(run, h, w, tmp_path):
    Image.fromarray(picture(h, w)).save(tmp_path / "x.png")
    (row,) = rows_of(run(tmp_path)[1])
    assert np.isfinite(float(row["score"])) and ("small" in row["flags"]) == (min(h, w) < 16)


def test_flat_noisy_and_checkered_pictures_have_scores(run, tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    pictures = [np.full((64, 64, 3), 128), picture(64, 64), np.stack([board] * 3, -1)]
    for number, x in enumerate(pictures):
        Image.fromarray(x.astype(np.uint8)).save(tmp_path / f"{number}.png")
    code, out, _ = run(tmp_path)
    assert code == score.OK and np.isfinite([float(row["score"]) for row in rows_of(out)]).all()


def test_maps_show_views_and_quality(run, photos, tmp_path, loaded_by_crops):
    assert run(photos, "--maps", tmp_path / "maps", "--shard", "1/2")[0] == score.OK
    names = sorted(os.listdir(tmp_path / "maps"))
    assert names == ["0000000_a.png", "0000002_c.png", "0000004_e.png", "0000006_g.png"]
    strip = np.asarray(Image.open(tmp_path / "maps" / "0000000_a.png"))
    assert strip.shape == (20, 5 * 20 + 4 * maps.GAP, 3)
    np.testing.assert_array_equal(strip[:, :20], picture(20, 20, seed=0))
    detailed = loaded_by_crops(picture(20, 20, seed=0), details=True)
    np.testing.assert_array_equal(strip, maps.strip(detailed))
    with pytest.raises(AttributeError):
        maps.strip(loaded_by_crops(picture()))


def test_one_picture_can_be_one_number(run, photos):
    code, out, err = run("-q", photos / "a.png")
    assert code == score.OK and err == ""
    assert float(out) == pytest.approx(float(rows_of(run(photos / "a.png")[1])[0]["score"]))
    code, out, err = run("-q", photos / "b" / "broken.jpg")
    assert (code, out) == (score.SOME_FAILED, "") and err.startswith("score: [E_DECODE]")


def test_nothing_to_score_is_said(run, tmp_path):
    code, out, err = run(tmp_path)
    assert (code, out) == (score.NOTHING, "") and f"nothing to score in {tmp_path}" in err
    assert run()[0] == score.NOTHING
    assert run(tmp_path, "--dry_run")[0] == score.NOTHING


def test_info_and_dry_run_score_nothing(run, photos):
    code, out, _ = run("--info")
    assert code == score.OK and json.loads(out)["direction"] == "higher is better"
    assert run(photos, "--dry_run")[1:] == ("7 pictures\n", "score: passed over: 1 .txt\n")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--resum"], "--resum: no such option; did you mean '--resume'"),
        (["--shard", "3/2"], "must be I/N"),
        (["--shard", "x"], "must be I/N"),
        (["--shard", "²/³"], "must be I/N"),
        (["-o", ""], "names no file"),
        (
            ["--maps", "/proc/none"],
            "/proc/none: No such file or directory; make room or give rights",
        ),
        (["--crops", "0"], "must be at least 1"),
        (["--resume"], "need -o"),
        (["-o", "/"], "is a folder"),
        (["-o", "/none/x.csv"], "is no folder; make it first"),
        (["-o", "s3://bucket/x.csv"], "s3:// cannot be used; name a local path or gs://"),
        (["gs://bucket/x.png"], "gs://bucket/x.png: pictures are read and drawn in local folders"),
        (["--maps", "gs://bucket/x"], "gs://bucket/x: pictures are read and drawn in local"),
        (["--resume", "--overwrite", "-o", "x"], "only one"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(run, photos, argv, message):
    code, out, err = run(photos, *argv, "--no_progress")
    assert code == score.USAGE and message in err and err.count("\n") == 1 and not rows_of(out)


def test_rows_that_do_not_fit_on_stdout_are_one_line(photos):
    code = "import sys; from diffv2iqa_jax import score; sys.exit(score.main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, str(photos / "b" / "broken.jpg")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == score.USAGE and done.stderr.count("\n") == 1
    assert "standard output: No space left on device; make room" in done.stderr


def test_tables_without_the_column_are_refused(run, tmp_path):
    (tmp_path / "x.csv").write_text("image,mos\n")
    code, _, err = run("--column", "imag", tmp_path / "x.csv")
    assert code == score.USAGE and "did you mean 'image'" in err
    with pytest.raises(errors.UsageError, match="cannot be read"):
        list(inputs.expand([str(tmp_path / "none.csv")], column="x"))


def test_weights_that_are_not_there_have_their_own_code(photos, capsys, tmp_path):
    assert score.main([str(photos), "--weights", str(tmp_path / "none")]) == score.NO_WEIGHTS
    assert "no such file or folder" in capsys.readouterr().err
    assert score.main([str(photos), "--weights", "x", "--max_pixels", str(10**12)]) == score.USAGE


def test_an_error_of_ours_and_an_interruption_have_theirs(run, photos, monkeypatch, tmp_path):
    for error, code, message in (
        (RuntimeError("broken\nin two"), score.INTERNAL, "broken in two (--debug shows where)"),
        (KeyboardInterrupt(), score.INTERRUPTED, "--resume goes on"),
    ):

        def fails(self, row, error=error):
            raise error

        monkeypatch.setattr(output.Table, "add", fails)
        got, _, err = run(photos, "-o", tmp_path / "x.csv", "--overwrite")
        assert got == code and message in err and not (tmp_path / "x.csv").exists()
    monkeypatch.setattr(output.Table, "add", lambda self, row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(photos, "-o", tmp_path / "x.csv", "--overwrite", "--debug")
