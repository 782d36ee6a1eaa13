"""Rated images as a TensorFlow data set: the files' own bytes, in the order of their names.

A built set has the split "rated" and, where images have originals, "references", each original
once; a rated image names its original by number. So a set takes the disk space of its download,
not of its download and 125 copies of each original.
"""

import contextlib
import dataclasses
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging as absl_logging
from PIL import Image

from diffv2iqa_jax.data.sets import catalog, facts
from diffv2iqa_jax.data.sets.catalog import LayoutError, Row, Set
from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode
from diffv2iqa_jax.pp.ahead import CORES, in_order
from diffv2iqa_jax.pp.decode import TO_STORE, Reading

tf.config.set_visible_devices([], "GPU")  # accelerators belong to JAX


class Damaged(Exception):
    """Files of a set cannot be read: its builder has them."""


SPLIT, REFERENCES = "rated", "references"
AT_ONCE = 64  # images read ahead


@dataclasses.dataclass(kw_only=True)
class SetConfig(tfds.core.BuilderConfig):
    """What to build.

    Attributes:
      rows: of the images, by name.
      spec: the set's constants.
      facts: kept beside the images, see `facts.of`.
      reading: how their files are read.
    """

    rows: tuple[Row, ...] = dataclasses.field(repr=False)  # TFDS logs what it is given
    spec: Set
    facts: dict[str, Any]
    reading: Reading


class Diffv2iqaSets(tfds.core.GeneratorBasedBuilder):
    """Images with opinions of people, and their pristine originals where there are any."""

    VERSION = tfds.core.Version(catalog.VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "mos": np.float32,
            "native": np.float32,
            "group": tfds.features.Text(),
            "type": tfds.features.Text(),
            "level": np.int32,
            "part": tfds.features.Text(),
            "name": tfds.features.Text(),
            "id": np.int32,
            "order": np.int32,
            "content": np.int64,
        }
        if self.builder_config.spec.references:
            features["reference_id"] = np.int32
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(self.builder_config.facts),
            disable_shuffling=True,  # records stay in the order of their ids
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        self.damaged: dict[Path, str] = {}
        rated = {SPLIT: self._generate_examples()}
        splits = rated | ({REFERENCES: self._references()} if self._originals() else {})
        self._unread = len(splits)
        return splits

    def _read(self, paths: list[Path]) -> Iterator[tuple[bytes, int] | None]:
        """The bytes to store of each file, and their content; None once a file was damaged.

        All files are read, whatever is wrong with some: `damaged` then has them all.

        Raises:
          Damaged: after the last file of the last split, so that nothing is kept.
        """
        for path, found in zip(
            paths,
            _all_encoded(paths, self.builder_config.spec, self.builder_config.reading),
            strict=True,
        ):
            if isinstance(found, str):
                self.damaged[path] = found
            yield None if self.damaged else found
        self._unread -= 1
        if not self._unread and self.damaged:
            raise Damaged

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        reference_ids = {path: id for id, path in enumerate(self._originals())}
        order = sorted(range(len(config.rows)), key=lambda i: config.rows[i].name)
        rows = [config.rows[i] for i in order]
        images = self._read([r.image for r in rows])
        for id, (row, place, found) in enumerate(zip(rows, order, images, strict=True)):
            if found is None:
                continue
            data, content = found
            native = np.nan if row.native is None else row.native
            record = {
                "image": data,
                "mos": config.spec.quality(native),
                "native": native,
                "group": row.group,
                "type": row.type,
                "level": row.level,
                "part": row.part,
                "name": row.name,
                "id": id,
                "order": place,
                "content": content,
            }
            if reference_ids:
                record["reference_id"] = reference_ids[row.reference]
            yield id, record

    def _references(self) -> Iterator[tuple[int, dict[str, Any]]]:
        config, paths = self.builder_config, self._originals()
        groups = {r.reference: r.group for r in config.rows}
        unrated = {"mos": np.nan, "native": np.nan, "type": "", "level": 0, "part": ""}
        for id, (path, found) in enumerate(zip(paths, self._read(paths), strict=True)):
            if found is None:
                continue
            data, content = found
            record = {"image": data, "content": content, "name": path.name, "group": groups[path]}
            yield id, record | unrated | {"id": id, "order": id, "reference_id": id}

    def _originals(self) -> list[Path]:
        paths = {r.reference for r in self.builder_config.rows} - {None}
        return sorted(paths, key=lambda path: (path.name, path))


def opened(name: str, folder: str) -> tfds.core.DatasetBuilder:
    """A prepared set, to be read; it describes itself."""
    return tfds.builder_from_directory(str(catalog.place(name, folder)))


