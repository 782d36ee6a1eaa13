import collections
import itertools

import numpy as np
import pytest

from diffv2iqa_jax.data import evaluation, pipeline
from diffv2iqa_jax.data.stored_views import StoredViews, Writer

PP = "crop(16)|flip(0.5)"


def train(source, ids=None, *, count=6, **kwargs):
    """The first `count` batches."""
    ids = np.arange(10, 50) if ids is None else ids
    kwargs = {"pp": PP, "batch": 8, "seed": 1, "start": 0} | kwargs
    return list(itertools.islice(pipeline.to_train(source, ids, **kwargs), count))


def same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def joined(parts):
    """Batches of several processes, row by row in their order."""
    return [
        {key: np.concatenate([p[key] for p in batches]) for key in batches[0]}
        for batches in zip(*parts, strict=True)
    ]


def real(batches, *keys):
    """Rows that are not padding, as tuples of these keys."""
    rows = [zip(*(b[k][b["mask"] > 0].tolist() for k in keys), strict=True) for b in batches]
    return list(itertools.chain(*rows))


@pytest.fixture(scope="session")
def views(tiny, tmp_path_factory):
    """Views that say which image they are of, and where in it: float16, two of each."""
    folder = tmp_path_factory.mktemp("views")
    writer = Writer(str(folder), 0)
    for batch in evaluation.whole(tiny, np.arange(60), batch=10):
        for id, image in zip(batch["id"], batch["image"], strict=True):
            writer.add(id, np.stack([image, 255 - image]).astype("<f2"))
    writer.close()
    return StoredViews(str(folder), "float16", 2)


def test_a_training_batch_is_what_its_keys_promise(tiny):
    first = train(tiny, count=1)[0]
    assert {k: (x.shape, str(x.dtype)) for k, x in first.items()} == {
        "image": ((8, 16, 16, 3), "uint8"),
        "reference": ((8, 16, 16, 3), "uint8"),
        "mos": ((8,), "float32"),
        "id": ((8,), "int32"),
        "content": ((8,), "uint32"),
        "draw": ((8,), "uint32"),
        "mask": ((8,), "float32"),
    }
    for key in ("mos", "content"):
        np.testing.assert_array_equal(first[key], tiny.table[key][first["id"]])
    np.testing.assert_array_equal(first["draw"], np.arange(8))
    assert first["mask"].all()


@pytest.mark.parametrize("cache", [True, False])
def test_the_stream_is_a_function_of_the_seed(tiny, cache):
    same(train(tiny), train(tiny, cache=cache))
    assert real(train(tiny), "id") != real(train(tiny, seed=2), "id")


def test_the_same_picture_is_augmented_anew_in_each_epoch(tiny):
    batches = train(tiny, ids=[3], count=3)
    pictures = [image.tobytes() for b in batches for image in b["image"]]
    assert len(set(pictures)) > 12


def test_seeds_2_to_the_32_apart_augment_otherwise(tiny):
    runs = [train(tiny, ids=[3], seed=seed, count=1)[0]["image"] for seed in (1, 1 + 2**32, 2**40)]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(runs, 2))


def test_each_epoch_holds_each_picture_once(tiny):
    ids = np.arange(10, 50)
    order = [id for (id,) in real(train(tiny, ids, count=15), "id")]
    epochs = [order[:40], order[40:80], order[80:]]
    for epoch in epochs:
        assert sorted(epoch) == ids.tolist()
    assert epochs[0] != epochs[1] != epochs[2] and epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("ids", [np.arange(40), np.arange(96)])
def test_orders_do_not_return_after_256_epochs_or_seeds(tiny, ids):
    """TensorFlow's index_shuffle reads the lowest eight bits of its seeds."""

    def epoch(number, seed):
        steps = len(ids) // 8
        got = train(tiny, ids, seed=seed, start=number * steps, count=steps, pp="center(1)")
        return [id for (id,) in real(got, "id")]

    orders = [epoch(0, 0), epoch(256, 0), epoch(0, 256), epoch(0, 2**32), epoch(1, 0), epoch(0, 1)]
    assert all(sorted(order) == ids.tolist() for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)


def test_shuffling_is_fair(tiny):
    order = np.array(train(tiny, np.arange(8), count=400, pp="center(1)"))
    places = collections.Counter((row, int(id)) for b in order for row, id in enumerate(b["id"]))
    counts = np.array([places[row, id] for row in range(8) for id in range(8)])
    assert counts.min() > 20 and counts.max() < 90  # 50 expected


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_run_sees_the_batches_of_an_unbroken_one(tiny, start):
    same(train(tiny, count=10)[start:], train(tiny, start=start, count=10 - start))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_see_the_batches_of_one(tiny, processes):
    parts = [train(tiny, start=3, process=(i, processes)) for i in range(processes)]
    same(train(tiny, start=3), joined(parts))


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        ([], {}, "no records"),
        (None, {"process": (0, 3)}, "multiple of the 3"),
        (None, {"process": (2, 2)}, "number from 0"),
        (None, {"pp": "grid(16)"}, "for evaluation only"),
        (None, {"pp": "cropp(16)"}, "no such op"),
        (None, {"views": StoredViews("x", "float64", 2)}, "'float64': known are"),
    ],
)
def test_unsuitable_training_settings_are_refused(tiny, ids, kwargs, message):
    with pytest.raises(ValueError, match=message):
        train(tiny, ids, **kwargs)


