"""What is kept beside the images of a set: where they come from and what their numbers mean."""

import hashlib
import os
from collections.abc import Iterable
from typing import Any

from diffv2iqa_jax.data.sets.catalog import Row, Set


def of(name: str, spec: Set, rows: list[Row], **more: Any) -> dict[str, Any]:
    """Facts to keep: the scale, the parts, digests of what the set was made of.

    Args:
      rows: of the images that are stored.
      more: further facts.
    """
    return {
        "set": name,
        "title": spec.title,
        "scale": [spec.low, spec.high],
        "higher_is_better": spec.higher,
        "labels": spec.opinions,
        "rated": any(r.native is not None for r in rows),
        "by": spec.by,
        "parts": sorted({r.part for r in rows} - {""}),
        "labels_sha256": labels_sha256(rows),
        **more,
    }


def labels_sha256(rows: list[Row]) -> str:
    """Of names, scores and parts: results name it."""
    return _sha256(f"{row.name}\t{row.native}\t{row.part}\n" for row in sorted(rows))


def rows_sha256(rows: list[Row]) -> str:
    """Of all that labels say of the images."""
    return _sha256(
        f"{r.name}\t{r.native}\t{r.part}\t{r.group}\t{r.type}\t{r.level}\t"
        f"{r.reference.name if r.reference else ''}\n"
        for r in sorted(rows)
    )


def files_sha256(rows: list[Row]) -> str:
    """Of names, sizes and times of the image files; nothing is read."""
    paths = sorted((r.name, path) for r in rows for path in (r.image, r.reference) if path)
    lines = []
    for name, path in paths:
        try:
            stats = os.stat(path)
            lines.append(f"{name}\t{stats.st_size}\t{stats.st_mtime_ns}\n")
        except OSError:
            lines.append(f"{name}\tnot there\n")
    return _sha256(lines)


def archive(source: str) -> list[int]:
    """Size and time of an archive."""
    stats = os.stat(source)
    return [stats.st_size, stats.st_mtime_ns]


def _sha256(lines: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for line in lines:
        sha.update(line.encode("utf-8", "surrogateescape"))
    return sha.hexdigest()