def build(
    name: str,
    folder: str,
    spec: Set,
    rows: list[Row],
    *,
    reading: Reading = TO_STORE,
    allow_missing: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Writes a set; killed at any moment, it leaves nothing that looks like one.

    Args:
      name: of the set, as configurations name it.
      folder: the folder of all sets.
      spec: the set's constants.
      rows: of its images, in any order.
      reading: how the files are read; its options are kept with the facts.
      allow_missing: leave images out that cannot be read, and mark the set incomplete.
      more: further facts to keep.

    Returns:
      name, folder (where its files lie), images (how many), left_out (a line each on images that
      cannot be read).

    Raises:
      LayoutError: images cannot be read; lists them, after all were read.
    """
    more |= {"icc": reading.icc, "orientation": reading.orientation}
    more |= {"rows_sha256": facts.rows_sha256(rows), "files_sha256": facts.files_sha256(rows)}
    builder, damaged = _written(name, folder, spec, rows, reading, more)
    if not damaged:
        path = str(builder.data_path)
        return {"name": name, "folder": path, "images": len(rows), "left_out": []}
    sound = [r for r in rows if r.image not in damaged and r.reference not in damaged]
    lines = list(damaged.values())
    count = f"{len(lines)} {'file' if len(lines) == 1 else 'files'} of {len(rows)} images"
    if not allow_missing or not sound:
        hint = "; --allow_missing leaves them out and marks the set" if sound else ""
        raise LayoutError(f"{count} cannot be read (nothing was written{hint}):", lines)
    names = sorted({r.name for r in rows} - {r.name for r in sound})
    more |= {"complete": False, "lacking": more.get("lacking", 0) + len(names)}
    more |= {"left_out": names}
    builder, damaged = _written(name, folder, spec, sound, reading, more)
    if damaged:
        raise LayoutError("files changed while they were read; do it again:", [*damaged.values()])
    path = str(builder.data_path)
    return {"name": name, "folder": path, "images": len(sound), "left_out": lines}


def _written(
    name: str, folder: str, spec: Set, rows: list[Row], reading: Reading, more: dict[str, Any]
) -> tuple[Diffv2iqaSets, dict[Path, str]]:
    """The builder of a set that was written; or that was not, and why not, by file."""
    config = SetConfig(
        name=catalog.plain(name),
        rows=tuple(rows),
        spec=spec,
        facts=facts.of(name, spec, rows, **more),
        reading=reading,
    )
    builder = _make(config, folder)
    try:
        write(builder)
    except Damaged:
        return builder, builder.damaged
    return builder, {}


def write(builder: tfds.core.DatasetBuilder) -> None:
    """Builds a set without the network and without printing.

    Raises:
      OSError: it cannot be written; nothing is left.
    """
    tfds.disable_progress_bar()
    local = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints
            builder.download_and_prepare(download_config=local)
    except (tf.errors.OpError, RuntimeError) as error:  # TFDS wraps what TensorFlow's writer raises
        cause = error if isinstance(error, tf.errors.OpError) else error.__cause__
        if not isinstance(cause, tf.errors.OpError):
            raise
        raise OSError(f"{cause.message}; make room, or name another --folder") from None


def _make(config: SetConfig, folder: str) -> Diffv2iqaSets:
    """The builder; it keeps TFDS from logging that it got a configuration."""
    level = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        return Diffv2iqaSets(config=config, data_dir=folder, file_format="tfrecord")
    finally:
        absl_logging.set_verbosity(level)


def content(image_HWC: np.ndarray) -> int:
    """CRC-32 of a picture's uint8 RGB pixels, in [0, 2^32)."""
    return zlib.crc32(np.ascontiguousarray(image_HWC).tobytes())


def encoded(path: Path, spec: Set, reading: Reading = TO_STORE) -> tuple[bytes, int]:
    """The bytes to store for a file, and the CRC-32 of their pixels.

    The pixels are those that `pp.decode.read` has of the file. The file's own bytes are kept where
    they mean these pixels to every decoder: a JPEG, PNG or 24-bit BMP of 8-bit RGB or grey, without
    transparency, that no colour profile and no orientation changes. Else, or where the set asks
    for another size, a PNG of the pixels is stored.

    Raises:
      LayoutError: the file is no picture, damaged, too large, or not of the set's size.
    """
    try:
        own_bytes = path.read_bytes()
        image_HWC, flags = decode.read(own_bytes, reading, name=str(path))
    except ImageError as error:
        raise LayoutError(error.reason) from error
    except OSError as error:
        raise LayoutError(f"{path}: {error.strerror or error}") from error
    size = image_HWC.shape[1::-1]
    if spec.size and spec.size not in (size, size[::-1] if "rotated" in flags else size):
        raise LayoutError(f"{path}: is {size}, not {spec.size} pixels")
    if spec.short_side and min(size) > spec.short_side:
        scale = spec.short_side / min(size)
        scaled = tuple(round(side * scale) for side in size)
        picture = Image.fromarray(image_HWC).resize(scaled, Image.Resampling.BICUBIC)
        return png(picture), content(np.asarray(picture))
    keep = decode.is_plain(own_bytes)
    if keep and flags:  # a profile may change nothing, and the first frame may be all there is
        keep = np.array_equal(decode.pixels_of(own_bytes), image_HWC)
    return own_bytes if keep else png(Image.fromarray(image_HWC)), content(image_HWC)


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file of the picture."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _all_encoded(
    paths: list[Path], spec: Set, reading: Reading
) -> Iterator[tuple[bytes, int] | str]:
    """`encoded` of each file, in order, or what is wrong with it; threads decode a few ahead."""

    def encode(path: Path) -> tuple[bytes, int] | str:
        try:
            return encoded(path, spec, reading)
        except LayoutError as error:
            return str(error)

    return in_order(encode, paths, workers=CORES, window=AT_ONCE)
