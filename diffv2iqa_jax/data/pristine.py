"""Pristine photos as an endless source: crops on the host, distortions on the device.

A training batch holds `reference` only; the training step draws what happens to it
(`tasks.distorting`). Photos held out are distorted by fixed types and levels, on the device too,
so that evaluation sees whole batches as from any other data set.
"""

import functools
import itertools
import logging
import zlib
from collections.abc import Iterator

import jax
import numpy as np
import tensorflow as tf

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.data import order, pipeline, splits
from diffv2iqa_jax.data.evaluation import own_share
from diffv2iqa_jax.data.interface import Batches
from diffv2iqa_jax.data.sets.catalog import PRISTINE as NAME
from diffv2iqa_jax.data.shelf import Shelf
from diffv2iqa_jax.distortions.kadid import distort
from diffv2iqa_jax.distortions.names import PAIRS, TYPES
from diffv2iqa_jax.evaluation import haarpsi
from diffv2iqa_jax.pp import ops_numpy, ops_tf

LOG = logging.getLogger(__name__)


class Pristine:
    """The parts of a collection of photos, split by file; see `interface.Data`.

    Args:
      settings: the section `data` of a configuration.
      val_images: rows of the validation part at most.
      process: (number of this one, how many).

    Attributes:
      train_ids: places of the photos to train on.
      val_ids, test_ids: rows of `table`, the held-out photos as they are distorted.
      table: id, group (the photo), type, level, name, content of every row.

    Raises:
      ValueError: no photos, too few of them, or too many damaged ones.
    """

    def __init__(self, settings: dict, val_images: int, process: tuple[int, int] = (0, 1)):
        self._settings, self._process = settings, process
        self._shelf = Shelf(settings["folder"], settings["cache"])
        names = np.array(self._shelf.names)
        parts = splits.split(names, settings["split"], fractions=tuple(settings["fractions"]))
        self._digest = splits.digest(*parts)
        self.train_ids, val, test = parts
        shelf = self._shelf
        if settings["distort"]["test"]:
            shelf = Shelf(settings["distort"]["test"])
            test = np.arange(len(shelf.names))
        if not len(test):
            raise ValueError("no photos to test on: name some in distort.test, or give fractions")
        pairs = settings["distort"]["pairs"]
        rows = [*_rows(self._shelf, val, pairs)]
        self.val_ids = np.arange(len(rows), dtype=np.int32)[:: -(-len(rows) // val_images) or 1]
        first = len(rows)
        rows += _rows(shelf, test, pairs)
        self.test_ids = np.arange(first, len(rows), dtype=np.int32)
        for one in (self._shelf, shelf):
            one.check()
        self._photo = [row.pop("photo") for row in rows]
        self.table = {k: np.array([row[k] for row in rows]) for k in (rows[0] if rows else ())}
        self.table["id"] = np.arange(len(rows), dtype=np.int32)
        text = "%s: %d photos to train on, %d and %d images to validate and test with"
        LOG.info(text, NAME, len(self.train_ids), len(self.val_ids), len(self.test_ids))

    def _pp(self, key: str) -> str:
        return self._settings[key].format(size=self._settings["size"])

    def train(self, start: int) -> Batches:
        """Endless batches of reference, id, content, draw, mask; number `start` comes first.

        Example i is a function of (split, i) alone, as in `pipeline.to_train`. In place of a
        damaged photo stands the next one of the order.
        """
        s = self._settings
        args = {"pp": self._pp("pp_train"), "batch": s["batch"], "seed": s["split"]}
        return to_train(self._shelf, self.train_ids, **args, start=start, process=self._process)

    def test(self, ids: np.ndarray, *, alone: bool = False) -> Batches:
        """The rows of those ids, once each in their order; the last batch is filled up, mask 0.

        Keys: image, reference, mos, id, content, mask.
        """
        ids = np.sort(np.asarray(ids, np.int64))
        batch = self._settings["batch"]
        number, share = own_share(batch, (0, 1) if alone else self._process)
        padded = np.append(ids, np.repeat(ids[-1:], -len(ids) % batch))
        own = np.arange(len(padded)) % batch // share == number
        real = (np.arange(len(padded)) < len(ids)).astype(np.float32)
        prepare = functools.lru_cache(maxsize=1)(self._prepared)  # a photo's rows are neighbours
        rows = zip(padded[own], real[own], strict=True)
        while chunk := list(itertools.islice(rows, share)):
            id_B = np.array([id for id, _ in chunk], np.int32)
            reference = np.stack([prepare(*self._photo[id]) for id in id_B])
            yield self._distorted(reference, id_B) | {"mask": np.array([m for _, m in chunk])}

    def _prepared(self, shelf: Shelf, place: int) -> np.ndarray:
        pp = self._pp("pp_test")
        if ops_numpy.makes_several(pp):
            raise ValueError(f"{pp!r} makes several crops of a photo; take one")
        (picture,) = ops_numpy.parse(pp, with_reference=True)(shelf.picture(place), content=0)
        return picture.image_HWC

    def _distorted(self, reference: np.ndarray, id_B: np.ndarray) -> dict[str, np.ndarray]:
        content_B = self.table["content"][id_B]
        type_B = np.array([TYPES.index(t) if t in TYPES else 0 for t in self.table["type"][id_B]])
        own = self._settings["distort"]
        fixed = {"group": own["group"], "subsample": own["subsample"]}
        image, mos = _fixed(reference, content_B, type_B, self.table["level"][id_B], **fixed)
        out = {"image": np.asarray(image), "reference": reference, "mos": np.asarray(mos)}
        return out | {"id": id_B, "content": content_B}

    # Labels are those of the formula: HaarPSI, in [0, 1] as it is.
    rated, span = True, 1.0

    def protocol(self, resolved: dict) -> dict:
        """What has to stand beside every number of a resolved configuration."""
        keys = ("name", "split", "fractions", "size", "pp_test")
        facts = {k: self._settings[k] for k in keys} | {"seed": resolved["seed"]}
        facts |= {"split_sha256": self._digest, "selection": "last step"}
        facts |= {k: self._settings["distort"][k] for k in ("pairs", "test")}
        facts["labels"] = "formula HaarPSI"
        facts["references"] = len(set(self.table["group"][self.test_ids].tolist()))
        facts["damaged"] = len(self._shelf.damaged)
        return {"protocol": facts}


def _rows(shelf: Shelf, places: np.ndarray, pairs: int) -> Iterator[dict]:
    """The images to make of each sound photo: all pairs, or `pairs` that its bytes choose."""
    for place in places.tolist():
        if shelf.picture(place) is None:
            continue
        name, code = shelf.names[place], zlib.crc32(shelf.encoded(place))
        order = np.random.Generator(np.random.PCG64(code)).permutation(len(PAIRS))
        chosen = np.sort(order[:pairs]) if pairs else np.arange(len(PAIRS))
        for number, level in (PAIRS[i] for i in chosen):
            type = TYPES[number] if level else "none"
            yield {
                "photo": (shelf, place),
                "group": name,
                "type": type,
                "level": level,
                "name": f"{name} {type} {level}",
                "content": np.uint32(zlib.crc32(f"{code} {type} {level}".encode())),
            }


@functools.partial(jax.jit, static_argnames=("group", "subsample"))
def _fixed(reference, content_B, type_B, level_B, *, group: int, subsample: bool):
    """Held-out images, whose noise is a function of their content, and their labels."""
    key_B = rng.per_image(rng.stream(0, NAME), content_B)
    made = distort(key_B, pixels.to_float(reference), type_B, level_B, group=group)
    image = pixels.to_uint8(made)
    return image, haarpsi.haarpsi(reference, image, subsample=subsample)


def to_train(
    shelf: Shelf,
    places: np.ndarray,
    *,
    pp: str,
    batch: int,
    seed: int,
    start: int,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """Endless shuffled batches of references; see `Pristine.train` and `pipeline.to_train`.

    Raises:
      ValueError: a batch that the processes do not divide, or an unsuitable `pp`.
      TooManyDamaged: while reading.
    """
    number, share = own_share(batch, process)
    if not len(places):
        raise ValueError(f"{shelf.where}: no photos to train on")
    places, cut = np.asarray(places, np.int64), ops_tf.parse(pp)

    def decoded(position: np.int64, place: np.int64) -> np.ndarray:
        def candidates() -> Iterator[int]:
            yield int(places[place])
            turn = position % len(places)  # what follows in this epoch, then its beginning
            after = position - turn + (turn + np.arange(1, len(places))) % len(places)
            yield from places[order.places(after, len(places), seed)].tolist()

        return shelf.sound(candidates())

    def example(position: tf.Tensor, place: tf.Tensor) -> dict[str, tf.Tensor]:
        photo = tf.numpy_function(decoded, [position, place], tf.uint8, stateful=False)
        photo = tf.ensure_shape(photo, [None, None, 3])
        draw, seed_2 = pipeline.draw_and_seed(position, seed)
        crop = cut({"image": photo, "seed": seed_2, "content": draw})
        numbers = {"id": tf.zeros([], tf.int32), "content": draw, "draw": draw}
        several = {key: crop[key] for key in ("crop",) if key in crop}
        return {"reference": crop["image"], "mask": tf.ones([])} | numbers | several

    own = (number * share, share)
    shuffled = {"count": len(places), "seed": seed}
    batches = pipeline.stream(example, pp, **shuffled, start=start, batch=batch, own=own)
    return _checked(batches, shelf)


def _checked(batches: Batches, shelf: Shelf) -> Batches:
    for batch in batches:
        shelf.check()
        yield batch
