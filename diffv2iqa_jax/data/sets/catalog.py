"""The public data sets: what each holds, and how its score becomes quality in [0, 1].

The scale of a set is a constant of the set, taken from its definition or, where that gives none,
from its whole published label file, rounded outwards. It is never taken from a split: labels of
training and test then mean the same, and a score can be given back on the set's own scale.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffv2iqa_jax import storage
from diffv2iqa_jax.config import near

MOST_LINES = 20  # of any list of complaints


class Set(NamedTuple):
    """One data set.

    Attributes:
      title: as its authors call it.
      images: how many distorted (or authentic) images the release holds.
      references: how many pristine originals; 0 where images have none.
      low, high: ends of the native scale; every published score lies between them.
      higher: whether a higher native score means higher quality.
      labels: the file that holds the scores, as the release names it; "" for a pool without.
      types: how many kinds of distortion; 0 where none are named.
      parts: names of the official parts, () where the release has no split.
      size: (width, height) of every image, where the name of the set promises it.
      short_side: images are stored scaled down to it, losslessly; None keeps the file's bytes.
      any_case: the release itself mixes upper and lower case in names.
      opinions: what its labels are: "MOS" or "DMOS" of people, "formula NAME", or "given" by a
        user who does not say.
    """

    title: str
    images: int
    references: int
    low: float
    high: float
    higher: bool
    labels: str
    types: int = 0
    parts: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    short_side: int | None = None
    any_case: bool = False
    opinions: str = "MOS"

    @property
    def by(self) -> str:
        """What a split may not tear apart: a "reference" with all its versions, or an "image"."""
        return "reference" if self.references else "image"

    def quality(self, native: ArrayLike) -> np.ndarray:
        """Native scores to quality, float64; those outside the scale lie outside [0, 1]."""
        share = (np.asarray(native, np.float64) - self.low) / (self.high - self.low)
        return share if self.higher else 1 - share


class Row(NamedTuple):
    """One image of a set, before it is read.

    Attributes:
      name: unique in the set; rows are stored in the order of names.
      image, reference: files; None where the set has no reference.
      native: score on the set's own scale; None in a pool without opinions.
      group: what a split may not tear apart.
      type, level: of the distortion; "" and 0 where none are named.
      part: of the official split; "" where there is none.
    """

    name: str
    image: Path
    reference: Path | None
    native: float | None
    group: str
    type: str = ""
    level: int = 0
    part: str = ""


class LayoutError(ValueError):
    """The files are not those of the data set: one headline, then at most 20 lines."""

    def __init__(self, headline: str, lines: list[str] = ()):
        super().__init__("\n  ".join([headline, *shortened(list(lines))]))


class NothingError(LayoutError):
    """The source exists and is empty."""


def shortened(lines: list[str], most: int = MOST_LINES) -> list[str]:
    """At most `most` of the lines; where that cuts some off, the last one says how many."""
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"... and {len(lines) - most + 1} more"]


PHOTOS = Set("", 0, 0, 0, 100, True, "")  # authentic images, MOS 0..100
KONIQ = PHOTOS._replace(
    title="KonIQ-10k",
    images=10073,
    labels="koniq10k_distributions_sets.csv",
    parts=("train", "val", "test"),
    size=(1024, 768),
)
SPAQ = PHOTOS._replace(title="SPAQ", images=11125, labels="MOS and Image attribute scores.xlsx")
LIVE = Set(
    "LIVE IQA release 2", 779, 29, -3, 112, False, "dmos_realigned.mat", types=5, opinions="DMOS"
)
TWO_PARTS = ("train", "test")

# A name after @ is a form of the set that gives other numbers: another label file or size.
SETS = {
    "live": LIVE,
    "live@dmos": LIVE._replace(labels="dmos.mat", low=0, high=100),
    "csiq": Set("CSIQ", 866, 30, 0, 1, False, "csiq.DMOS.xlsx", types=6, opinions="DMOS"),
    "tid2013": Set("TID2013", 3000, 25, 0, 9, True, "mos_with_names.txt", 24, any_case=True),
    # Its column is called dmos, yet 5 is the best.
    "kadid10k": Set("KADID-10k", 10125, 81, 1, 5, True, "dmos.csv", types=25, opinions="DMOS"),
    "livec": PHOTOS._replace(title="LIVE Challenge", images=1162, labels="AllMOS_release.mat"),
    "koniq10k": KONIQ,
    "koniq10k@512": KONIQ._replace(size=(512, 384)),
    "flive": PHOTOS._replace(
        title="LIVE-FB (FLIVE)", images=39810, labels="labels_image.csv", parts=TWO_PARTS
    ),
    "spaq": SPAQ,
    "spaq@512": SPAQ._replace(short_side=512),
    "pipal": Set("PIPAL, training part", 23200, 200, 900, 1900, True, "Train_Label", types=40),
    "biq2021": Set("BIQ2021", 12000, 0, 0, 1, True, "Train (Images and MOS).csv", parts=TWO_PARTS),
    "kadis700k": PHOTOS._replace(title="KADIS-700k, pristine images", images=140000),
    "waterloo": PHOTOS._replace(title="Waterloo Exploration, pristine images", images=4744),
}

VERSION = "1.0.0"  # of how sets are stored

# The built-in set's sizes, made on the spot: name -> name of the builder's config.
BUILTIN = {"builtin/tiny": "tiny", "builtin/small": "small", "builtin/full": "full"}
# In the place of a set's name: a folder of photos, which the training step distorts itself.
PRISTINE = "pristine"

# Families of anybody's own sets: csv/NAME has a table of labels, pool/NAME is images alone.
OWN = ("csv/", "pool/")


def known(name: str) -> bool:
    """Whether it is a name of a set that `prepare` makes from a download or a user's files."""
    return name in SETS or any(name.startswith(f) and name != f for f in OWN)


