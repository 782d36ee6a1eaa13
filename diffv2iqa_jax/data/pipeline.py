"""Batches of numpy arrays from a built data set.

Training reads an endless stream in which example number i is a function of (seed, i) alone, so
that a resumed run, or one on another number of hosts, sees the same batches. Evaluation reads
each picture exactly once; what fills up the last batch has mask 0.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from diffv2iqa_jax.data.sets import registry, store
from diffv2iqa_jax.pp import ops_tf as preprocessing
from diffv2iqa_jax.pp import spec

Batches = Iterator[dict[str, np.ndarray]]
StoredViews = tuple[str, str, int]  # folder, dtype, views of each image

ENCODED = ("image", "reference")
KEYS = ("image", "reference", "views", "mos", "id", "content", "draw", "mask", "crop")
VIEW_TYPES = ("float32", "float16", "uint8")
END = np.iinfo(np.int64).max


class Source(NamedTuple):
    """A data set, opened.

    Attributes:
      name: as given to `load`.
      records: examples in the order of their ids, images still encoded.
      table: id, mos, group, type, level, name, content of every record, in that order; and, of
        a set that was prepared, native, part and order.
      read: ids -> their stored records.
      parse: stored record -> example, images still encoded.
      facts: of a set that was prepared: its scale, parts and digest, see `sets.facts`; else {}.
    """

    name: str
    records: tf.data.Dataset
    table: dict[str, np.ndarray]
    read: Callable[[np.ndarray], list[bytes]]
    parse: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    facts: dict


def load(name: str, folder: str) -> Source:
    """Opens a data set that `builder.prepare(name, folder)` has built; reads it through once.

    Raises:
      ValueError: unknown name, or the records' ids are not 0, 1, .., n - 1.
      FileNotFoundError: it was not built in that folder.
    """
    made = registry.opened(name, folder)
    features = made.info.features
    skip = {key: tfds.decode.SkipDecoding() for key in ENCODED if key in features}

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        return features.deserialize_example(record, decoders=skip)

    table, read = _open_split(made, registry.SPLIT, parse)
    if not np.array_equal(table["id"], np.arange(len(table["id"]))):
        raise ValueError(f"data set {name!r} in {folder}: ids are not 0, 1, .., n - 1")
    parse_all = parse
    if "reference_id" in features:  # each original is stored once
        _, read_reference = _open_split(made, store.REFERENCES, parse)

        def parse_all(record: tf.Tensor) -> dict[str, tf.Tensor]:
            ex = parse(record)
            original = parse(_read_one(read_reference, ex.pop("reference_id")))
            return ex | {"reference": original["image"]}

    count = tf.data.Dataset.range(len(table["id"]))
    records = _map(count, lambda id: parse_all(_read_one(read, id)))
    return Source(name, records, table, read, parse_all, dict(made.info.metadata or {}))


def to_train(
    source: Source,
    ids: np.ndarray,
    *,
    pp: str,
    batch: int,
    seed: int,
    start: int,
    views: StoredViews | None = None,
    process: tuple[int, int] = (0, 1),
    cache: bool = True,
) -> Batches:
    """Endless shuffled batches: batch number s holds examples s * batch .. of the stream.

    Each run through all `ids` has its own order. Keys: image, reference (if there), views (if
    given), mos, id, content, draw, mask; see types.py.

    Args:
      source: from `load`.
      ids: the records to train on.
      pp: preprocessing; must bring all pictures to one size, without a crop axis.
      batch: of all processes together.
      seed: of the order and the augmentation.
      start: number of the first batch wanted, from 0.
      views: (folder, dtype, count): picture `id`'s stored views are the raw little-endian bytes
        of a (count, H, W, 3) array in `folder/{id:08d}.views`, of it as `crops.head(pp)` leaves it.
      process: (number of this one, how many); it gets its equal part of each batch's rows, in
        order.
      cache: hold the encoded records in memory, rather than reading them at each visit.

    Raises:
      ValueError: no ids, a batch that the processes do not divide, or an unsuitable `pp`.
      FileNotFoundError: views are missing.
    """
    part, rows = _part(batch, process)
    ids = np.asarray(ids, np.int64)
    if not len(ids):
        raise ValueError(f"{source.name}: no records to train on")
    prepare = _prepare(source, pp, views, ids)
    fetch = _fetch(source, ids, cache)
    order_seed, draw_seed = np.int64(seed), np.uint32(seed % 2**32).view(np.int32)

    def one(position: tf.Tensor) -> dict[str, tf.Tensor]:
        epoch, turn = position // len(ids), position % len(ids)
        key = tf.stack([order_seed, epoch])
        place = tf.random.experimental.index_shuffle(turn, key, np.int64(len(ids) - 1))
        draw = tf.cast(tf.bitwise.bitwise_and(position, np.int64(2**32 - 1)), tf.uint32)
        seed_2 = tf.stack([draw_seed, tf.bitcast(draw, tf.int32)])
        return prepare(fetch(place), seed_2) | {"draw": draw, "mask": tf.ones([])}

    def own(step: tf.Tensor) -> tf.data.Dataset:
        first = step * batch + part * rows
        return tf.data.Dataset.range(first, first + rows)

    positions = tf.data.Dataset.range(start, END).flat_map(own)
    examples = _map(positions, one)
    if "crop" in examples.element_spec:
        raise ValueError(f"{pp!r} makes several crops of a picture; that is for evaluation only")
    return _numpy(examples.batch(rows, drop_remainder=True))


def to_evaluate(
    source: Source,
    ids: np.ndarray,
    *,
    pp: str,
    batch: int,
    views: StoredViews | None = None,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """Every picture, or every crop of it, exactly once, in the order of ids.

    Keys as in training, but for `draw`; and `crop`, the crop's number, where `pp` makes several
    of a picture. The last batch is filled up by its last row with mask 0. All processes get
    the same number of batches. Random ops draw from the picture's content.

    Args and Raises: as `to_train`; no ids give no batches.
    """
    part, rows = _part(batch, process)
    ids = np.sort(np.asarray(ids, np.int64))
    if not len(ids):
        return iter(())
    prepare = _prepare(source, pp, views, ids)

    def one(id: tf.Tensor, real: tf.Tensor) -> dict[str, tf.Tensor]:
        ex = source.parse(_read_one(source.read, id))
        return prepare(ex, preprocessing.seed_of(ex["content"])) | {"mask": real}

    padded = np.append(ids, np.repeat(ids[-1:], -len(ids) % batch))
    own = np.arange(len(padded)) % batch // rows == part
    real = (np.arange(len(padded)) < len(ids)).astype(np.float32)
    several = lambda *chosen: _map(tf.data.Dataset.from_tensor_slices(chosen), one)
    examples = several(padded[own], real[own])
    if "crop" in examples.element_spec:
        # How many crops there are is known only once all pictures are decoded, so every
        # process does that and keeps its own rows.
        crops = several(ids, real[: len(ids)]).flat_map(_crops).batch(batch)
        return _own_rows(_numpy(crops), batch, slice(part * rows, (part + 1) * rows))
    return _numpy(examples.batch(rows, drop_remainder=True))


def whole(
    source: Source,
    ids: np.ndarray,
    *,
    pp: str = "",
    batch: int,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """As `to_evaluate`, whole pictures: a batch holds consecutive pictures of one shape.

    A batch is closed, and filled up, where the shape changes. Of `pp`, only what comes before a
    restoration is done, see `crops.head`. Process i of n takes every n-th picture from the i-th
    on, by itself: numbers of batches differ.
    """
    part, rows = _part(batch, process)
    own = np.sort(np.asarray(ids, np.int64))[part :: process[1]]
    if not len(own):
        return iter(())
    prepare = _prepare(source, spec.head(pp)[0], None, own)

    def one(id: tf.Tensor) -> dict[str, tf.Tensor]:
        return prepare(source.parse(_read_one(source.read, id)), tf.zeros(2, tf.int32))

    ds = _map(tf.data.Dataset.from_tensor_slices(own), one)
    return _same_shapes(_numpy(ds), rows)


def _part(batch: int, process: tuple[int, int]) -> tuple[int, int]:
    """This process's number, and how many rows of each batch are its own."""
    number, count = process
    if not 0 <= number < count:
        raise ValueError(f"process={process} must be (number from 0, how many)")
    if batch < 1 or batch % count:
        raise ValueError(f"batch={batch} must be a multiple of the {count} processes")
    return number, batch // count


