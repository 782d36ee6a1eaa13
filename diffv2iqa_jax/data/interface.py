"""What a run asks of its data, whichever kind it is."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

Batches = Iterator[dict[str, np.ndarray]]


class Data(Protocol):
    """The parts of a data set, as batches; `rated.Rated` and `pristine.Pristine` are two.

    Attributes:
      table: id, group, type, level, name and content of every image, in the order of ids.
      train_ids: what the training part holds.
      val_ids, test_ids: rows of `table`.
      rated: whether the images have opinions, or labels in their place.
      span: how many units of the set's own scale quality 0 to 1 is.
    """

    table: dict[str, np.ndarray]
    train_ids: np.ndarray
    val_ids: np.ndarray
    test_ids: np.ndarray

    @property
    def rated(self) -> bool: ...

    @property
    def span(self) -> float: ...

    def train(self, start: int) -> Batches:
        """Endless shuffled batches; batch number `start` comes first."""

    def test(self, ids: np.ndarray, *, alone: bool = False) -> Batches:
        """The images of those ids, each once; the last batch is filled up, with mask 0.

        Args:
          alone: all rows of each batch, where this process works on them without the others.
        """

    def protocol(self, resolved: dict[str, Any]) -> dict[str, Any]:
        """What has to stand beside every number of a resolved configuration."""
