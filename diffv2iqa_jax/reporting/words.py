"""What a set's labels are, and how a page calls them: only people have opinions.

A set says it in the facts of its results, as `labels`: "MOS" or "DMOS" for people's opinions,
"formula NAME" for a full-reference measure, "given" for a table of the user's own, or any text of
the user's.
"""

from typing import Any, NamedTuple

HAARPSI = "formula HaarPSI"
# Of sets whose results do not say it: they were written before results did.
BY_NAME = {"builtin/": HAARPSI, "pristine": HAARPSI, "csv/": "given"}


class Words(NamedTuple):
    """Attributes:
    source: whose order a score is compared with.
    axis: of a chart.
    short: what a single label is called.
    caution: a sentence for whoever takes the labels for people's; "" where they are.
    """

    source: str
    axis: str
    short: str
    caution: str


def labels_of(protocol: dict[str, Any] | None) -> str:
    """What the labels are, by the protocol of a run's results."""
    protocol = protocol or {}
    if protocol.get("labels"):
        return str(protocol["labels"])
    name = str(protocol.get("name", ""))
    return next((kind for start, kind in BY_NAME.items() if name.startswith(start)), "MOS")


def words(protocol: dict[str, Any] | None) -> Words:
    """The words for these labels; plain text, not escaped."""
    labels = labels_of(protocol)
    kind, _, rest = labels.partition(" ")
    if labels == "MOS":
        return Words("people", "quality (MOS)", "MOS", "")
    if labels == "DMOS":
        return Words("people", "quality (from DMOS)", "quality", "")
    if kind.rstrip(":") == "formula":
        name = rest.strip() or "a formula"
        caution = f"The labels are computed by {name}: these numbers say nothing about people."
        return Words(name, f"quality ({name})", name, caution)
    name = "the given labels" if labels == "given" else f"the labels ({labels})"
    caution = f"The labels are {'those given' if labels == 'given' else labels}."
    return Words(name, f"quality ({name.removeprefix('the ')})", "label", caution)
