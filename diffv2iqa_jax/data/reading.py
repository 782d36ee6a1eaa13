"""A prepared data set, opened: its table, its stored records, its facts."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from diffv2iqa_jax.data.records import Records, fields
from diffv2iqa_jax.data.sets import registry, store

ENCODED = ("image", "reference")
AT_ONCE = 32  # records: opening a file for each takes as long as decoding a small picture


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, opened.

    Attributes:
      name: as given to `load`.
      table: id, mos, group, type, level, name, content of every record, in the order of ids;
        and, of a set that was prepared, native, part and order.
      read: ids -> their stored records.
      parse: stored record -> example as tensors, images still encoded; for tf.data.
      originals: the records of the references, where each is stored once.
      facts: of a set that was prepared: its scale, parts and digest, see `sets.facts.of`; else {}.
    """

    name: str
    table: dict[str, np.ndarray]
    read: Callable[[np.ndarray], list[bytes]]
    parse: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    originals: Records | None
    facts: dict[str, Any]

    def examples(self, ids: np.ndarray) -> Iterator[dict[str, Any]]:
        """The records of these ids: rows of the table, image and reference still encoded."""
        for start in range(0, len(ids), AT_ONCE):
            examples = [fields(record) for record in self.read(ids[start : start + AT_ONCE])]
            if self.originals is not None:
                references = np.array([example.pop("reference_id") for example in examples])
                for example, record in zip(examples, self.originals.read(references), strict=True):
                    example["reference"] = fields(record)["image"]
            yield from examples


def load(name: str, folder: str) -> Source:
    """Opens a data set that `registry.prepare(name, folder)` has built; reads it through once.

    Raises:
      ValueError: unknown name, or the records' ids are not 0, 1, .., n - 1.
      FileNotFoundError: it was not built in that folder.
    """
    builder = registry.opened(name, folder)
    features = builder.info.features
    skip = {key: tfds.decode.SkipDecoding() for key in ENCODED if key in features}

    def deserialized(record: tf.Tensor) -> dict[str, tf.Tensor]:
        return features.deserialize_example(record, decoders=skip)

    records = Records(_files(builder, store.SPLIT), ENCODED)
    if not np.array_equal(records.table["id"], np.arange(len(records.table["id"]))):
        raise ValueError(f"data set {name!r} in {folder}: ids are not 0, 1, .., n - 1")
    parse, originals = deserialized, None
    if "reference_id" in features:  # each original is stored once
        originals = Records(_files(builder, store.REFERENCES), ENCODED)

        def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
            example = deserialized(record)
            original = deserialized(read_one(originals.read, example.pop("reference_id")))
            return example | {"reference": original["image"]}

    facts = dict(builder.info.metadata or {})
    return Source(name, records.table, records.read, parse, originals, facts)


def read_one(read: Callable[[np.ndarray], list[bytes]], id: tf.Tensor) -> tf.Tensor:
    """One stored record, within a graph."""
    record = tf.numpy_function(lambda id: read(id[None])[0], [id], tf.string, stateful=False)
    return tf.ensure_shape(record, [])


def _files(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    return [str(path) for path in builder.info.splits[split].filepaths]
