"""Pristine photos: deterministic batches, held-out images that are always the same."""

import jax
import numpy as np
import pytest
from PIL import Image

from diffv2iqa_jax.data import pristine
from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.data.shelf import Shelf, TooManyDamaged
from diffv2iqa_jax.distortions.kadid import TYPES
from diffv2iqa_jax.evaluation import full_reference

SETTINGS = {
    "name": "pristine",
    "split": 0,
    "fractions": (0.6, 0.2, 0.2),
    "size": 32,
    "pp_train": "crop({size})|flip(0.5)",
    "pp_test": "center({size})",
    "batch": 8,
    "cache": True,
}
DISTORT = {"types": (), "clean": 0.0, "chains": 0.0, "levels": (1, 5), "group": 1}
DISTORT |= {"subsample": False, "pairs": 3, "test": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten photos of 48 x 40 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(10):
        Image.fromarray(scenes.scene(number, 48)[:, :40]).save(folder / f"{number}.png")
    return folder


def opened(folder, val_images: int = 100, process=(0, 1), **changes) -> pristine.Pristine:
    own = {k: changes.pop(k) for k in list(changes) if k in DISTORT}
    settings = SETTINGS | {"folder": str(folder), "distort": DISTORT | own} | changes
    return pristine.Pristine(settings, val_images, process)


def first(batches, count: int) -> list[dict]:
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def test_photos_are_split_by_file_and_shown_in_pairs(folder):
    data = opened(folder)
    assert (len(data.train_ids), len(data.val_ids), len(data.test_ids)) == (6, 6, 6)
    names = np.array(Shelf(str(folder)).names)
    groups = [set(data.table["group"][ids]) for ids in (data.val_ids, data.test_ids)]
    assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & set(names[data.train_ids])
    assert set(data.table["type"]) <= {*TYPES, "none"}
    for type, level in zip(data.table["type"], data.table["level"], strict=True):
        assert (level == 0) == (type == "none") and level <= 5
    assert len(set(data.table["content"].tolist())) == len(data.table["id"])
    every = opened(folder, pairs=0)
    assert len(every.test_ids) == 2 * 126
    assert len(opened(folder, val_images=2).val_ids) == 2


def test_example_number_i_is_a_function_of_the_split_and_i(folder):
    data = opened(folder)
    run = first(data.train(0), 5)
    again = first(opened(folder, cache=False).train(3), 2)
    for got, want in zip(again, run[3:], strict=True):
        assert set(got) == {"reference", "id", "content", "draw", "mask"}
        for key in want:
            np.testing.assert_array_equal(got[key], want[key])
    shares = [first(opened(folder, process=(i, 2)).train(0), 2) for i in range(2)]
    for number in range(2):
        both = np.concatenate([share[number]["reference"] for share in shares])
        np.testing.assert_array_equal(both, run[number]["reference"])
    other = first(opened(folder, split=1).train(0), 1)[0]
    assert not np.array_equal(other["reference"], run[0]["reference"])
    assert run[0]["reference"].shape == (8, 32, 32, 3)
    assert np.concatenate([b["draw"] for b in run]).tolist() == list(range(40))


def test_crops_are_cut_from_every_photo_of_the_part_equally(folder):
    data = opened(folder, pp_train="")
    seen = np.concatenate([b["reference"] for b in first(data.train(0), 3)])
    photos = [np.asarray(Image.open(folder / f"{n}.png")) for n in data.train_ids]
    counts = [sum(np.array_equal(x, photo) for x in seen) for photo in photos]
    assert counts == [4] * 6


def test_held_out_images_are_always_the_same_and_labelled_by_haarpsi(folder):
    data = opened(folder)
    rows = first(data.test(data.test_ids), 9)
    assert [r["mask"].tolist() for r in rows] == [[1] * 6 + [0] * 2]
    row = {k: v[:6] for k, v in rows[0].items()}
    assert set(row) == {"image", "reference", "mos", "id", "content", "mask"}
    assert row["id"].tolist() == data.test_ids.tolist()
    for image, reference, mos in zip(row["image"], row["reference"], row["mos"], strict=True):
        assert image.dtype == np.uint8 and not np.array_equal(image, reference)
        assert mos == pytest.approx(
            full_reference.haarpsi(reference, image, subsample=False), abs=1e-4
        )
    alone = first(opened(folder).test(data.test_ids[3:4]), 1)[0]
    np.testing.assert_array_equal(alone["image"][0], row["image"][3])
    shares = [opened(folder, process=(i, 2), batch=16).test(data.test_ids) for i in range(2)]
    one, two = (first(share, 1)[0] for share in shares)
    np.testing.assert_array_equal(one["image"][:6], row["image"])
    assert one["mask"].tolist() + two["mask"].tolist() == [1] * 6 + [0] * 10
    assert data.protocol({"seed": 0})["protocol"]["references"] == 2


def test_every_held_out_image_comes_once_however_many_fit_a_batch(folder):
    data = opened(folder, batch=2)
    rows = list(data.test(data.test_ids))
    assert np.concatenate([r["id"] for r in rows]).tolist() == data.test_ids.tolist()
    assert all(r["mask"].all() for r in rows)


def test_other_photos_can_be_the_test_part(folder, tmp_path):
    Image.fromarray(scenes.scene(50, 40)).save(tmp_path / "other.png")
    data = opened(folder, test=str(tmp_path), fractions=(0.9, 0.1, 0.0))
    assert set(data.table["group"][data.test_ids]) == {"other.png"}
    assert len(data.train_ids) == 9 and len(data.val_ids) == 3
    reference = first(data.test(data.test_ids), 1)[0]["reference"]
    np.testing.assert_array_equal(reference[0], scenes.scene(50, 40)[4:36, 4:36])


def test_damaged_photos_stop_the_run_and_are_named(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    place = int(opened(folder).train_ids[0])
    (tmp_path / f"{place}.png").write_bytes(b"no photo")
    batches = opened(tmp_path).train(0)
    with pytest.raises(TooManyDamaged, match=f"1 of 10 photos.*{place}.png: starts with"):
        first(batches, 9)


def test_one_damaged_photo_of_many_is_skipped(folder, monkeypatch):
    monkeypatch.setattr("diffv2iqa_jax.data.shelf.DAMAGED_MOST", 0.2)
    shelf = Shelf(str(folder))
    whole, sound = shelf.encoded, Shelf(str(folder))
    shelf.encoded = lambda place: b"" if place == 4 else whole(place)
    args = {"pp": "", "batch": 10, "seed": 0, "start": 0}
    got = first(pristine.to_train(shelf, np.arange(10), **args), 1)[0]["reference"]
    want = first(pristine.to_train(sound, np.arange(10), **args), 1)[0]["reference"]
    same = [np.array_equal(a, b) for a, b in zip(got, want, strict=True)]
    assert sum(same) == 9 and list(shelf.damaged) == [4]
    at = same.index(False)
    np.testing.assert_array_equal(got[at], want[(at + 1) % 10])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pp_train": "random_crops(16, 2)"}, "for evaluation only"),
        ({"pp_train": "crap(3)"}, "crap"),
        ({"process": (0, 3)}, "multiple of the 3 processes"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        first(opened(folder, **changes).train(0), 1)


def test_several_crops_of_a_held_out_photo_are_refused(folder):
    data = opened(folder, pp_test="grid(16)")
    with pytest.raises(ValueError, match="take one"):
        first(data.test(data.test_ids), 1)


def test_batches_go_to_any_number_of_devices(folder):
    batch = first(opened(folder).train(0), 1)[0]
    assert all(len(v) % jax.device_count() == 0 for v in batch.values())
