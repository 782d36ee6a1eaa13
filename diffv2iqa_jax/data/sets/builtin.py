"""The built-in set: procedural scenes and photo crops, distorted and rated by a formula."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.data.sets.catalog import BUILTIN
from diffv2iqa_jax.data.sets.store import SPLIT, content, png
from diffv2iqa_jax.distortions import degrade
from diffv2iqa_jax.evaluation import full_reference


@dataclasses.dataclass(kw_only=True)
class BuiltinConfig(tfds.core.BuilderConfig):
    """A size of the built-in data set.

    Attributes:
      size: height and width in pixels.
      scenes: how many procedural scenes are references.
      photos: how many crops of photos are references, at most 24.
      every_level: each reference gets all levels of each type; else one level, which changes
        from reference to reference and from type to type, so that all pairs are equally frequent.
      types: the distortions' names.
    """

    size: int
    scenes: int
    photos: int
    every_level: bool
    types: tuple[str, ...] = tuple(degrade.TYPES)


LABELS = "formula HaarPSI"  # what the labels are, see `catalog.Set`
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


SMALL_TYPES = tuple(t for t in degrade.TYPES if t not in NOT_IN_SMALL)


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
        yield from enumerate(records(self.builder_config))


def groups(name: str) -> list[str]:
    """What a split may not tear apart, of each reference of a built-in set; draws no picture."""
    config = next(c for c in Diffv2iqaBuiltin.BUILDER_CONFIGS if c.name == BUILTIN[name])
    crops = [file.split(".")[0] for file, squares in scenes.PHOTOS.items() for _ in squares]
    drawn = [f"scene_{index:03d}" for index in range(config.scenes)]
    return [*drawn, *(f"photo_{photo}" for photo in crops[: config.photos])]


def _references(config: BuiltinConfig) -> Iterator[tuple[str, str, np.ndarray]]:
    """(name, group, picture) of every reference, in order."""
    for index in range(config.scenes):
        name = f"scene_{index:03d}"
        yield name, name, scenes.scene(index, config.size)
    crops = zip(range(config.photos), scenes.photos(config.size), strict=False)
    for index, (photo, picture) in crops:
        yield f"photo_{photo}_{index:02d}", f"photo_{photo}", picture


def records(config: BuiltinConfig) -> Iterator[dict[str, Any]]:
    """Every record of the set, in the order of ids."""
    number = 0
    for turn, (name, group, reference) in enumerate(_references(config)):
        encoded = png(Image.fromarray(reference))
        for place, type in enumerate(config.types):
            single_level = (1 + (turn + place) % len(degrade.LEVELS),)
            for level in degrade.LEVELS if config.every_level else single_level:
                image = degrade.degrade(reference, type, level, seed=number)
                yield {
                    "image": png(Image.fromarray(image)),
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
