"""The command that prepares: what it refuses, in which words; what it writes."""

import dataclasses
import io
import os
import shutil
import struct
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax.data import evaluation, pipeline, prepare, reading
from diffv2iqa_jax.data.sets import catalog, registry, store
from diffv2iqa_jax.data.sets.catalog import Row, Set
from diffv2iqa_jax.pp import decode
from tests import pictures, twins


def run(capsys, *argv):
    """(exit code, standard output, standard error)."""
    code = prepare.main([str(a) for a in argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def nothing_written(folder):
    return not folder.exists() or not list(folder.iterdir())


@pytest.fixture(scope="module")
def kadid(tmp_path_factory):
    """A release, whole."""
    return twins.kadid10k(tmp_path_factory.mktemp("release"))


def test_a_release_becomes_a_set_that_reads_back(release, tmp_path, capsys):
    data = tmp_path / "data"
    code, out, err = run(capsys, "kadid10k", "--source", release, "--folder", data)
    assert (code, err) == (0, "") and out.startswith("kadid10k: 250 images in")
    source = reading.load("kadid10k", str(data))
    table = source.table
    assert table["name"].tolist() == sorted(table["name"].tolist())
    np.testing.assert_allclose(table["mos"], (table["native"] - 1) / 4, atol=1e-6)
    assert set(table["group"]) == {"I01", "I02"} and len(set(table["type"])) == 25
    assert source.facts["complete"] and source.facts["scale"] == [1, 5]
    (record,) = source.examples(np.array([130]))
    name = table["name"][130]
    assert record["image"] == (release / "images" / name).read_bytes()  # the file's own bytes
    assert record["reference"] == (release / "images" / "I02.png").read_bytes()
    batch = next(evaluation.to_evaluate(source, [130, 5], pp="center(8)", batch=2))
    for row, original in enumerate(("I01.png", "I02.png")):
        pixels = np.asarray(Image.open(release / "images" / original))
        np.testing.assert_array_equal(batch["reference"][row], pixels[:, 2:10])
    again, out, _ = run(capsys, "kadid10k", "--source", "nowhere", "--folder", data)
    assert again == 0 and "is there already" in out and "to compare it" in out


def test_an_archive_is_taken_and_leaves_nothing_behind(release, tmp_path, capsys):
    shutil.make_archive(str(tmp_path / "kadid10k"), "zip", release)
    data = tmp_path / "data"
    source = tmp_path / "kadid10k.zip"
    assert run(capsys, "kadid10k", "--source", source, "--folder", data)[0] == 0
    assert not [name for name in os.listdir(data) if name.startswith(".")]


def test_differences_stop_it_unless_they_are_allowed(release, tmp_path, capsys):
    images, data = release / "images", tmp_path / "data"
    (images / "I01_02_03.png").unlink()
    (images / "I02_02_03.png").rename(images / "I02_02_03.PNG")
    twins.picture(images / "I03.png")
    start = time.perf_counter()
    argv = ("kadid10k", "--source", release, "--folder", data)
    code, _, err = run(capsys, *argv)
    assert code == 2 and time.perf_counter() - start < 1 and nothing_written(data)
    assert [line.strip() for line in err.splitlines()][1:] == [
        "missing: images/I01_02_03.png",
        "wrong case: images/I02_02_03.png is called I02_02_03.PNG",
        "extra: images/I03.png",
    ]
    assert "--allow_missing" in err
    assert run(capsys, *argv, "--allow_missing")[0] == 0
    facts = reading.load("kadid10k", str(data)).facts
    assert not facts["complete"] and facts["lacking"] == 1


def test_a_picture_that_cannot_be_read_leaves_nothing(release, tmp_path, capsys):
    (release / "images" / "I02_25_05.png").write_bytes(b"<html>")
    (release / "images" / "I01.png").write_bytes(b"")
    code, _, err = run(capsys, "kadid10k", "--source", release, "--folder", tmp_path / "data")
    assert code == 2 and "I02_25_05.png: starts with" in err and "I01.png: is empty" in err
    assert "2 files of 250 images cannot be read" in err and len(err.splitlines()) == 3
    assert not catalog.complete("kadid10k", str(tmp_path / "data"))
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file()]


def test_a_score_beyond_the_scale_and_a_name_twice_are_said(release, tmp_path, capsys):
    path = release / "dmos.csv"
    lines = path.read_text().splitlines()
    lines[1] = "I01_01_01.png,I01.png,7.5,0.5"
    path.write_text("\n".join([*lines[:-1], lines[5]]))
    code, _, err = run(capsys, "kadid10k", "--source", release, "--folder", tmp_path / "data")
    assert code == 2 and "scores: 1 lie outside 1..5, first I01_01_01.png with 7.5" in err
    assert "names: 1 stand twice in the labels, first I01_01_05.png" in err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["kadid"], 2, "did you mean 'kadid10k'"),
        (["kadid10k", "--source", "nowhere"], 2, "there is no such file or folder"),
        (["kadid10k", "--source", "empty"], 4, "is empty; there is nothing to prepare"),
        (["pool", "--name", "p", "--source", "empty"], 4, "is empty"),
        (["kadid10k", "--source", "x.rar"], 2, "unpack it first"),
        (["pool", "--source", "empty"], 2, "--name None: give the set a name"),
        (["pool", "--name", "../x", "--source", "empty"], 2, "letters, digits"),
        (["csv", "--name", "a", "--source", "empty"], 2, "must be the table of labels"),
        (["csv", "--name", "a", "--source", "x", "--low", "0", "--high", "1"], 2, "no such file"),
    ],
)
def test_bad_commands_are_refused_in_one_line(argv, code, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    argv = argv if "--source" in argv else [*argv, "--source", "empty"]
    got, _, err = run(capsys, *argv, "--folder", tmp_path / "data")
    assert got == code and message in err and err.count("\n") == 1
    assert nothing_written(tmp_path / "data")


@pytest.mark.parametrize("argv", [["kadid10k", "--sauce", "x"], ["csv", "--low", "abc"]])
def test_unknown_flags_and_wrong_types_start_nothing(argv):
    with pytest.raises(SystemExit) as left:
        prepare.main([*argv, "--source", "x"])
    assert left.value.code == 2


def test_a_tar_that_climbs_is_refused_and_nothing_is_left(tmp_path, capsys):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        info = tarfile.TarInfo("../../evil")
        info.size = 1
        file.addfile(info, io.BytesIO(b"x"))
    data = tmp_path / "data"
    code, _, err = run(capsys, "csiq", "--source", tmp_path / "x.tar", "--folder", data)
    assert code == 2 and "outside the folder" in err and nothing_written(data)


# Own sets.


def labelled(photos, text, encoding="utf-8"):
    path = photos / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


ROWS = [f"p{i}.png,{i + 1},s{i % 2}" for i in range(6)]


@pytest.mark.parametrize("text", [
    "\n".join(["image,mos,scene", *ROWS]),
    "\r\n".join(["image,mos,scene", *ROWS, ""]),
    "\ufeff" + "\n".join(["image;mos;scene", *(r.replace(",", ";") for r in ROWS)]),
    "\n\n".join(["image\tmos\tscene", *(r.replace(",", "\t") for r in ROWS)]),
])  # fmt: skip
def test_an_own_table_of_any_common_form(photos, text, tmp_path, capsys):
    path, data = labelled(photos, text), tmp_path / "data"
    argv = ("csv", "--name", "mine", "--source", path, "--folder", data, "--group_column", "scene")
    code, out, err = run(capsys, *argv, "--low", 1, "--high", 11, "--lower_better")
    assert code == 0, err
    source = reading.load("csv/mine", str(data))
    np.testing.assert_allclose(source.table["mos"], 1 - np.arange(6) / 10, atol=1e-6)
    assert set(source.table["group"]) == {"s0", "s1"} and not source.facts["higher_is_better"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["p0.png,4"], "row 2: 2 fields instead of 3"),
        (["p0.png,nan,s", "p1.png,inf,s"], "row 3: mos 'inf' must be a finite number"),
        (["p0.png,,s"], "row 2: mos '' must be a finite number"),
        (["p0.png,3,5,s"], "a comma in a number? write a point"),
        (["p0.png,4,s", "p0.png,3,s"], "row 3: 'p0.png' stands in row 2 too"),
        (["p0.png,4,s", "q.png,3,s"], "row 3: image 'q.png' is not in"),
        (["p0.png,40,s"], "1 scores are outside --low 0.0 --high 11.0"),
    ],
)
def test_bad_rows_are_listed_by_number(photos, rows, message, tmp_path, capsys):
    path = labelled(photos, "\n".join(["image,mos,scene", *rows]))
    argv = ("csv", "--name", "a", "--source", path, "--folder", tmp_path / "data")
    code, _, err = run(capsys, *argv, "--low", 0, "--high", 11)
    assert code == 2 and message in err and nothing_written(tmp_path / "data")


