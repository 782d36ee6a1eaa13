"""A rated data set: its parts as batches, and what has to stand beside every number."""

import logging

import jax
import numpy as np

from diffv2iqa_jax import storage
from diffv2iqa_jax.data import evaluation, pipeline, reading, splits
from diffv2iqa_jax.data.interface import Batches
from diffv2iqa_jax.data.sets import catalog, registry
from diffv2iqa_jax.data.stored_views import StoredViews
from diffv2iqa_jax.errors import ConfigError, one_line

LOG = logging.getLogger(__name__)


class Rated:
    """The parts of a set of images with opinions, as batches; see `interface.Data`.

    Attributes:
      name: of the data set.
      views: stored views that batches carry; None until the views pass has made them.
    """

    def __init__(self, settings: dict, val_images: int, on: str | None = None):
        """Opens the set, making it on the spot if it is a built-in one.

        Args:
          settings: the configuration's section.
          val_images: look at no more validation images than this.
          on: another set, all of which is the test part.

        Raises:
          ConfigError: the set is not prepared, has no such split, or a split tears a group.
        """
        settings = settings if on is None else {**settings, "name": on}
        name, folder = settings["name"], storage.expanded(settings["folder"])
        if not registry.found(name, folder):
            LOG.info("building data set %s in %s", name, folder)
            registry.prepare(name, folder)
        self._settings = settings
        self.name = name
        try:
            self.source = reading.load(name, folder)
        except Exception as error:  # TFDS, protobuf and TensorFlow raise classes of their own
            raise ConfigError(
                f"config.data: data set {name!r} in {folder}: cannot be read "
                f"({one_line(error)[:200]}); delete {catalog.place(name, folder)} and prepare it "
                "again"
            ) from error
        self.table = self.source.table
        self.views: StoredViews | None = None
        self._on = on is not None
        parts = self._parts()
        self._names = splits.names_digest(self.table["group"], parts)
        self._digest = splits.digest(*parts)
        self.train_ids, self.val_ids, self.test_ids = parts
        self.val_ids = self.val_ids[:: max(1, -(-len(self.val_ids) // val_images))]
        self._process = (jax.process_index(), jax.process_count())

    def _parts(self) -> splits.Parts:
        settings, self._leaks = self._settings, {"groups": [], "twins": []}
        if self._on:
            # Nothing trains; a look at what a training batch is like must find something.
            every, none = np.arange(len(self.table["id"])), np.zeros(0, int)
            return every, none, every
        try:
            parts = splits.choose(
                self.table, settings["parts"], settings["split"], tuple(settings["fractions"])
            )
        except ValueError as error:
            raise ConfigError(f"config.data: {error}") from error
        self._leaks = splits.check(self.table, parts)
        torn, twins = self._leaks["groups"], self._leaks["twins"]
        if torn and not settings["parts"].startswith("legacy"):
            raise ConfigError(
                f"config.data.parts {settings['parts']!r}: {len(torn)} references are in two "
                f"parts, first {torn[0]}; choose 'reference'"
            )
        if torn or twins:
            LOG.warning(
                "%s, parts %s: %d references are on two sides, %d images have a twin there%s",
                *(self.name, settings["parts"], len(torn), len(twins)),
                f" (first {twins[0]})" if twins else "",
            )
        return parts

    def pp(self, key: str) -> str:
        """A preprocessing, `pp_train` or `pp_test`, with the size in it."""
        return self._settings[key].format(size=self._settings["size"])

    def train(self, start: int) -> Batches:
        return pipeline.to_train(
            self.source,
            self.train_ids,
            pp=self.pp("pp_train"),
            batch=self._settings["batch"],
            seed=self._settings["split"],
            start=start,
            views=self.views,
            process=self._process,
            cache=self._settings["cache"],
        )

    def test(self, ids: np.ndarray, *, alone: bool = False) -> Batches:
        return evaluation.to_evaluate(
            self.source,
            np.asarray(ids),
            pp=self.pp("pp_test"),
            batch=self._settings["batch"],
            views=self.views,
            process=(0, 1) if alone else self._process,
        )

    @property
    def has_references(self) -> bool:
        """Whether each image comes with its original."""
        return "reference" in next(self.source.examples(self.table["id"][:1]))

    @property
    def rated(self) -> bool:
        """Whether its images have opinions."""
        return self.source.facts.get("rated", True)

    @property
    def span(self) -> float:
        """How many units of the set's own scale quality 0 to 1 is."""
        low, high = self.source.facts.get("scale", (0.0, 1.0))
        return float(high) - float(low)

    def protocol(self, resolved: dict) -> dict:
        """What has to stand beside every number of a resolved configuration."""
        keys = ("name", "parts", "split", "fractions", "size", "pp_test")
        facts = {k: self._settings[k] for k in keys} | {"seed": resolved["seed"]}
        if self._on:
            facts |= {"parts": "everything is test", "split": None, "fractions": None}
        held = self.source.facts
        facts |= {"split_sha256": self._digest, "names_sha256": self._names}
        facts["split_is_committed"] = splits.is_committed(self.name, self._names)
        facts["selection"] = "last step"
        facts["references"] = len(set(self.table["group"][self.test_ids].tolist()))
        facts["grouped_by"] = held.get("by", "reference")
        facts["labels"] = held.get("labels") or registry.labels(self.name)
        facts |= {k: held[k] for k in ("scale", "higher_is_better", "labels_sha256") if k in held}
        learned = (resolved.get("restorer_from") or {}).get("data")
        warnings = [*self._warnings(), *self._seen_before(learned)]
        return {"protocol": facts | ({"warnings": warnings} if warnings else {})}

    def _warnings(self) -> list[str]:
        """Why these numbers should not stand beside others without a word."""
        held, way = self.source.facts, self._settings["parts"]
        torn, twins = len(self._leaks["groups"]), len(self._leaks["twins"])
        warnings = []
        if not held.get("complete", True):
            warnings.append(f"incomplete data set: {held.get('lacking', '?')} images lacking")
        elif held.get("lacking"):
            warnings.append(
                f"a part of the data set: {held['lacking']} of its images are not in it"
            )
        if way.startswith("legacy") and not self._on:
            warnings.append(f"{way.replace('_', '-')} split: for comparison with published numbers")
        if torn:
            warnings.append(f"{torn} references are on both sides of the split")
        if twins:
            warnings.append(f"{twins} images have an exact twin in another part")
        return warnings

    def _seen_before(self, learned: dict | None) -> list[str]:
        """Whether the restorer may have met the test part while it learned."""
        if not learned or _family(learned["name"]) != _family(self._settings["name"]):
            return []
        keys = ("parts", "split", "fractions")
        same = all(learned[k] == self._settings[k] for k in keys)
        if same and not self._on:
            return []
        return ["the restorer learned on another split of this set: it may know the test images"]


def _family(name: str) -> str:
    """A set's name without its variant: koniq10k@512 holds the pictures of koniq10k."""
    return str(name).partition("@")[0]
