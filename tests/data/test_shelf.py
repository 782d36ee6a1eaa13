"""Collections of photos: folders, globs, tfrecord files, and what is wrong with them."""

import numpy as np
import pytest

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.data.shelf import Shelf, TooManyDamaged
from diffv2iqa_jax.pp import decode
from tests import pictures
from tests.pictures import encoded

PICTURE = scenes.scene(0, 32)


@pytest.fixture
def folder(tmp_path):
    """Four photos in four formats, one of them in a folder below, and a file that is none."""
    (tmp_path / "below").mkdir()
    lossless = {"b.png": "PNG", "c.bmp": "BMP", "below/d.webp": "WEBP"}
    for name, format in lossless.items():
        settings = {"lossless": True} if format == "WEBP" else {}
        (tmp_path / name).write_bytes(encoded(PICTURE, format, **settings))
    (tmp_path / "a.JPG").write_bytes(encoded(PICTURE, "JPEG", quality=95))
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


def test_a_folder_holds_its_photos_in_order(folder):
    shelf = Shelf(str(folder))
    assert shelf.names == ["a.JPG", "b.png", "below/d.webp", "c.bmp"]
    for place in (1, 2, 3):
        np.testing.assert_array_equal(shelf.picture(place), PICTURE)
    assert np.abs(shelf.picture(0).astype(int) - PICTURE).mean() < 8
    assert Shelf(str(folder / "*.png")).names == ["b.png"]
    shelf.check()


def test_tfrecord_files_hold_photos_too(tmp_path):
    tf = pytest.importorskip("tensorflow")
    pictures = [scenes.scene(i, 24) for i in range(5)]
    for shard, part in enumerate((pictures[:3], pictures[3:])):
        with tf.io.TFRecordWriter(str(tmp_path / f"x.tfrecord-0000{shard}-of-00002")) as file:
            for picture in part:
                value = tf.train.BytesList(value=[encoded(picture)])
                feature = {"image": tf.train.Feature(bytes_list=value)}
                features = tf.train.Features(feature=feature)
                file.write(tf.train.Example(features=features).SerializeToString())
    shelf = Shelf(str(tmp_path))
    assert len(shelf.names) == 5
    for place, picture in enumerate(pictures):
        np.testing.assert_array_equal(shelf.picture(place), picture)
    path = tmp_path / "x.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="cut short"):
        Shelf(str(tmp_path))


def test_a_record_without_a_photo_is_noted_by_its_name(tmp_path):
    tf = pytest.importorskip("tensorflow")
    feature = {"label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))}
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as file:
        file.write(example.SerializeToString())
    shelf = Shelf(str(tmp_path))
    assert shelf.picture(0) is None
    assert shelf.damaged[0].startswith("x.tfrecord@12: has no feature image or image/encoded")


def test_the_cache_keeps_pixels_and_nothing_else_does(folder):
    for cache in (True, False):
        shelf = Shelf(str(folder), cache)
        assert (shelf.picture(1) is shelf.picture(1)) == cache


def test_photos_are_read_as_scoring_reads_them(folder):
    """Whatever the file says of its colours and its orientation."""
    settings = {"exif": pictures.turned(6), "icc_profile": pictures.display_p3()}
    clear = np.dstack([PICTURE, np.full((32, 32), 90, np.uint8)])
    (folder / "a.JPG").write_bytes(encoded(PICTURE, "JPEG", **settings))
    (folder / "b.png").write_bytes(encoded(clear, **settings))
    shelf = Shelf(str(folder))
    for place, name in enumerate(("a.JPG", "b.png")):
        np.testing.assert_array_equal(shelf.picture(place), decode.read(folder / name).image_HWC)
    assert np.abs(shelf.picture(0).astype(int) - np.rot90(PICTURE, -1)).mean() < 20


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>", encoded(PICTURE)[:400], b"qoif"],
    ids=["empty", "text", "cut", "qoi"],
)
def test_what_is_no_photo_is_noted_once_and_skipped(data, folder):
    (folder / "b.png").write_bytes(data)
    shelf = Shelf(str(folder))
    assert shelf.picture(1) is None and shelf.picture(1) is None
    assert list(shelf.damaged) == [1]
    with pytest.raises(TooManyDamaged, match="1 of 4 photos are damaged.*b.png.*mend or remove"):
        shelf.check()


def test_one_damaged_photo_in_a_thousand_is_chance(tmp_path):
    for number in range(1000):
        (tmp_path / f"{number:04}.png").write_bytes(b"")
    (tmp_path / "0001.png").write_bytes(encoded(PICTURE))
    shelf = Shelf(str(tmp_path))
    np.testing.assert_array_equal(shelf.sound(iter([0, 1, 2])), PICTURE)
    shelf.check()
    assert shelf.sound(iter([2, 3, 1])).shape == (1, 1, 3)
    with pytest.raises(TooManyDamaged, match="2 of 1000.*0000.png.*0002.png"):
        shelf.check()


@pytest.mark.parametrize("where", ["", "nothing*.png", "no/such/folder"])
def test_no_photos_are_an_error(tmp_path, where):
    with pytest.raises(ValueError, match="name a folder or a glob"):
        Shelf(str(tmp_path / where))