def test_other_bad_tables(photos, tmp_path, capsys):
    argv = ("csv", "--name", "a", "--folder", tmp_path / "data", "--low", 0, "--high", 9)
    semicolons = labelled(photos, "image;mos\np0.png;3,5\np1.png;3.5\n")
    assert "write a point, not a comma" in run(capsys, *argv, "--source", semicolons)[2]
    path = labelled(photos, "file,score\np0.png,3\n")
    message = "no column 'image', 'mos'; it has ['file', 'score']"
    assert message in run(capsys, *argv, "--source", path)[2]
    path = labelled(photos, "image,mos\np0.png,3\né,1\n", "latin-1")
    assert "is not UTF-8" in run(capsys, *argv, "--source", path)[2]
    path = labelled(photos, "image,mos\n")
    assert run(capsys, *argv, "--source", path)[0] == 4
    path = labelled(photos, "\n".join(["image,mos", *[f"q{i}.png,1" for i in range(99)]]))
    err = run(capsys, *argv, "--source", path)[2]
    assert len(err.splitlines()) == 21 and "and 80 more" in err


def test_a_scale_is_guessed_and_said(photos, tmp_path, capsys):
    path = labelled(
        photos, "\n".join(["image,mos", *(f"p{i}.png,{1.2 + i / 2}" for i in range(6))])
    )
    argv = ("csv", "--name", "a", "--source", path, "--folder", tmp_path / "data")
    code, _, err = run(capsys, *argv)
    assert code == 0 and err == (
        "prepare: mos 1.2 to 3.7 taken on a scale from 1 to 5, high is good; "
        "--low 1 --high 5 confirms, others change it\n"
    )
    assert reading.load("csv/a", str(tmp_path / "data")).facts["scale"] == [1, 5]
    assert run(capsys, *argv, "--low", 1, "--high", 5)[0] == 0
    code, _, err = run(capsys, *argv, "--low", 0, "--high", 5)
    assert code == 2 and "scale: 1..5 there, 0..5 now" in err
    code, _, err = run(capsys, *argv, "--low", 0, "--overwrite")
    assert code == 2 and "give both ends" in err and "from 1.2 to 3.7" in err
    labelled(photos, "image,mos\np0.png,930\np1.png,1850\n")
    code, _, err = run(capsys, *argv, "--overwrite")
    assert code == 2 and "give both ends" in err and "from 930 to 1850" in err


