"""Collections of photo files: a folder, a glob, or tfrecord files. Damaged photos are counted."""

import glob
import logging
import os
from collections.abc import Callable, Iterable

import numpy as np

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, listing

LOG = logging.getLogger(__name__)
DAMAGED_MOST = 0.001  # share of all photos; more is a fault of the collection
READING = decode.Reading()
FEATURES = ("image", "image/encoded")  # where an example holds the encoded photo


class TooManyDamaged(ValueError):
    """More photos are damaged than chance explains."""


class Shelf:
    """Photos in a fixed order; a photo's place is its number in it, from 0 on.

    Args:
      where: a folder (with those below it), a glob, or a folder or glob of tfrecord files (as
        TFDS writes them; each example holds an encoded picture called "image"). In a bucket, a
        folder.
      cache: keep the decoded pixels in memory.

    Attributes:
      names: the photos' names, in their order.
      encoded: place -> the bytes of the photo's file.
      damaged: place -> what is wrong with the photo, for damaged photos that were read.

    Raises:
      ValueError: there are no photos.
    """

    def __init__(self, where: str, cache: bool = False):
        self.where = where
        self.names, self.encoded = _open(storage.expanded(where))
        self.damaged: dict[int, str] = {}
        self._cache, self._kept = cache, {}

    def picture(self, place: int) -> np.ndarray | None:
        """A photo, uint8 RGB (H, W, 3); None if it is damaged, which `damaged` then says."""
        if place in self._kept or place in self.damaged:
            return self._kept.get(place)
        try:
            picture = decode.read(self.encoded(place), READING, name=self.names[place]).image_HWC
        except (ImageError, OSError) as error:
            reason = error.reason if isinstance(error, ImageError) else str(error)
            LOG.warning("skipping %s", reason)
            self.damaged[place] = reason
            return None
        if self._cache:
            self._kept[place] = picture
        return picture

    def sound(self, places: Iterable[int]) -> np.ndarray:
        """The first of these photos that is not damaged, uint8 RGB (H, W, 3).

        One black pixel, (1, 1, 3), if none is, or once too many photos are damaged.
        """
        for place in places:
            picture = self.picture(place)
            if picture is not None:
                return picture
            if self._too_many():
                break  # `check` is about to say so
        return np.zeros((1, 1, 3), np.uint8)

    def _too_many(self) -> bool:
        return len(self.damaged) > DAMAGED_MOST * len(self.names)

    def check(self) -> None:
        """Raises TooManyDamaged, naming them, if more than 0.1 % of the photos are damaged."""
        if self._too_many():
            reasons = [reason for _, reason in sorted(self.damaged.items())]
            named = "; ".join(reasons[:5])
            more = f" and {len(reasons) - 5} more" if len(reasons) > 5 else ""
            raise TooManyDamaged(
                f"{self.where}: {len(reasons)} of {len(self.names)} photos are damaged, more than "
                f"{DAMAGED_MOST:.1%}: {named}{more}; mend or remove them"
            )


def list_files(where: str) -> list[str]:
    """Pictures of a folder (and those below it) or of a glob, sorted; of a bucket, a folder.

    Kinds that are refused by name, such as camera raw, are passed over like what is no picture;
    a line in the log counts both.

    Raises:
      ValueError: there is none.
    """
    where = storage.expanded(where)
    passed = listing.Passed()
    if storage.is_remote(where):
        paths = (p for p in storage.files_below(where) if not listing.is_companion(p, where))
        photos = [p for p in paths if _is_readable(p, passed)]
    elif os.path.isdir(where):
        photos = [p for p in listing.walk(where, passed) if _is_readable(p, passed)]
    else:
        paths = [p for p in glob.glob(where, recursive=True) if os.path.isfile(p)]
        paths = [p for p in paths if not listing.is_companion(p, where)]
        photos = [p for p in paths if listing.is_picture(p, passed) and _is_readable(p, passed)]
    over = f" (passed over: {passed})" if str(passed) else ""
    if not photos:
        raise ValueError(f"{where}: no pictures there{over}; name a folder or a glob")
    if over:
        LOG.info("%s: %d pictures%s", where, len(photos), over)
    return sorted(photos)


def _is_readable(path: str, passed: listing.Passed) -> bool:
    """Whether a picture is none of a kind that is refused by name; if it is, it is counted."""
    ending = os.path.splitext(path)[1].lower()
    local = not storage.is_remote(path)
    if ending in listing.READABLE or (local and ending not in listing.PICTURES):
        return True
    passed.file(os.path.basename(path))
    return False


def _open(where: str) -> tuple[list[str], Callable[[int], bytes]]:
    if storage.is_remote(where):
        paths = [f"{where.rstrip('/')}/{name}" for name in storage.names(where)]
    else:
        paths = glob.glob(os.path.join(glob.escape(where), "*") if os.path.isdir(where) else where)
    shards = sorted(p for p in paths if ".tfrecord" in os.path.basename(p))
    if shards:
        return _records(shards)
    files = list_files(where)
    root = os.path.commonpath([os.path.dirname(p) for p in files])

    def read(place: int) -> bytes:
        return storage.path(files[place]).read_bytes()

    return [os.path.relpath(p, root) for p in files], read


def _records(shards: list[str]) -> tuple[list[str], Callable[[int], bytes]]:
    from tensorflow.train import Example  # folders of files need no TensorFlow

    from diffv2iqa_jax.data.records import spans

    places = []
    for path in shards:
        with storage.path(path).open("rb") as file:
            places += [(path, *span) for span in spans(file, path)]

    def read(place: int) -> bytes:
        path, start, length = places[place]
        record = storage.read_range(path, start, start + length)
        feature = Example.FromString(record).features.feature
        for name in FEATURES:
            if name in feature and feature[name].bytes_list.value:
                return feature[name].bytes_list.value[0]
        lacking = f"has no feature {' or '.join(FEATURES)}, but {sorted(feature)}"
        raise ImageError("E_DECODE", f"{os.path.basename(path)}@{start}: {lacking}")

    return [f"{os.path.basename(path)}@{start}" for path, start, _ in places], read