def _read_at(files: list[str], place: np.ndarray) -> list[bytes]:
    """The records at each (file, start, length); each file is opened once and read forwards."""
    records = [b""] * len(place)
    for number, file in enumerate(files):
        wanted = np.flatnonzero(place[:, 0] == number)
        if not len(wanted):
            continue
        with tf.io.gfile.GFile(file, "rb") as opened:
            for i in wanted[np.argsort(place[wanted, 1])]:
                opened.seek(int(place[i, 1]))
                records[i] = opened.read(int(place[i, 2]))
    return records


def _open_split(made: tfds.core.DatasetBuilder, split: str, parse: Callable):
    """(table, function ids -> stored records) of one split."""
    files = [str(path) for path in made.info.splits[split].filepaths]
    table, place = _scan(files, parse)
    return table, lambda ids: _read_at(files, place[ids])


def _read_one(read: Callable[[np.ndarray], list[bytes]], id: tf.Tensor) -> tf.Tensor:
    record = tf.numpy_function(lambda id: read(id[None])[0], [id], tf.string, stateful=False)
    return tf.ensure_shape(record, [])


def _scan(files: list[str], parse: Callable) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Reads all records once: the table, and (file, start, length) of each, in order of id."""

    def row(record: tf.Tensor) -> dict[str, tf.Tensor]:
        ex = {key: x for key, x in parse(record).items() if key not in ENCODED}
        return ex | {"length": tf.strings.length(record)}

    columns, place = [], []
    for number, file in enumerate(files):
        rows = _map(tf.data.TFRecordDataset(file), row)
        chunks = list(_numpy(rows.batch(1024)))
        chunk = {key: np.concatenate([c[key] for c in chunks]) for key in chunks[0]}
        length = chunk.pop("length").astype(np.int64)
        # A record stands between 12 bytes (its length and that one's checksum) and 4 (its own).
        start = np.cumsum(length + 16) - length - 4
        columns.append(chunk)
        place.append(np.stack([np.full_like(start, number), start, length], axis=1))
    table = {key: np.concatenate([c[key] for c in columns]) for key in columns[0]}
    order = np.argsort(table["id"], kind="stable")
    table = {key: _plain(x[order]) for key, x in table.items()}
    table["content"] = table["content"].astype(np.uint32)
    return table, np.concatenate(place)[order]


def _plain(x: np.ndarray) -> np.ndarray:
    """Text as numpy's str rather than objects of bytes."""
    return np.array([text.decode() for text in x]) if x.dtype == object else x