def test_the_direction_of_a_dmos_is_asked_for(photos, tmp_path, capsys):
    path, data = labelled(photos, "image,DMOS\np0.png,3\np1.png,4\n"), tmp_path / "data"
    argv = ("csv", "--name", "a", "--source", path, "--folder", data, "--mos_column", "DMOS")
    code, _, err = run(capsys, *argv)
    assert code == 2 and "--lower_better or --higher_better" in err and err.count("\n") == 1
    assert run(capsys, *argv, "--higher_better")[0] == 0
    assert reading.load("csv/a", str(data)).facts["higher_is_better"]


def test_images_are_found_as_tables_name_them(photos, tmp_path, capsys):
    (photos / "in").mkdir()
    twins.picture(photos / "in" / "q.png")
    names = ["./p0.png", "photos/p1.png", r"photos\p2.png", r"in\q.png", str(photos / "p3.png")]
    path = labelled(photos, "\n".join(["image,mos", *(f"{name},1" for name in names)]))
    argv = ("csv", "--name", "a", "--source", path, "--folder", tmp_path / "data")
    assert run(capsys, *argv, "--low", 0, "--high", 1)[0] == 0
    table = reading.load("csv/a", str(tmp_path / "data")).table
    assert table["name"].tolist() == ["in/q.png", "p0.png", "p1.png", "p2.png", "p3.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,mos\nP0.PNG,1\n", "row 2: image 'P0.PNG' is not in"),
        ("image,mos\nP0.PNG,1\n", "there is 'p0.png'"),
        ("image,mos\np0,1\n", "there is 'p0.png'"),
        ("image,mos\nC:\\lab\\p0.png,1\n", "there is 'p0.png'"),
        ("image,mos\np0.png,1\n./p0.png,1\n", "row 3: 'p0.png' stands in row 2 too"),
        ("image,mos\np0.png,1\np0.png,1\n", "average its ratings first"),
        ("image,mos\np0.png,50%\n", "row 2: mos '50%' must be a finite number, without %"),
        ('image,mos\np0.png,"1,234"\n', "write a point, not a comma"),
        ('image,mos\np0.png,"1.234,5"\n', "its thousands not parted"),
        ("image,mos\np0.png,1_0\n", "must be a finite number"),
        ("image,mos\n\np0.png,1\nq.png,x\n", "row 4: mos 'x' must be"),
        ("image,mos\n\np0.png,1\nq.png,x\n", "row 4: image 'q.png' is not in"),
        ("Image , MOS\np0.png,1\n", "'image' (did you mean 'Image'?), 'mos' (did you mean 'MOS'?)"),
        ("p0.png,1\np1.png,2\n", "its first row must name the columns"),
        ("file,mos\np0.png,1\n", "; name yours with --image_column"),
        ("image,mos\n,1\n,2\n", "row 3: names no image"),
        (f"image,mos\n{'q' * 3000},1\n", "qqq'... is not in"),
        ("sep=,\nimage;mos\np0.png;1\n", "must be separated as its first line says"),
    ],
)
def test_what_a_table_means_is_not_guessed(photos, text, message, tmp_path, capsys):
    path = labelled(photos, text)
    argv = ("csv", "--name", "a", "--source", path, "--folder", tmp_path / "data")
    code, _, err = run(capsys, *argv, "--low", 0, "--high", 100)
    assert code in (2, 4) and message in err and nothing_written(tmp_path / "data")


