"""A file of scores that is gone on with: new pictures, pictures that are gone, kills, shards."""

import csv
import io
import os

import pytest
from PIL import Image

from diffv2iqa_jax import score
from diffv2iqa_jax.scoring import formats, output
from tests.pictures import picture

NAMES = ("b.png", "d.png", "f.png")


@pytest.fixture
def run(loaded_by_crops, monkeypatch, capfd):
    """Runs the command with weights loaded before: returns (exit code, stderr)."""
    monkeypatch.setattr(score, "load", lambda o: loaded_by_crops)

    def command(*argv):
        code = score.main([str(x) for x in argv])
        return code, capfd.readouterr().err

    return command


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        add(tmp_path / "photos", name)
    return tmp_path / "photos"


def add(folder, name):
    Image.fromarray(picture(20, 20, seed=ord(name[0]))).save(folder / name)


def rows(path) -> dict[str, str]:
    """Row by name, in the order of the file."""
    with open(path, newline="") as file:
        return {os.path.basename(row["path"]): row["score"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("format", formats.APPENDED)
def test_pictures_that_came_since_get_rows_at_the_end(run, folder, tmp_path, format):
    path = tmp_path / f"x.{format}"
    run(folder, "-o", path)
    before = path.read_bytes()
    for name in ("a.png", "e.png"):
        add(folder, name)
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.OK and "5 ok, 0 failed, 2 new" in err
    after = path.read_bytes()
    assert after.startswith(before) and not os.path.exists(f"{path}.part")
    with io.StringIO(after[len(before) :].decode()) as text:
        assert [line.count(name) for line, name in zip(text, ("a.png", "e.png"), strict=True)]
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.OK and "5 ok, 0 failed, nothing left to do" in err
    assert path.read_bytes() == after


def test_a_picture_that_is_gone_keeps_its_row(run, folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, "-o", path)
    before = rows(path)
    (folder / "b.png").unlink()
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.OK and "nothing left to do" in err and rows(path) == before
    add(folder, "c.png")
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.OK and "4 ok, 0 failed, 1 new" in err
    assert list(rows(path)) == [*NAMES, "c.png"]


def test_a_kill_while_new_pictures_are_scored_changes_nothing(run, folder, tmp_path, monkeypatch):
    """FILE stays until all are there; whatever a kill left in FILE.part is gone on with."""
    monkeypatch.setattr(output, "CHUNK", 2)
    path = tmp_path / "x.csv"
    part = tmp_path / "x.csv.part"
    run(folder, "-o", path)
    before = path.read_bytes()
    for name in ("a.png", "c.png", "e.png"):
        add(folder, name)
    run(folder, "-o", path, "--resume")
    want = path.read_bytes()
    for killed in range(0, len(want), 97):
        path.write_bytes(before)
        part.write_bytes(want[:killed])
        assert run(folder, "-o", path, "--resume")[0] == score.OK
        assert path.read_bytes() == want and not part.exists()


def test_an_overwriting_run_that_was_killed_is_gone_on_with(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "CHUNK", 1)
    path, part = tmp_path / "x.csv", tmp_path / "x.csv.part"
    run(folder, "-o", path, "--seeds", "2")
    old = path.read_bytes()
    run(folder, "-o", path, "--overwrite")
    want = path.read_bytes()
    path.write_bytes(old)
    part.write_bytes(b"".join(want.splitlines(keepends=True)[:2]))
    assert run(folder, "-o", path, "--resume")[0] == score.OK
    assert path.read_bytes() == want and not part.exists()


def test_new_pictures_among_those_a_killed_run_left_are_scored_too(run, folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, "-o", path)
    path.rename(tmp_path / "x.csv.part")
    add(folder, "a.png")
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.OK and sorted(rows(path)) == ["a.png", *NAMES]


def test_shards_go_on_while_they_share_out_the_same_pictures(run, folder, tmp_path):
    path = tmp_path / "x.csv"
    argv = (folder, "-o", path, "--shard", "1/2")
    run(*argv)
    add(folder, "g.png")
    add(folder, "h.png")
    code, err = run(*argv, "--resume")
    assert code == score.OK and list(rows(path)) == ["b.png", "f.png", "h.png"]
    before = path.read_bytes()
    add(folder, "a.png")
    code, err = run(*argv, "--resume")
    assert code == score.USAGE and "row 1 has path" in err and "--shard" in err
    assert path.read_bytes() == before


def test_a_file_that_another_program_saved_takes_no_rows(run, folder, tmp_path):
    path = tmp_path / "x.csv"
    run(folder, "-o", path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    add(folder, "a.png")
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.USAGE and "another program saved it" in err and err.count("\n") == 1
    assert path.read_bytes() == before
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{")
    code, err = run(folder, "-o", path, "--resume")
    assert code == score.USAGE and "is no file of scores" in err and err.count("\n") == 1
