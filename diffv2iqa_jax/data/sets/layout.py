"""Finds a data set's files in a folder, however it was packed, and lists what differs."""

import os
import re
from pathlib import Path

from diffv2iqa_jax.data.sets.catalog import MOST_LINES, LayoutError, NothingError, shortened
from diffv2iqa_jax.pp import listing


class Layout:
    """The files below a folder; it remembers what it was asked for and did not find, or not so."""

    def __init__(self, root: str | Path, *, any_case: bool = False):
        """Reads the names below `root`; links to folders are not followed.

        Raises:
          LayoutError: no such folder, or one that cannot be listed; NothingError: nothing in it.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise LayoutError(f"{root}: is not a folder; give the unpacked download or its archive")
        self._any_case = any_case
        self._names: dict[Path, dict[str, list[str]]] = {}
        self.passed = listing.Passed()  # what `images` was asked about, and is no picture
        for folder, folders, names in os.walk(self.root, onerror=_refuse):
            paths = (os.path.join(folder, name) for name in folders)
            folders[:] = [os.path.basename(p) for p in paths if listing.is_listed(p, self.passed)]
            folded: dict[str, list[str]] = {}
            for name in sorted(names):
                folded.setdefault(name.casefold(), []).append(name)
            self._names[Path(folder)] = folded
        self._searched: dict[Path, set[str]] = {}
        self.expected: int | None = None  # images, where the labels are of a known part
        self.missing: list[str] = []
        self.wrong_case: list[str] = []
        if not any(self._names.values()):
            raise NothingError(f"{root}: is empty; there is nothing to prepare")

    def files(self, *names: str) -> list[Path]:
        """All files of any of these names, in the order of the names, the least deep first."""
        listed = []
        for name in names:
            key = name.casefold()
            paths = [f / n for f, names in self._names.items() for n in names.get(key, ())]
            listed += sorted(paths, key=lambda p: (len(p.parts), p))
        return listed

    def matching(self, pattern: str) -> list[Path]:
        """All files whose whole name matches, sorted by name."""
        every = (f / n for f, held in self._names.items() for ns in held.values() for n in ns)
        return sorted((p for p in every if re.fullmatch(pattern, p.name)), key=lambda p: p.name)

    def file(self, *names: str) -> Path:
        """The least deep file of the first of these names that is there.

        Raises:
          LayoutError: none is.
        """
        matches = self.files(*names)
        if not matches:
            raise LayoutError(
                f"{self.root}: no label file; one of {', '.join(names)} must be in it, or in a "
                f"folder of it. There are:",
                self.top(),
            )
        return matches[0]

    def folders(self, *names: str) -> list[Path]:
        """Folders that are called one of these, or all, sorted; the one searched is among them."""
        wanted = {n.casefold() for n in names}
        return sorted(f for f in self._names if not names or f.name.casefold() in wanted)

    def folder(self, names: list[str], *usual: str, elsewhere: bool = True) -> Path:
        """The folder that holds most of these files; one with a usual name comes first.

        Args:
          elsewhere: whether it may have any name, if none is called as usual.

        Raises:
          LayoutError: no folder holds any.
        """
        return self._ranked(names, usual, elsewhere)[0]

    def places(self, names: list[str], *usual: str) -> dict[str, Path]:
        """The folder of each file, where files of one kind may lie in several; as `folder`."""
        ranked = self._ranked(names, usual, True)
        places = {}
        for name in names:
            folders = (f for f in ranked if name.casefold() in self._names[f])
            places[name] = next(folders, ranked[0])
        return places

    def find(self, folder: Path, name: str) -> Path | None:
        """The file of that name, in upper or lower case; a missing file or wrong case is noted."""
        candidates = self._names[folder].get(name.casefold(), [])
        used = self._searched.setdefault(folder, set())
        path = (folder / name).relative_to(self.root)
        if not candidates:
            self.missing.append(str(path))
            return None
        chosen = name if name in candidates else candidates[0]
        used.add(chosen)
        if chosen != name and not self._any_case:
            self.wrong_case.append(f"{path} is called {chosen}")
        return folder / chosen

    def claim(self, folder: Path, name: str) -> None:
        """Notes that a file belongs to the set although nobody reads it."""
        names = self._names[folder].get(name.casefold(), ())
        self._searched.setdefault(folder, set()).update(names)

    def images(self, folder: Path) -> list[Path]:
        """All pictures that lie in a folder, sorted."""
        names = [n for held in self._names[folder].values() for n in held]
        paths = (folder / n for n in sorted(names))
        return [p for p in paths if listing.is_picture(str(p), self.passed)]

    def extra(self) -> list[str]:
        """Images that nobody asked for, in folders where others were found."""
        return [
            str(p.relative_to(self.root))
            for folder, used in sorted(self._searched.items())
            for p in self.images(folder)
            if p.name not in used
        ]

    def differences(self, *others: str) -> list[str]:
        """Lines on what is missing, in the wrong case or extra, then `others`; at most 20."""
        kinds = {
            "missing": self.missing,
            "wrong case": self.wrong_case,
            "extra": self.extra(),
        }
        lines = {k: [f"{k}: {x}" for x in sorted(set(v))] for k, v in kinds.items() if v}
        room = MOST_LINES - min(len(others), 5)
        if sum(map(len, lines.values())) <= room:
            return [x for v in lines.values() for x in v] + list(others)[:5]
        each = room // len(lines)
        return [x for v in lines.values() for x in shortened(v, each)] + list(others)[:5]

    def _ranked(self, names: list[str], usual: tuple[str, ...], elsewhere: bool) -> list[Path]:
        wanted = {n.casefold() for n in names}
        usual_names = [u.casefold() for u in usual]

        def rank(folder: Path) -> tuple[int, int, int, Path]:
            count = len(wanted & self._names[folder].keys())
            name = folder.name.casefold()
            place = usual_names.index(name) if name in usual_names else len(usual_names)
            return (place, -count, len(folder.parts), folder)

        ranks = sorted(map(rank, self._names))
        fitting = [r for r in ranks if r[1] and (elsewhere or r[0] < len(usual_names))]
        if not fitting:
            raise LayoutError(
                f"{self.root}: no folder{' ' * bool(usual)}{' or '.join(usual)} with "
                f"{names[0]} and its like. There are:",
                self.top(),
            )
        return [r[-1] for r in fitting]

    def top(self) -> list[str]:
        """The names at the top, those of folders with a slash at the end."""
        return [p.name + "/" * p.is_dir() for p in sorted(self.root.iterdir())]


def _refuse(error: OSError) -> None:
    raise LayoutError(f"{error.filename}: cannot be listed ({error.strerror}); change its rights")
