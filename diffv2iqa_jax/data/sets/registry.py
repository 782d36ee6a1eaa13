"""Data sets as TensorFlow Datasets; the built-in one is made on the spot, without a network.

Every set has a split "rated", and for each distorted image: image and reference, mos
(quality in [0, 1], higher is better), group (what a split may not tear apart), type, level,
name, id (row number from 0) and content (CRC-32 of the RGB pixels). Sets of `prepare` add
native (the score on the set's own scale), part (of the official split) and order (in the file
of labels), and hold each reference once: see `store`. What needs names and files alone is in
`catalog`, which does not wait for TensorFlow.
"""

import tensorflow as tf
import tensorflow_datasets as tfds

from diffv2iqa_jax.data.sets import builtin, store
from diffv2iqa_jax.data.sets.builtin import Diffv2iqaBuiltin
from diffv2iqa_jax.data.sets.catalog import BUILTIN, SETS, check, found, known
from diffv2iqa_jax.data.sets.store import SPLIT


def make(name: str, folder: str) -> Diffv2iqaBuiltin:
    """The builder of a built-in data set that lies, or shall lie, in `folder`.

    Raises:
      ValueError: no such built-in set.
    """
    if name not in BUILTIN:
        raise ValueError(f"data set {name!r}: built in are {sorted(BUILTIN)}")
    return Diffv2iqaBuiltin(config=BUILTIN[name], data_dir=folder, file_format="tfrecord")


def labels(name: str) -> str:
    """What the labels are of a set whose facts do not say it, see `catalog.Set`."""
    if name in BUILTIN:
        return builtin.LABELS
    return SETS[name].opinions if name in SETS else "given"


def opened(name: str, folder: str) -> tfds.core.DatasetBuilder:
    """A data set that is there, to be read. Raises FileNotFoundError if it is not."""
    if not found(name, folder):
        raise FileNotFoundError(f"data set {name!r} is not in {folder}: prepare it first")
    return store.opened(name, folder) if known(name) else make(name, folder)


def prepare(name: str, folder: str) -> dict:
    """Builds the data set in `folder` unless it is there.

    It is written beside its place and renamed when complete, so that a killed build leaves
    nothing that could be taken for a data set, and of two at once the first one counts.

    Returns:
      name, folder (where its files lie), images (how many).

    Raises:
      ValueError: unknown name; lists the known ones. Or a set that needs a download.
    """
    check(name, folder)
    if not found(name, folder):
        try:
            store.write(make(name, folder))
        except (OSError, tf.errors.OpError):
            if not found(name, folder):  # else another process was faster
                raise
    builder = opened(name, folder)
    images = builder.info.splits[SPLIT].num_examples
    return {"name": name, "folder": str(builder.data_path), "images": images}
