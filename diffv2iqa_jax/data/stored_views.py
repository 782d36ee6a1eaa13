"""Views that stage 2 reads instead of restoring: many images' in each file, a shard.

A shard is a safetensors file, whose header says where each image's views lie in it. It is written
whole, so every shard that is there is complete. Any image's views are read by themselves, with one
request, from a local disk as from a bucket.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
import time
from typing import NamedTuple

import numpy as np
import safetensors.numpy
import tensorflow as tf

from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.errors import ConfigError

ENDING = ".safetensors"
OLD = ".views"  # a file for each image, as earlier versions wrote them
BYTES = 32 * 2**20  # of a shard: large enough for few requests, small enough to hold in memory
SECONDS = 60.0  # of work, which is what a kill may lose
HEAD = 2**16  # bytes: a first read that holds the whole header of most shards
AT_ONCE = 32  # headers: from a bucket, each takes a request of some ten milliseconds


class Index(NamedTuple):
    """Where the views of each image lie.

    Attributes:
      shards: their paths.
      ids: int64 (n,), ascending.
      shard: the place in `shards` of each.
      begin, end: int64 (n,), its bytes in that file.
    """

    shards: list[str]
    ids: np.ndarray
    shard: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def place(self, id: int) -> tuple[str, int, int]:
        """The file, and the first and the last but one byte. Raises KeyError."""
        i = np.searchsorted(self.ids, id)
        if i == len(self.ids) or self.ids[i] != id:
            raise KeyError(f"no views of image {id}")
        return self.shards[self.shard[i]], int(self.begin[i]), int(self.end[i])


def index(folder: str) -> Index:
    """Reads the headers of all shards in a folder, which need not be there.

    Raises:
      ConfigError: a file is no shard, is cut short, or is of the layout before shards.
    """
    names = storage.names(folder)
    if any(name.endswith(OLD) for name in names):
        raise ConfigError(
            f"views {folder}: are kept as before, a file for each image, which is no longer read; "
            "delete that folder, and they are made again"
        )
    shards = [f"{folder}/{name}" for name in names if name.endswith(ENDING)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        tables = [np.empty((0, 3), np.int64), *pool.map(_places, shards)]
    ids, begin, end = np.concatenate(tables).T
    shard = np.repeat(np.arange(len(shards)), [len(table) for table in tables[1:]])
    ids, first = np.unique(ids, return_index=True)
    return Index(shards, ids, shard[first], begin[first], end[first])


def _places(shard: str) -> np.ndarray:
    """Rows of (id, begin, end) of a shard, bytes from the start of the file."""
    head = storage.read_range(shard, 0, HEAD)
    data = 8 + int.from_bytes(head[:8], "little")
    if data > len(head):
        head += storage.read_range(shard, len(head), data)
    try:
        header = json.loads(head[8:data])
        rows = [(int(id), *one["data_offsets"]) for id, one in header.items()]
        places = np.array(rows, np.int64).reshape(-1, 3) + [0, data, data]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(_damaged(shard)) from error
    if not storage.is_remote(shard) and places[:, 2].max(initial=data) != os.path.getsize(shard):
        raise ConfigError(_damaged(shard))  # a bucket's object is never cut short
    return places


def _damaged(shard: str) -> str:
    return f"views {shard}: is no complete shard of views; delete it, and they are made again"


@dataclasses.dataclass(frozen=True)
class StoredViews:
    """The views of a data set.

    Attributes:
      folder: of the shards, local or gs://. The tensor `{id:08d}` in one of them has an image's
        views, (count, H, W, 3), of the image as `spec.head(pp)` leaves it.
      dtype: of the numbers, one of `pixels.STORED`.
      count: views of each image.
    """

    folder: str
    dtype: str
    count: int

    @functools.cached_property
    def index(self) -> Index:
        """Where they lie; read once, so not before all are made."""
        return index(self.folder)

    def check(self, ids: np.ndarray, names: np.ndarray) -> None:
        """Refuses views of another type, and names the images that have none.

        Raises:
          ValueError, FileNotFoundError, ConfigError: one line.
        """
        if self.dtype not in pixels.STORED:
            raise ValueError(f"views of type {self.dtype!r}: known are {pixels.STORED}")
        missing = np.asarray(ids)[~np.isin(ids, self.index.ids)]
        if len(missing):
            some = ", ".join(f"{names[id]} (id {id})" for id in missing[:3])
            raise FileNotFoundError(
                f"{self.folder} lacks the views of {len(missing)} of {len(ids)} images, first "
                f"{some}: run the views pass over this data set"
            )

    def read(self, id: int, shape: tuple[int, ...]) -> np.ndarray:
        """The views of one image, (count, *shape); may be called by several threads."""
        data = storage.read_range(*self.index.place(id))
        return np.frombuffer(data, self.dtype).reshape(self.count, *shape)

    def tensor(self, id: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """As `read`, within a graph."""
        stored = tf.numpy_function(self.read, [id, shape], tf.as_dtype(self.dtype), stateful=False)
        return tf.ensure_shape(stored, [self.count, None, None, 3])


class Writer:
    """Writes the views of one process, in shards of BYTES or of SECONDS of work."""

    def __init__(self, folder: str, process: int):
        self._folder, self._process = folder, process
        self._made: dict[int, np.ndarray] = {}
        self._begun = 0.0

    def add(self, id: int, views_VHWC: np.ndarray) -> None:
        """Adds the views of an image; what they are written with is theirs until then."""
        if not self._made:
            self._begun = time.monotonic()
        self._made[int(id)] = views_VHWC
        size = sum(views.nbytes for views in self._made.values())
        if size >= BYTES or time.monotonic() - self._begun >= SECONDS:
            self.close()

    def close(self) -> None:
        """Writes the shard begun, if there is one."""
        if not self._made:
            return
        # No process makes what is there already, so no other shard has these ids' first or last.
        name = f"{self._process:05d}-{min(self._made):08d}-{max(self._made):08d}{ENDING}"
        made, self._made = self._made, {}
        tensors = {f"{id:08d}": np.ascontiguousarray(views) for id, views in made.items()}
        storage.write(f"{self._folder}/{name}", safetensors.numpy.save(tensors))
