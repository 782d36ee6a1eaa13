"""Data sets as TensorFlow Datasets; the built-in one is made on the spot, without a network.

Every set has a split "rated", and for each distorted image: image and reference, mos
(quality in [0, 1], higher is better), group (what a split may not tear apart), type, level,
name, id (row number from 0) and content (CRC-32 of the RGB pixels). Sets of `prepare` add
native (the score on the set's own scale), part (of the official split) and order (in the file
of labels), and hold each reference once: see `sets`.
"""

import tensorflow as tf
import tensorflow_datasets as tfds

from diffv2iqa_jax.data.sets import catalog, store
from diffv2iqa_jax.data.sets.builtin import Diffv2iqaBuiltin
from diffv2iqa_jax.data.sets.store import SPLIT

# What `prepare` can build: name -> (builder, name of its config).
DATASETS = {
    "builtin/tiny": (Diffv2iqaBuiltin, "tiny"),
    "builtin/small": (Diffv2iqaBuiltin, "small"),
    "builtin/full": (Diffv2iqaBuiltin, "full"),
}


def make(name: str, folder: str) -> tfds.core.DatasetBuilder:
    """The builder of a built-in data set that lies, or shall lie, in `folder`.

    Raises:
      ValueError: unknown name; lists the known ones.
    """
    if name not in DATASETS:
        known = [*sorted(DATASETS), *catalog.SETS, *(f"{family}NAME" for family in catalog.OWN)]
        raise ValueError(f"data set {name!r}: known are {known}")
    builder, config = DATASETS[name]
    return builder(config=config, data_dir=folder, file_format="tfrecord")


def found(name: str, folder: str) -> bool:
    """Whether the data set is there, complete. Raises ValueError for an unknown name."""
    return catalog.complete(name, folder) if catalog.known(name) else _complete(make(name, folder))


def check(name: str, folder: str) -> None:
    """Refuses a name that is unknown, or a set that is not there and cannot be made on the spot.

    Raises:
      ValueError: says which, and the command that prepares it.
    """
    if not found(name, folder) and catalog.known(name):
        family, _, own = name.partition("/")
        how = f"{family} --name {own}" if own else name
        raise ValueError(
            f"data set {name!r} is not in {folder}: prepare it with python -m "
            f"diffv2iqa_jax.data.prepare {how} --source YOUR_DOWNLOAD --folder {folder}"
        )


def opened(name: str, folder: str) -> tfds.core.DatasetBuilder:
    """A data set that is there, to be read. Raises FileNotFoundError if it is not."""
    if not found(name, folder):
        raise FileNotFoundError(f"data set {name!r} is not in {folder}: prepare it first")
    return store.opened(name, folder) if catalog.known(name) else make(name, folder)


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
        builder = make(name, folder)
        try:
            store.write(builder)
        except (OSError, tf.errors.OpError):
            if not found(name, folder):  # else another process was faster
                raise
    builder = opened(name, folder)
    images = builder.info.splits[SPLIT].num_examples
    return {"name": name, "folder": str(builder.data_path), "images": images}


def _complete(builder: tfds.core.DatasetBuilder) -> bool:
    return (builder.data_path / "dataset_info.json").exists()
