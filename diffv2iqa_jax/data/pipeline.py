"""Training batches by tf.data: an endless stream of numpy arrays from a prepared data set.

Example number i of the stream is a function of (seed, i) alone, so that a resumed run, or one on
another number of hosts, sees the same batches. `data.order` shuffles.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf

from diffv2iqa_jax.data import order
from diffv2iqa_jax.data.evaluation import own_share
from diffv2iqa_jax.data.reading import ENCODED, Source, read_one
from diffv2iqa_jax.data.stored_views import StoredViews
from diffv2iqa_jax.pp import ops_tf, spec

Batches = Iterator[dict[str, np.ndarray]]
Example = dict[str, tf.Tensor]

KEYS = ("image", "reference", "views", "mos", "id", "content", "draw", "mask")
END = np.iinfo(np.int64).max
AT_ONCE = 1024  # positions to order: alone each would take milliseconds, so it is one microsecond


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
      source: from `reading.load`.
      ids: the records to train on.
      pp: preprocessing; must bring all pictures to one size, without a crop axis.
      batch: of all processes together.
      seed: of the order and the augmentation.
      start: number of the first batch wanted, from 0.
      views: stored views of the pictures as `spec.head(pp)` leaves them.
      process: (number of this one, how many); it gets its equal part of each batch's rows, in
        order.
      cache: hold the encoded records in memory, rather than reading them at each visit.

    Raises:
      ValueError: no ids, a batch that the processes do not divide, or an unsuitable `pp`.
      FileNotFoundError: views are missing.
    """
    number, share = own_share(batch, process)
    ids = np.asarray(ids, np.int64)
    if not len(ids):
        raise ValueError(f"{source.name}: no records to train on")
    prepare = _prepare(source, pp, views, ids)
    fetch = _fetch(source, ids, cache)

    def example(position: tf.Tensor, place: tf.Tensor) -> Example:
        draw, seed_2 = draw_and_seed(position, seed)
        return prepare(fetch(place), seed_2) | {"draw": draw, "mask": tf.ones([])}

    shuffled = {"count": len(ids), "seed": seed}
    own = (number * share, share)
    return stream(example, pp, **shuffled, start=start, batch=batch, own=own)


def draw_and_seed(position: tf.Tensor, seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """An example's `draw`, uint32, and the seed of its augmentation, int32 (2,)."""
    draw = tf.cast(tf.bitwise.bitwise_and(position, np.int64(2**32 - 1)), tf.uint32)
    both = seed % 2**32 ^ (seed >> 32) * 0x9E3779B1 % 2**32  # halves of the seed, in 32 bits
    own_seed = np.uint32(both).view(np.int32)
    return draw, tf.stack([own_seed, tf.bitcast(draw, tf.int32)])


def stream(
    example: Callable[[tf.Tensor, tf.Tensor], Example],
    pp: str,
    *,
    count: int,
    seed: int,
    start: int,
    batch: int,
    own: tuple[int, int],
) -> Batches:
    """Batches from number `start` on of the stream of examples, as numpy arrays.

    Args:
      example: (position in the stream, its place among the records), both int64 -> its example.
      pp: the preprocessing in it, for the message.
      count: of the records.
      seed: of the order.
      own: (first, how many) of each batch's rows are wanted.

    Raises:
      ValueError: the examples have a crop axis.
    """
    first, rows = own
    steps = -(-AT_ONCE // rows)
    ahead = (np.arange(steps)[:, None] * batch + first + np.arange(rows)).ravel()

    def numbered(step: tf.Tensor) -> tf.data.Dataset:
        position = step * batch + ahead
        find = partial(order.places, count=count, seed=seed)
        place = tf.numpy_function(find, [position], tf.int64, stateful=False)
        return tf.data.Dataset.from_tensor_slices((position, tf.ensure_shape(place, ahead.shape)))

    numbers = tf.data.Dataset.range(start, END, steps).flat_map(numbered)
    # Without AutoGraph, which would rewrite our code.
    traced = tf.autograph.experimental.do_not_convert(example)
    examples = numbers.map(traced, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if "crop" in examples.element_spec:
        raise ValueError(f"{pp!r} makes several crops of a picture; that is for evaluation only")
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = min(os.cpu_count() or 1, 32)
    options.threading.max_intra_op_parallelism = 1  # parallel over examples, not within one
    batches = examples.batch(rows, drop_remainder=True).prefetch(2).with_options(options)
    return batches.as_numpy_iterator()


def decoded(data: tf.Tensor) -> tf.Tensor:
    """Stored bytes -> uint8 RGB, the pixels that `pp.decode.pixels_of` has of them.

    TensorFlow's own choice of JPEG arithmetic differs by a few grey levels, and is no faster.
    """
    accurate = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
    return tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, **accurate),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )


def _fetch(source: Source, ids: np.ndarray, cache: bool) -> Callable[[tf.Tensor], Example]:
    """The function place in `ids` -> example, images still encoded."""
    if cache:
        records = tf.constant(np.array(source.read(ids), object))
        return lambda place: source.parse(records[place])
    return lambda place: source.parse(read_one(source.read, tf.gather(ids, place)))


def _prepare(source: Source, pp: str, views: StoredViews | None, ids: np.ndarray) -> Callable:
    """The function (encoded example, seed) -> example as it stands in a batch."""
    before_views, pipeline = (ops_tf.parse(text) for text in spec.head(pp))
    if views is not None:
        views.check(ids, source.table["name"])

    def prepare(example: Example, seed_2: tf.Tensor) -> Example:
        for key in ENCODED:
            if key in example:
                example[key] = tf.ensure_shape(decoded(example[key]), [None, None, 3])
        example["content"] = tf.cast(example["content"], tf.uint32)
        example = before_views(example | {"seed": seed_2})
        if views is not None:
            example["views"] = views.tensor(example["id"], tf.shape(example["image"]))
        example = pipeline(example)
        wanted = (*KEYS, "crop")
        return {key: example[key] for key in wanted if key in example}

    return prepare
