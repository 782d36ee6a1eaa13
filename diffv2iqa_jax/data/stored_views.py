"""Views that stage 2 reads instead of restoring: one file of raw numbers for each image."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from diffv2iqa_jax import pixels


class StoredViews(NamedTuple):
    """Where the views of a data set lie.

    Attributes:
      folder: image `id`'s views are the raw little-endian numbers of a (count, H, W, 3) array
        in `folder/{id:08d}.views`, of the image as `spec.head(pp)` leaves it.
      dtype: of the numbers, one of `pixels.STORED`.
      count: views of each image.
    """

    folder: str
    dtype: str
    count: int

    def path(self, id: int) -> str:
        return f"{self.folder}/{id:08d}.views"

    def check(self, ids: np.ndarray, names: np.ndarray) -> None:
        """Refuses views of another type, and names the images that have none.

        Raises:
          ValueError, FileNotFoundError: one line.
        """
        if self.dtype not in pixels.STORED:
            raise ValueError(f"views of type {self.dtype!r}: known are {pixels.STORED}")
        files = set(tf.io.gfile.listdir(self.folder)) if tf.io.gfile.isdir(self.folder) else set()
        missing = [id for id in ids if f"{id:08d}.views" not in files]
        if missing:
            some = ", ".join(f"{names[id]} (id {id})" for id in missing[:3])
            raise FileNotFoundError(
                f"{self.folder} lacks the views of {len(missing)} of {len(ids)} images, first "
                f"{some}: run the views pass over this data set"
            )

    def read(self, id: int, shape: tuple[int, ...]) -> np.ndarray:
        """The views of one image, (count, *shape)."""
        with tf.io.gfile.GFile(self.path(id), "rb") as file:
            return np.frombuffer(file.read(), self.dtype).reshape(self.count, *shape)

    def tensor(self, id: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """As `read`, within a graph."""
        name = tf.strings.as_string(id, width=8, fill="0") + ".views"
        values = tf.io.decode_raw(
            tf.io.read_file(f"{self.folder}/" + name), tf.as_dtype(self.dtype)
        )
        stored = tf.reshape(values, tf.concat([[self.count], shape], axis=0))
        return tf.ensure_shape(stored, [self.count, None, None, 3])