def _fetch(source: Source, ids: np.ndarray, cache: bool) -> Callable:
    """The function place in `ids` -> example, images still encoded."""
    if cache:
        records = tf.constant(np.array(source.read(ids), object))
        return lambda place: source.parse(records[place])
    return lambda place: source.parse(_read_one(source.read, tf.gather(ids, place)))


def _prepare(source: Source, pp: str, views: StoredViews | None, ids: np.ndarray) -> Callable:
    """The function (encoded example, seed) -> example as it stands in a batch."""
    first, run = (preprocessing.parse(part) for part in spec.head(pp))
    if views is not None:
        _check_views(views, ids, source.table["name"])

    def prepare(ex: dict[str, tf.Tensor], seed_2: tf.Tensor) -> dict[str, tf.Tensor]:
        for key in ENCODED:
            if key in ex:
                ex[key] = tf.ensure_shape(_decoded(ex[key]), [None, None, 3])
        ex["content"] = tf.cast(ex["content"], tf.uint32)
        ex = first(ex | {"seed": seed_2})
        if views is not None:
            ex["views"] = _read_views(views, ex["id"], tf.shape(ex["image"]))
        ex = run(ex)
        return {key: ex[key] for key in KEYS if key in ex}

    return prepare


def _decoded(data: tf.Tensor) -> tf.Tensor:
    """Pixels as Pillow has them, so that a file scored by itself is the same image.

    TensorFlow's own choice of JPEG arithmetic differs by a few grey levels, and is no faster.
    """
    accurate = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
    return tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, **accurate),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )


def _check_views(views: StoredViews, ids: np.ndarray, names: np.ndarray) -> None:
    folder, dtype, _ = views
    if dtype not in VIEW_TYPES:
        raise ValueError(f"views of type {dtype!r}: known are {VIEW_TYPES}")
    there = set(tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else set()
    missing = [id for id in ids if f"{id:08d}.views" not in there]
    if missing:
        some = ", ".join(f"{names[id]} (id {id})" for id in missing[:3])
        raise FileNotFoundError(
            f"{folder} lacks the views of {len(missing)} of {len(ids)} images, first {some}: "
            "run the views pass over this data set"
        )


def _read_views(views: StoredViews, id: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    folder, dtype, count = views
    name = tf.strings.as_string(id, width=8, fill="0") + ".views"
    values = tf.io.decode_raw(tf.io.read_file(folder + "/" + name), tf.as_dtype(dtype))
    stored = tf.reshape(values, tf.concat([[count], shape], axis=0))
    return tf.ensure_shape(stored, [count, None, None, 3])


def _crops(ex: dict[str, tf.Tensor]) -> tf.data.Dataset:
    """An example of several crops -> one example of each."""
    several = {*preprocessing.PICTURES, "crop"}
    count = tf.size(ex["crop"])
    spread = {k: x if k in several else tf.repeat(x[None], count) for k, x in ex.items()}
    return tf.data.Dataset.from_tensor_slices(spread)


def _filled(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Fills a batch up to `size` rows with its last one; the mask tells them apart."""
    real = len(batch["id"])
    batch = {k: np.concatenate([x, np.repeat(x[-1:], size - real, 0)]) for k, x in batch.items()}
    return batch | {"mask": (np.arange(size) < real).astype(np.float32)}


def _own_rows(batches: Batches, size: int, own: slice) -> Batches:
    for batch in batches:
        yield {key: x[own] for key, x in _filled(batch, size).items()}


def _same_shapes(examples: Batches, size: int) -> Batches:
    for _, run in itertools.groupby(examples, lambda ex: ex["image"].shape):
        while rows := list(itertools.islice(run, size)):
            yield _filled({key: np.stack([ex[key] for ex in rows]) for key in rows[0]}, size)


def _map(ds: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps in parallel and in order; without AutoGraph, which would rewrite our code."""
    traced = tf.autograph.experimental.do_not_convert(function)
    return ds.map(traced, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _numpy(ds: tf.data.Dataset) -> Batches:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = min(os.cpu_count() or 1, 32)
    options.threading.max_intra_op_parallelism = 1  # parallel over examples, not within one
    return ds.prefetch(2).with_options(options).as_numpy_iterator()
