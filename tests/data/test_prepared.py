"""Sets with damaged files, sets prepared again, and disks that are full."""

import os
import shutil

import pytest

from diffv2iqa_jax.data import prepare, reading
from diffv2iqa_jax.pp import decode
from tests import disk, pictures, twins
from tests.data.test_prepare import ROWS, labelled, run


@pytest.fixture
def torn(photos):
    """A pool of eight pictures with three damaged ones and what else lies in folders."""
    cut = pictures.encoded(pictures.picture(40, 40))[:-900]
    for name, data in (("cut.png", cut), ("empty.jpg", b""), ("x.svg", b"<svg/>")):
        (photos / name).write_bytes(data)
    (photos / "cut.jpg").write_bytes(pictures.encoded(pictures.picture(40, 40), "JPEG")[:600])
    (photos / "._p0.png").write_bytes(b"\0\5\x16\7")
    (photos / "notes.txt").write_text("")
    return photos


def test_all_damaged_files_are_listed_at_once_and_can_be_left_out(torn, tmp_path, capsys):
    data = tmp_path / "data"
    argv = ("pool", "--name", "torn", "--source", torn, "--folder", data)
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "") and not [p for p in data.rglob("*") if p.is_file()]
    head, *lines = err.splitlines()
    assert "4 files of 10 images cannot be read" in head and "--allow_missing" in head
    assert [line.partition(":")[0].rpartition("/")[2] for line in lines] == [
        "cut.jpg",
        "cut.png",
        "empty.jpg",
        "x.svg",
    ]
    assert " at 0x" not in err and "object" not in err
    code, out, err = run(capsys, *argv, "--allow_missing")
    assert (
        code == 0 and "pool/torn: 6 images" in out and "left out, as they cannot be read, 4" in err
    )
    assert "passed over: 1 companion (._*), 1 .txt" in err
    facts = reading.load("pool/torn", str(data)).facts
    assert not facts["complete"] and facts["lacking"] == 4
    assert facts["left_out"] == ["cut.jpg", "cut.png", "empty.jpg", "x.svg"]
    assert run(capsys, *argv, "--allow_missing")[0] == 0
    twins.picture(torn / "cut.png")
    code, _, err = run(capsys, *argv, "--allow_missing")
    assert code == 2 and "files: 1 hold other pictures, first cut.png" in err


def test_an_original_that_cannot_be_read_takes_its_images_with_it(release, tmp_path, capsys):
    (release / "images" / "I01.png").write_bytes(b"")
    argv = ("kadid10k", "--source", release, "--folder", tmp_path / "data", "--allow_missing")
    code, out, err = run(capsys, *argv)
    assert code == 0 and "125 images" in out and "I01.png: is empty" in err
    source = reading.load("kadid10k", str(tmp_path / "data"))
    assert set(source.table["group"]) == {"I02"} and source.facts["lacking"] == 125


# Prepared again.


def test_the_same_input_again_is_done_at_once(photos, tmp_path, capsys, monkeypatch):
    path, data = labelled(photos, "\n".join(["image,mos,scene", *ROWS])), tmp_path / "data"
    argv = ("csv", "--name", "a", "--source", path, "--folder", data, "--low", 0, "--high", 9)
    assert run(capsys, *argv)[0] == 0
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(reading, "load", None)  # neither the set nor a picture is read
        patch.setattr(decode, "read", None)
        code, out, err = run(capsys, *argv)
        assert (code, err) == (0, "") and "is there already" in out
    for file in photos.iterdir():  # copied elsewhere: the same, at other times
        os.utime(file, (1, 1))
    assert run(capsys, *argv)[0] == 0
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["p0.png,4,s0", *ROWS[1:]], {}, "labels: 1 differ, first p0.png: 1.0 there, 4.0 now"),
        (ROWS[1:], {}, "images: 1 are gone, first p0.png"),
        ([*ROWS[:5], "p5.png,6,s9"], {}, "group: 1 differ, first p5.png: s1 there, s9 now"),
        (ROWS, {"--high": 10}, "scale: 0..9 there, 0..10 now"),
        (ROWS, {"--lower_better": None}, "higher is better: True there, False now"),
        (ROWS, {"--icc": "ignore"}, "--icc: convert there, ignore now"),
        (None, {}, "files: 1 hold other pictures, first p3.png"),
    ],
)
def test_other_input_is_refused_until_it_is_to_overwrite(
    photos, rows, options, message, tmp_path, capsys
):
    path, data = labelled(photos, "\n".join(["image,mos,scene", *ROWS])), tmp_path / "data"
    argv = ("csv", "--name", "a", "--source", path, "--folder", data, "--group_column", "scene")
    first = {"--low": 0, "--high": 9}
    assert run(capsys, *argv, *(x for pair in first.items() for x in pair))[0] == 0
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    if rows:
        labelled(photos, "\n".join(["image,mos,scene", *rows]))
    else:
        twins.picture(photos / "p3.png", 77, (10, 9))
    now = [x for pair in (first | options).items() for x in pair if x is not None]
    code, out, err = run(capsys, *argv, *now)
    assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 2
    assert "--overwrite" in err and "--name" in err
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before
    assert run(capsys, *argv, *now, "--overwrite")[0] == 0
    assert len(reading.load("csv/a", str(data)).table["id"]) == len(rows or ROWS)
    assert run(capsys, *argv, *now)[0] == 0
    assert not [name for name in os.listdir(data) if name.startswith(".")]


def test_an_archive_prepared_again_is_unpacked_only_if_it_changed(
    release, tmp_path, capsys, monkeypatch
):
    source, data = tmp_path / "kadid10k.zip", tmp_path / "data"
    shutil.make_archive(str(tmp_path / "kadid10k"), "zip", release)
    argv = ("kadid10k", "--source", source, "--folder", data)
    assert run(capsys, *argv)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(prepare.archives, "unpack", None)
        assert run(capsys, *argv)[0] == 0
    twins.picture(release / "images" / "I02.png", 5, (12, 8))
    shutil.make_archive(str(tmp_path / "kadid10k"), "zip", release)
    code, _, err = run(capsys, *argv)
    assert code == 2 and "files: 1 hold other pictures, first I02.png" in err


def test_a_full_disk_is_one_line_and_keeps_the_set_that_is_there(photos, tmp_path, capsys):
    data = tmp_path / "data"
    argv = ("pool", "--name", "mine", "--source", photos, "--folder", data)
    with disk.full(200):
        code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "name another --folder" in err
    assert not [p for p in data.rglob("*") if p.is_file()]
    assert run(capsys, *argv)[0] == 0
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    with disk.full(200):
        code, out, err = run(capsys, *argv, "--overwrite")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before