@pytest.mark.parametrize("batch", [1, 5, 7])
def test_evaluation_sees_each_picture_once_in_order(tiny, batch):
    ids = np.arange(60, 40, -1)
    batches = list(evaluation.to_evaluate(tiny, ids, pp="center(16)", batch=batch))
    assert real(batches, "id") == [(id,) for id in sorted(ids)]
    assert {len(b["image"]) for b in batches} == {batch}
    assert "draw" not in batches[0] and "crop" not in batches[0]
    assert batches[-1]["id"][-1] == 60  # padding repeats the last row


@pytest.mark.parametrize("pp", ["center(16)", "grid(20)", "random_crops(16, 3)"])
@pytest.mark.parametrize("ids", [np.arange(20), np.arange(2)])
def test_three_processes_evaluate_what_one_does(tiny, pp, ids):
    kwargs = {"pp": pp, "batch": 9}
    one = list(evaluation.to_evaluate(tiny, ids, **kwargs))
    parts = [list(evaluation.to_evaluate(tiny, ids, **kwargs, process=(i, 3))) for i in range(3)]
    assert len({len(p) for p in parts}) == 1
    same(one, joined(parts))


@pytest.mark.parametrize("batch", [1, 5, 7])
def test_evaluation_sees_each_crop_once(tiny, batch):
    batches = list(evaluation.to_evaluate(tiny, [8, 2, 5], pp="grid(20)", batch=batch))
    assert real(batches, "id", "crop") == [(id, crop) for id in (2, 5, 8) for crop in range(4)]
    assert {len(b["image"]) for b in batches} == {batch}


def test_random_ops_are_the_same_at_every_evaluation(tiny):
    runs = [list(evaluation.to_evaluate(tiny, [4, 9], pp=PP, batch=n)) for n in (1, 2)]
    np.testing.assert_array_equal([b["image"][0] for b in runs[0]], runs[1][0]["image"])


def test_no_pictures_give_no_batches(tiny):
    assert not list(evaluation.to_evaluate(tiny, [], pp="center(16)", batch=4))
    assert not list(evaluation.whole(tiny, np.array([], int), batch=4))
    assert not list(evaluation.whole(tiny, [7], batch=4, process=(1, 2)))


def test_whole_pictures_come_once_to_one_process(tiny):
    parts = [list(evaluation.whole(tiny, np.arange(11), batch=4, process=(i, 2))) for i in range(2)]
    assert real(parts[0], "id") == [(i,) for i in range(0, 11, 2)]
    assert real(parts[1], "id") == [(i,) for i in range(1, 11, 2)]
    assert parts[0][0]["image"].shape == (2, 32, 32, 3)


def test_a_resize_at_the_start_comes_before_the_views(tiny, tmp_path):
    (whole,) = evaluation.whole(tiny, [7], batch=1, pp="resize(20)|crop(16)")
    assert whole["image"].shape == (1, 20, 20, 3)
    writer = Writer(str(tmp_path), 0)
    writer.add(7, 255 - whole["image"])
    writer.close()
    args = {"pp": "resize(20)|crop(16)|flip(0.5)", "views": StoredViews(str(tmp_path), "uint8", 1)}
    for batch in train(tiny, [7], **args):
        np.testing.assert_array_equal(batch["views"][:, 0], 255 - batch["image"])


def test_a_batch_holds_one_shape():
    sides = [4, 4, 4, 5, 5, 4]
    rows = [
        {"image": np.zeros((s, s, 3), np.uint8), "id": np.int32(i)} for i, s in enumerate(sides)
    ]
    batches = list(evaluation.same_shapes(iter(rows), 2))
    assert [b["id"].tolist() for b in batches] == [[0, 1], [2, 2], [3, 4], [5, 5]]
    assert [b["mask"].tolist() for b in batches] == [[1, 1], [1, 0], [1, 1], [1, 0]]
    assert [b["image"].shape for b in batches] == [(2, s, s, 3) for s in (4, 4, 5, 4)]


def test_views_are_cut_as_their_image(tiny, views):
    evaluated = evaluation.to_evaluate(tiny, np.arange(9), pp="grid(20)", batch=4, views=views)
    for batch in (*train(tiny, views=views, count=2), *evaluated):
        assert batch["views"].dtype == np.float16 and batch["views"].shape[1] == 2
        np.testing.assert_array_equal(batch["views"][:, 0], batch["image"])
        np.testing.assert_array_equal(batch["views"][:, 1], 255 - batch["image"])


def test_missing_views_are_named_before_anything_runs(tiny, views):
    message = r"lacks the views of 36 of 96 images, first photo_\S+ \(id 60\).*run the views pass"
    message = message.replace("photo_", "")
    with pytest.raises(FileNotFoundError, match=message):
        evaluation.to_evaluate(tiny, np.arange(96), pp="center(16)", batch=4, views=views)
    with pytest.raises(FileNotFoundError, match="lacks the views of 40"):
        train(tiny, views=StoredViews("nowhere", "uint8", 2))


def test_an_example_is_its_row_of_the_table_with_encoded_pictures(tiny):
    for id in (0, 41):
        (example,) = tiny.examples(np.array([id]))
        assert {key: example[key] for key in ("id", "level")} == {
            "id": id,
            "level": tiny.table["level"][id],
        }
        assert example["name"].decode() == tiny.table["name"][id]
        assert example["image"].startswith(b"\x89PNG") and "reference" in example


def test_what_trains_and_what_evaluates_are_the_same_pixels(tiny):
    """The same operations by TensorFlow and by NumPy, on the same stored bytes."""
    trained = {}
    for batch in train(tiny, pp="center(20)", count=5):
        trained |= dict(zip(batch["id"].tolist(), batch["image"], strict=True))
    for batch in evaluation.to_evaluate(tiny, [*trained], pp="center(20)", batch=8):
        for id, image in zip(batch["id"].tolist(), batch["image"], strict=True):
            np.testing.assert_array_equal(image, trained[id])
