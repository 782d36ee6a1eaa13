"""Data sets as TensorFlow Datasets; the built-in one is made on the spot, without a network.

Every set has a split "rated", and for each distorted image: image and reference, mos
(quality in [0, 1], higher is better), group (what a split may not tear apart), type, level,
name, id (row number from 0) and content (CRC-32 of the RGB pixels). Sets of `prepare` add
native (the score on the set's own scale), part (of the official split) and order (in the file
of labels), and hold each reference once: see `sets`.
"""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from diffv2iqa_jax.data.sets import catalog, scenes, store
from diffv2iqa_jax.data.sets.store import SPLIT, content
from diffv2iqa_jax.distortions import builtin
from diffv2iqa_jax.evaluation import full_reference


@dataclasses.dataclass(kw_only=True)
class BuiltinConfig(tfds.core.BuilderConfig):
    """A size of the built-in data set.

    Attributes:
      size: height and width in pixels.
      scenes: how many procedural scenes are references.
      photos: how many crops of photos are references, at most 24.
      every_level: each reference gets all levels of each type; else one level, which turns
        with the reference and the type so that all pairs are equally frequent.
      types: which distortions.
    """

    size: int
    scenes: int
    photos: int
    every_level: bool
    types: tuple[str, ...] = tuple(builtin.TYPES)


# What `small` leaves out. How bright, colourful or contrasty a scene was, only its original can
# tell; damage in one place takes larger pictures than 64 pixels; and a small net that learns to
# undo sharpening softens everything else.
NOT_IN_SMALL = (
    "low_contrast",
    "brighten",
    "darken",
    "desaturate",
    "lost_blocks",
    "sharpen",
)
SMALL_TYPES = tuple(t for t in builtin.TYPES if t not in NOT_IN_SMALL)


class Diffv2iqaBuiltin(tfds.core.GeneratorBasedBuilder):
    """Procedural scenes and photo crops, distorted and rated by HaarPSI against the original."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        BuiltinConfig(name="tiny", size=32, scenes=4, photos=2, every_level=False),
        BuiltinConfig(
            name="small", size=64, scenes=240, photos=24, every_level=False, types=SMALL_TYPES
        ),
        BuiltinConfig(name="full", size=128, scenes=36, photos=24, every_level=True),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        picture = tfds.features.Image(shape=(size, size, 3), encoding_format="png")
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": picture,
                    "reference": picture,
                    "mos": np.float32,
                    "group": tfds.features.Text(),
                    "type": tfds.features.Text(),
                    "level": np.int32,
                    "name": tfds.features.Text(),
                    "id": np.int32,
                    "content": np.int64,
                }
            ),
            disable_shuffling=True,  # records stay in the order of their ids
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        yield from enumerate(_records(self.builder_config))


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


def _references(config: BuiltinConfig) -> Iterator[tuple[str, str, np.ndarray]]:
    """(name, group, picture) of every reference, in order."""
    for index in range(config.scenes):
        name = f"scene_{index:03d}"
        yield name, name, scenes.scene(index, config.size)
    crops = zip(range(config.photos), scenes.photos(config.size), strict=False)
    for index, (photo, picture) in crops:
        yield f"photo_{photo}_{index:02d}", f"photo_{photo}", picture


def _records(config: BuiltinConfig) -> Iterator[dict]:
    number = 0
    for turn, (name, group, reference) in enumerate(_references(config)):
        encoded = _png(reference)
        for place, type in enumerate(config.types):
            one = (1 + (turn + place) % len(builtin.LEVELS),)
            for level in builtin.LEVELS if config.every_level else one:
                image = builtin.degrade(reference, type, level, seed=number)
                yield {
                    "image": _png(image),
                    "reference": encoded,
                    # Small pictures are looked at enlarged: no averaging before comparing.
                    "mos": full_reference.haarpsi(reference, image, subsample=False),
                    "group": group,
                    "type": type,
                    "level": level,
                    "name": f"{name}_{type}_{level}",
                    "id": number,
                    "content": content(image),
                }
                number += 1


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