def test_levels_are_whole(photos, tmp_path, capsys):
    path = labelled(photos, "image,mos,level\np0.png,1,2.0\np1.png,1,2.5\n")
    argv = ("csv", "--name", "a", "--source", path, "--folder", tmp_path / "data")
    code, _, err = run(capsys, *argv, "--level_column", "level")
    assert code == 2 and "row 3: level '2.5' must be a whole number" in err
    labelled(photos, "image,mos,level\np0.png,1,1e30\np1.png,1,-3000000000\n")
    code, _, err = run(capsys, *argv, "--level_column", "level")
    assert code == 2 and "2 bad rows" in err and "must be a whole number, of 31 bits at most" in err


def test_a_set_that_is_refused_leaves_no_folder_of_its_name(photos, tmp_path, capsys):
    (photos / "p1.png").write_bytes(b"none")
    path = labelled(photos, "image,mos\np0.png,1\np1.png,2\n")
    argv = ("csv", "--source", path, "--folder", tmp_path / "data", "--name")
    assert run(capsys, *argv, "a")[0] == 2
    assert not [p for p in (tmp_path / "data").rglob("*") if "csv-a" in p.name]
    code, _, err = run(capsys, *argv, "a" * 300)
    assert code == 2 and "File name too long" in err and "[Errno" not in err


def test_what_is_no_archive_is_one_line_without_classes(tmp_path, capsys):
    (tmp_path / "x.tar.gz").write_bytes(b"junk")
    argv = ("pool", "--name", "a", "--source", tmp_path / "x.tar.gz", "--folder", tmp_path / "d")
    code, _, err = run(capsys, *argv)
    assert code == 2 and err.count("\n") == 1 and "Error" not in err and "download it again" in err


