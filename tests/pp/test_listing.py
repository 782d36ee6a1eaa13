"""Folders as phones, cameras, shares and programs leave them: each file is a row, or counted."""

import itertools
import os

import pytest

from diffv2iqa_jax.data import shelf
from diffv2iqa_jax.data.sets import own
from diffv2iqa_jax.pp import formats, listing
from diffv2iqa_jax.scoring import inputs
from tests.pictures import encoded, picture

JPEG = encoded(picture(), "JPEG")
READ = ["a.JPG", "b.jfif", "c.jif", "d.pjpeg", "e.ppm", "f.avif", "g.jp2", "no ending", "z.1.bak2"]
REFUSED = ["h.svg", "i.DNG", "j.cr3", "k.psd", "l.tga", "m.ico"]
COMPANIONS = ["._a.JPG", "@eaDir/a.JPG/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/1.jpg", "Thumbs.db"]
COMPANIONS += [".DS_Store", "desktop.ini", "__MACOSX/._a.JPG", ".picasaoriginals/a.JPG"]
OTHERS = ["a.JPG.xmp", "a.aae", "list.txt", "notes.txt", "film.mp4", "scan.pdf", "x/odd\nname.a b"]


@pytest.fixture
def folder(tmp_path):
    for name in (*READ, *REFUSED):
        (tmp_path / name).write_bytes(JPEG)
    for name in (*COMPANIONS, *OTHERS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7 no picture" if "._" in name else b"anything")
    (tmp_path / "x" / "._called so.jpg").write_bytes(JPEG)
    os.symlink(tmp_path / "x", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def test_every_file_is_a_picture_or_is_counted(folder):
    passed = listing.Passed()
    found = [os.path.relpath(p, folder) for p in listing.walk(str(folder), passed)]
    assert found == sorted([*READ, *REFUSED, "x/._called so.jpg"])
    assert str(passed) == (
        "8 companions (.DS_Store, ._*, .picasaoriginals, .thumbnails, @eaDir, Thumbs.db, "
        "__MACOSX, desktop.ini), 2 .txt, 2 of no known ending, 1 .aae, 1 .mp4, 1 .pdf, 1 .xmp, "
        "1 link to a folder"
    )


def test_scoring_sets_and_training_list_the_same(folder, caplog):
    every = sorted([*READ, *REFUSED, "x/._called so.jpg"])
    scored = inputs.expand([str(folder)])
    assert [os.path.relpath(p, folder) for p in scored] == every
    rows, *_ = own.pool(folder)
    assert sorted(row.name for row in rows) == every
    caplog.set_level("INFO")
    trained = [os.path.relpath(p, folder) for p in shelf.list_files(str(folder))]
    assert trained == sorted({*every} - {*REFUSED})
    assert "10 pictures (passed over: 8 companions" in caplog.text


def test_a_companions_folder_that_is_named_is_listed(folder):
    passed = listing.Passed()
    found = [*inputs.expand([str(folder / "@eaDir"), str(folder / ".thumbnails" / "*.jpg")])]
    assert [os.path.basename(p) for p in found] == ["SYNOPHOTO_THUMB_M.jpg", "1.jpg"]
    found = [*inputs.expand([str(folder / "**" / "*.jpg")], passed=passed)]
    assert found == [] and str(passed).startswith("1 companion ")


def test_what_an_ending_tells_is_not_opened(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.cr2", "c.txt", "d.mp4", "e.unknown"):
        (tmp_path / name).write_bytes(b"")
    opened = []
    monkeypatch.setattr(formats, "is_picture", lambda path: opened.append(path))
    assert len([*listing.walk(str(tmp_path), listing.Passed())]) == 2
    assert [os.path.basename(p) for p in opened] == ["e.unknown"]


def test_folders_are_listed_one_at_a_time(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    walk = listing.walk(str(tmp_path), listing.Passed())
    assert next(walk).endswith("a/x.png")
    (tmp_path / "c" / "y.png").write_bytes(b"")
    assert [os.path.relpath(p, tmp_path) for p in walk] == ["b/x.png", "c/x.png", "c/y.png"]


def test_endings_are_of_one_kind_only():
    assert not listing.OTHERS & listing.PICTURES and listing.READABLE < listing.PICTURES
    lower = [*listing.OTHERS, *listing.FOLDERS, *listing.FILES]
    assert all(x == x.lower() for x in lower)
    for a, b in itertools.combinations(formats.KINDS.values(), 2):
        assert not {*a.endings.split()} & {*b.endings.split()}


def test_many_kinds_are_summed_up():
    passed = listing.Passed()
    for ending in "abcdefghij":
        passed.file(f"x.{ending}")
    passed.file("x.j")
    assert str(passed).startswith("2 .j, 1 .a,") and str(passed).endswith(", 2 of 2 other kinds")