def place(name: str, folder: str) -> Path:
    """The folder of a built set of that name below `folder`, or below a bucket's.

    It need not exist.
    """
    if name in BUILTIN:  # where TFDS puts the builder's config
        return storage.path(folder) / "diffv2iqa_builtin" / BUILTIN[name] / VERSION
    return storage.path(folder) / "diffv2iqa_sets" / plain(name) / VERSION


def complete(name: str, folder: str) -> bool:
    """Whether the set is built in `folder`, completely."""
    return (place(name, folder) / "dataset_info.json").exists()


def found(name: str, folder: str) -> bool:
    """Whether the data set is there, complete.

    Raises:
      ValueError: unknown name; names the nearest, or lists the known ones.
    """
    if not known(name) and name not in BUILTIN:
        names = [*sorted(BUILTIN), *SETS, PRISTINE, *(f"{family}NAME" for family in OWN)]
        raise ValueError(f"data set {name!r}: no such set{near(name, names)}")
    return complete(name, folder)


def check(name: str, folder: str) -> None:
    """Refuses a name that is unknown, or a set that is not there and cannot be made on the spot.

    Raises:
      ValueError: says which, and the command that prepares it.
    """
    if storage.is_remote(folder) and not found(name, folder):
        raise ValueError(
            f"data set {name!r} is not in {folder}: prepare it in a local folder and copy that "
            "there; sets are not written in buckets"
        )
    if not found(name, folder) and known(name):
        family, _, own_name = name.partition("/")
        what = f"{family} --name {own_name}" if own_name else name
        raise ValueError(
            f"data set {name!r} is not in {folder}: prepare it with python -m "
            f"diffv2iqa_jax.data.prepare {what} --source YOUR_DOWNLOAD --folder {folder}"
        )


def plain(name: str) -> str:
    """A set's name as the name of a folder."""
    return name.replace("/", "-").replace("@", "_")
