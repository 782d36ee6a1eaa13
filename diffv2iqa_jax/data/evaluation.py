"""Batches to evaluate on: each picture exactly once, cut by the operations that scoring uses.

So the score of a file is the number that its evaluation gave, by construction. What fills up a
last batch has mask 0. Only reading the records takes TensorFlow.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from diffv2iqa_jax.data.reading import Source
from diffv2iqa_jax.data.stored_views import StoredViews
from diffv2iqa_jax.pp import decode, ops_numpy, spec
from diffv2iqa_jax.pp.ahead import CORES, in_order

Batches = Iterator[dict[str, np.ndarray]]
Row = dict[str, Any]


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

    Keys: image, reference (where the set has it), views (if given), mos, id, content, mask; and
    crop, the crop's number, where `pp` makes several of a picture. The last batch is filled up by
    its last row with mask 0. All processes get the same number of batches. Random operations draw
    from the picture's content.

    Args:
      source: from `reading.load`.
      ids: the records wanted; none give no batches.
      pp: the preprocessing, see `pp.spec`.
      batch: rows of all processes together.
      views: stored views, which are cut as their picture.
      process: (number of this one, how many); it gets its equal part of each batch's rows, in
        order.

    Raises:
      ValueError: a batch that the processes do not divide, or an unsuitable `pp`.
      FileNotFoundError: views are missing.
    """
    number, share = own_share(batch, process)
    ids = np.sort(np.asarray(ids, np.int64))
    if not len(ids):
        return iter(())
    rows_of = _rows_of(source, ids, pp, views)
    if ops_numpy.makes_several(pp):
        # How many crops there are is known only once all pictures are decoded, so every
        # process does that and keeps its own rows.
        rows = _rows(source, ids, rows_of)
        return _own_rows(_chunks(rows, batch), batch, slice(number * share, (number + 1) * share))
    padded = np.append(ids, np.repeat(ids[-1:], -len(ids) % batch))
    own = np.arange(len(padded)) % batch // share == number
    mask = (np.arange(len(padded)) < len(ids)).astype(np.float32)[own]
    rows = zip(_rows(source, padded[own], rows_of), mask, strict=True)
    masked = (row | {"mask": real} for row, real in rows)
    return map(_stacked, _chunks(masked, share))


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
    restoration is done, see `spec.head`. Process i of n takes every n-th picture from the i-th
    on, by itself: numbers of batches differ.
    """
    number, share = own_share(batch, process)
    own = np.sort(np.asarray(ids, np.int64))[number :: process[1]]
    rows_of = _rows_of(source, own, spec.head(pp)[0], None)
    return same_shapes(_rows(source, own, rows_of), share)


def own_share(batch: int, process: tuple[int, int]) -> tuple[int, int]:
    """This process's number, and how many rows of each batch are its own.

    Raises:
      ValueError: there is no such process, or the batch is no multiple of their count.
    """
    number, count = process
    if not 0 <= number < count:
        raise ValueError(f"process={process} must be (number from 0, how many)")
    if batch < 1 or batch % count:
        raise ValueError(f"batch={batch} must be a multiple of the {count} processes")
    return number, batch // count


def _rows_of(
    source: Source, ids: np.ndarray, pp: str, views: StoredViews | None
) -> Callable[[dict[str, Any]], list[Row]]:
    """The function encoded example -> the rows that its crops are in a batch."""
    before_views, pipeline = (ops_numpy.parse(text, with_reference=True) for text in spec.head(pp))
    several = ops_numpy.makes_several(pp)
    if views is not None:
        views.check(ids, source.table["name"])

    def rows(example: dict[str, Any]) -> list[Row]:
        id = example["id"]
        content = np.uint32(source.table["content"][id])
        image = decode.pixels_of(example["image"])
        reference = decode.pixels_of(example["reference"]) if "reference" in example else None
        (picture,) = before_views(image, content, reference_HWC=reference)
        stored = None if views is None else views.read(id, picture.image_HWC.shape)
        crops = pipeline(picture.image_HWC, content, stored, reference_HWC=picture.reference_HWC)
        facts = {
            "mos": np.float32(example["mos"]),
            "id": np.int32(id),
            "content": content,
        }
        return [
            _row(crop) | facts | ({"crop": np.int32(place)} if several else {})
            for place, crop in enumerate(crops)
        ]

    return rows


def _rows(
    source: Source, ids: np.ndarray, rows_of: Callable[[dict[str, Any]], list[Row]]
) -> Iterator[Row]:
    """The rows of these ids, in order: of each thread one picture in work, and one that is done."""
    examples = source.examples(ids)
    return itertools.chain.from_iterable(
        in_order(rows_of, examples, workers=CORES, window=2 * CORES)
    )


def _row(crop: ops_numpy.Crop) -> Row:
    pictures = {
        "image": crop.image_HWC,
        "reference": crop.reference_HWC,
        "views": crop.views_VHWC,
    }
    return {key: x for key, x in pictures.items() if x is not None}


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _stacked(rows: list[Row]) -> dict[str, np.ndarray]:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _filled(rows: list[Row], size: int) -> dict[str, np.ndarray]:
    """A batch of `size` rows, filled up with the last one; the mask tells them apart."""
    filled = _stacked(rows + rows[-1:] * (size - len(rows)))
    return filled | {"mask": (np.arange(size) < len(rows)).astype(np.float32)}


def _own_rows(chunks: Iterable[list[Row]], size: int, own: slice) -> Batches:
    for rows in chunks:
        yield {key: x[own] for key, x in _filled(rows, size).items()}


def same_shapes(rows: Iterable[Row], size: int) -> Batches:
    """Batches of consecutive rows whose images have one shape, each filled up to `size`."""
    for _, alike in itertools.groupby(rows, lambda row: row["image"].shape):
        for chunk in _chunks(alike, size):
            yield _filled(chunk, size)