def test_a_pool_has_no_opinions(photos, tmp_path, capsys):
    argv = ("pool", "--name", "mine", "--source", photos, "--folder", tmp_path / "data")
    assert run(capsys, *argv)[0] == 0
    source = reading.load("pool/mine", str(tmp_path / "data"))
    assert len(source.table["id"]) == 6 and np.isnan(source.table["mos"]).all()
    assert source.facts["rated"] is False


# What is stored of a file.


ANY = Set("any", 1, 0, 0, 1, True, "")


def stored(path, image, **settings):
    """(pixels as the pipeline has them, whether the bytes are the file's own)."""
    image.save(path, **settings)
    data, content = store.encoded(path, ANY)
    pixels = np.asarray(pipeline.decoded(data))
    assert content == store.content(pixels)
    return pixels, data == path.read_bytes()


def test_jpeg_pixels_are_those_of_pillow(tmp_path):
    """So an image of a set and the same file scored by itself are the same pixels."""
    smooth = np.add.outer(np.arange(64), np.arange(80))[..., None] * np.array([1, 2, 3]) % 256
    for settings in ({"quality": 60}, {"quality": 90, "subsampling": 0}, {"progressive": True}):
        path = tmp_path / "a.jpg"
        pixels, own = stored(path, Image.fromarray(smooth.astype(np.uint8)), **settings)
        assert own
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(path)))


@pytest.mark.parametrize(
    ("mode", "name", "own"),
    [
        ("RGB", "a.png", True),
        ("RGB", "a.bmp", True),
        ("L", "a.png", True),
        ("L", "a.jpg", True),
        ("RGB", "a.webp", False),
        ("RGB", "a.tiff", False),
        ("P", "a.png", False),
        ("RGBA", "a.png", False),
        ("CMYK", "a.jpg", False),
        ("1", "a.png", False),
        ("L", "a.bmp", False),
    ],
)
def test_bytes_are_kept_where_they_mean_the_same_to_all(mode, name, own, tmp_path):
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
    settings = {"lossless": True} if name.endswith("webp") else {}
    image = rgb.convert(mode)
    pixels, kept = stored(tmp_path / name, image, **settings)
    assert kept == own and pixels.shape == (9, 7, 3)
    want = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    np.testing.assert_array_equal(pixels, want)


def test_transparency_is_white_and_16_bits_keep_their_brightness(tmp_path):
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (stored(tmp_path / "a.png", clear)[0] == 255).all()
    deep = Image.fromarray(np.full((4, 4), 257 * 99, np.uint16))
    assert (stored(tmp_path / "b.png", deep)[0] == 99).all()
    (tmp_path / "c.pgm").write_bytes(b"P5 4 4 65535\n" + struct.pack(">H", 257 * 99) * 16)
    assert (decode.pixels_of(store.encoded(tmp_path / "c.pgm", ANY)[0]) == 99).all()


def bmp(bits: int) -> bytes:
    """A BMP of 8 x 8 pixels, by hand."""
    pixels = np.random.default_rng(0).bytes(8 * bits)
    file = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    return file + struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, 0, 0, 0, 0, 0, 0) + pixels


@pytest.mark.parametrize(("bits", "own"), [(16, False), (24, True), (32, False)])
def test_every_bmp_that_is_stored_can_be_trained_on(bits, own, tmp_path):
    """TensorFlow reads none of 16 bits."""
    (tmp_path / "a.bmp").write_bytes(bmp(bits))
    data, content = store.encoded(tmp_path / "a.bmp", ANY)
    assert (data == bmp(bits)) == own and content == store.content(pipeline.decoded(data))
    want = np.asarray(Image.open(tmp_path / "a.bmp"))
    np.testing.assert_array_equal(pipeline.decoded(data), want)


