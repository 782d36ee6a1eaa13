"""Records of tfrecord files: where each one lies and what it holds, without a TensorFlow graph."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from diffv2iqa_jax import storage

Value = bytes | int | float


class Records:
    """The records of some files, in the order of their number `id`.

    Attributes:
      table: every field but the encoded pictures, (N,) each; text as str.
    """

    def __init__(self, files: list[str], pictures: tuple[str, ...]):
        """Reads all records once.

        Args:
          files: tfrecord files, local or in a bucket.
          pictures: fields that stay out of the table.
        """
        self._files = files
        rows, places = [], []
        for number, path in enumerate(files):
            with storage.path(path).open("rb") as file:
                for start, length in spans(file, path):
                    file.seek(start)
                    row = fields(file.read(length))
                    rows.append({k: x for k, x in row.items() if k not in pictures})
                    places.append((number, start, start + length))
        order = np.argsort([row["id"] for row in rows], kind="stable")
        self._places = np.array(places, np.int64).reshape(-1, 3)[order]
        columns = rows[0] if rows else {}
        self.table = {key: _column(key, [rows[i][key] for i in order]) for key in columns}

    def read(self, ids: np.ndarray) -> list[bytes]:
        """The stored records of these ids."""
        places = self._places[ids].tolist()
        return storage.read_ranges([(self._files[n], begin, end) for n, begin, end in places])


def spans(file: BinaryIO, name: str) -> Iterator[tuple[int, int]]:
    """(start, length) of each record: it stands between 12 bytes (its length, a checksum) and 4.

    The file may be read elsewhere meanwhile. Read forwards, a bucket's comes in a few requests.

    Raises:
      ValueError: the file ends within a record.
    """
    at, size = 0, file.seek(0, os.SEEK_END)
    while at < size:
        file.seek(at)
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if at + length + 16 > size:
            raise ValueError(f"{name}: is cut short, or no tfrecord file; write it again")
        yield at + 12, length
        at += length + 16


def fields(record: bytes) -> dict[str, Value]:
    """The values of a stored example whose features hold one value each."""
    features = tf.train.Example.FromString(record).features.feature
    values = {key: getattr(x, x.WhichOneof("kind")).value for key, x in features.items()}
    return {key: value[0] for key, value in values.items()}


def _column(key: str, values: list[Value]) -> np.ndarray:
    """One field of all records, in the type that batches and splits have it in."""
    if isinstance(values[0], bytes):
        return np.array([text.decode() for text in values])
    if key == "content":
        return np.array(values, np.int64).astype(np.uint32)
    return np.array(values, np.int32 if isinstance(values[0], int) else np.float32)