def test_bytes_are_kept_where_a_profile_or_a_second_frame_changes_nothing(tmp_path):
    image = Image.fromarray(pictures.smooth())
    same = {"icc_profile": pictures.profile({})}  # sRGB, but under another name
    assert stored(tmp_path / "a.png", image, **same)[1]
    assert stored(tmp_path / "a.jpg", image, **same)[1]
    second = {"save_all": True, "append_images": [Image.new("RGB", image.size)]}
    pixels, own = stored(tmp_path / "a.mpo", image, **second)
    assert own
    with Image.open(tmp_path / "a.mpo") as first:
        np.testing.assert_array_equal(pixels, np.asarray(first))


@pytest.mark.parametrize("options", [{"icc": "ignore"}, {"orientation": "ignore"}, {}])
def test_what_is_stored_is_what_the_decoder_reads(options, tmp_path):
    reading = dataclasses.replace(decode.TO_STORE, **options)
    tags = {"exif": pictures.turned(6), "icc_profile": pictures.display_p3()}
    for name, settings in (("a.png", {}), ("b.jpg", {"quality": 80}), ("c.webp", {})):
        Image.fromarray(pictures.picture()).save(tmp_path / name, **settings, **tags)
        data, content = store.encoded(tmp_path / name, ANY, reading)
        want = decode.read(tmp_path / name, reading).image_HWC
        assert content == store.content(want)
        np.testing.assert_array_equal(decode.pixels_of(data), want)
        np.testing.assert_array_equal(pipeline.decoded(data), want)


def test_size_is_promised_by_a_name(tmp_path):
    twins.picture(tmp_path / "a.png", size=(40, 30))
    with pytest.raises(catalog.LayoutError, match=r"is \(40, 30\), not \(1024, 768\) pixels"):
        store.encoded(tmp_path / "a.png", ANY._replace(size=(1024, 768)))
    data, _ = store.encoded(tmp_path / "a.png", ANY._replace(short_side=15))
    assert np.asarray(pipeline.decoded(data)).shape == (15, 20, 3)


def test_a_promised_size_is_that_of_the_stored_photo_or_of_the_upright_one(tmp_path):
    spec = ANY._replace(size=(20, 12))
    Image.fromarray(pictures.picture(12, 20)).save(tmp_path / "a.png", exif=pictures.turned(6))
    data, _ = store.encoded(tmp_path / "a.png", spec)
    assert decode.pixels_of(data).shape == (20, 12, 3)
    Image.fromarray(pictures.picture(20, 12)).save(tmp_path / "b.png")
    with pytest.raises(catalog.LayoutError, match=r"b.png: is \(12, 20\), not \(20, 12\) pixels"):
        store.encoded(tmp_path / "b.png", spec)


def test_a_bomb_is_refused_by_its_header(tmp_path):
    twins.picture(tmp_path / "a.png", size=(40, 30))
    with pytest.raises(catalog.LayoutError, match="a.png: 40 x 30 is more than 1000 pixels"):
        store.encoded(tmp_path / "a.png", ANY, decode.Reading(max_pixels=1000))


def test_a_build_that_breaks_leaves_nothing_that_looks_built(tmp_path):
    twins.picture(tmp_path / "a.png")
    rows = [Row(n, tmp_path / n, None, 0.5, n) for n in ("a.png", "b.png")]  # there is no b
    with pytest.raises(catalog.LayoutError, match="b.png"):
        store.build("csv/x", str(tmp_path / "data"), ANY, rows)
    assert not registry.found("csv/x", str(tmp_path / "data"))
    store.build("csv/x", str(tmp_path / "data"), ANY, rows[:1])
    assert registry.found("csv/x", str(tmp_path / "data"))


def test_a_set_that_is_not_prepared_is_refused_with_the_command(tmp_path):
    for name, how in (("tid2013", "prepare tid2013"), ("csv/a", "prepare csv --name a")):
        with pytest.raises(ValueError, match=f"{how} --source"):
            registry.check(name, str(tmp_path))
    with pytest.raises(ValueError, match="no such set; did you mean 'tid2013'"):
        registry.check("tid2031", str(tmp_path))
    registry.check("builtin/tiny", str(tmp_path))  # is made on the spot
