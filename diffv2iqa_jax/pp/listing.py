"""Which files of a folder are pictures; the others are counted by kind: none vanishes unsaid.

Scoring, `prepare` and training photos list folders through here. A file counts as a picture by its
ending or, where that is unknown, by its first bytes: see `formats.is_picture`.
"""

import collections
import os
import re
from collections.abc import Iterator

from diffv2iqa_jax.pp import formats

PICTURES = frozenset(formats.endings(tuple(k for k, x in formats.KINDS.items() if x.picture)))
READABLE = frozenset(formats.endings())
# Endings that tell enough: such files are not opened.
OTHERS = frozenset(
    ".txt .md .rst .rtf .tex .log .csv .tsv .json .jsonl .yaml .yml .toml .ini .cfg .xml .xmp .aae"
    " .thm .pp3 .dop .on1 .cos .exif .html .htm .css .js .py .pyc .ipynb .m .mat .c .h .cpp .sh"
    " .bat .doc .docx .xls .xlsx .ods .odt .ppt .pptx .pdf .ai .ps .key .numbers .pages .epub"
    " .mp4 .mov .m4v .avi .mkv .webm .mts .m2ts .mpg .mpeg .wmv .flv .3gp .vob .lrv .insv .srt"
    " .mp3 .m4a .aac .wav .flac .ogg .opus .aiff .zip .gz .tgz .bz2 .xz .7z .rar .tar .zst"
    " .db .sqlite .sqlite3 .npy .npz .pt .pth .safetensors .h5 .hdf5 .parquet .tfrecord .pkl"
    " .part .tmp .lock .exe .dll .so .torrent .lnk .url .webloc .sha256 .md5".split()
)
# Folders that systems and programs fill with copies of their own, in lower case.
FOLDERS = frozenset(
    "@eadir .@__thumb .thumbnails .thumbs .thumb __macosx .appledouble .picasaoriginals .xvpics"
    " #recycle @recycle $recycle.bin .trash .trashes .trash-1000 .dtrash .spotlight-v100"
    " .fseventsd .temporaryitems .documentrevisions-v100 .ipynb_checkpoints .stversions .git"
    " .tmb".split()
)
FILES = frozenset("thumbs.db ehthumbs.db .ds_store desktop.ini .picasa.ini .nomedia icon\r".split())
MOST_KINDS = 8  # that a line names


class Passed:
    """Counts what a listing passes over."""

    def __init__(self):
        self._kinds: collections.Counter[str] = collections.Counter()
        self._companions: collections.Counter[str] = collections.Counter()
        self._links = 0

    def file(self, name: str) -> None:
        """Counts a file of no picture's kind."""
        ending = os.path.splitext(name)[1].lower()
        known = re.fullmatch(r"\.[0-9a-z_]{1,12}", ending)  # names may hold anything
        self._kinds[ending if known else "of no known ending"] += 1

    def link(self) -> None:
        """Counts a link to a folder, which is not followed."""
        self._links += 1

    def companions(self, kind: str, count: int = 1) -> None:
        """Counts files that a system or a program laid beside pictures."""
        self._companions[kind] += count

    def __str__(self) -> str:
        """As "2 companions (._*, @eaDir), 3 .txt, 1 .mp4"; "" where nothing was passed over."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        named = [f"{n} {kind}" for kind, n in kinds[:MOST_KINDS]]
        if rest := kinds[MOST_KINDS:]:
            named.append(f"{sum(n for _, n in rest)} of {len(rest)} other kinds")
        if self._links:
            named.append(
                "1 link to a folder" if self._links == 1 else f"{self._links} links to folders"
            )
        if count := self._companions.total():
            word = "companion" if count == 1 else "companions"
            named.insert(0, f"{count} {word} ({', '.join(sorted(self._companions))})")
        return ", ".join(named)


def walk(folder: str, passed: Passed) -> Iterator[str]:
    """Yields the paths of the pictures in a folder and in those below it, each level by name.

    Links to folders are not followed. A folder that cannot be listed comes out itself, so that
    whoever opens it sees why. Only one level's names are held at a time.

    Args:
      passed: counts the other files.
    """
    levels = [iter([folder])]
    first = True
    while levels:
        path = next(levels[-1], None)
        if path is None:
            levels.pop()
        elif os.path.isdir(path):
            if not first and not is_listed(path, passed):
                continue
            first = False
            try:
                levels.append(iter(_names(path)))
            except OSError:
                yield path
        elif is_picture(path, passed):
            yield path


def _names(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def is_listed(folder: str, passed: Passed) -> bool:
    """Whether a folder within one is to be listed; if not, what it holds is counted."""
    name = os.path.basename(folder)
    if os.path.islink(folder):
        passed.link()
        return False
    if name.lower() not in FOLDERS:
        return True
    passed.companions(name, sum(len(files) for *_, files in os.walk(folder)))
    return False


def is_picture(path: str, passed: Passed) -> bool:
    """Whether a file of a folder is a picture; if not, it is counted."""
    name = os.path.basename(path)
    ending = os.path.splitext(name)[1].lower()
    if name.lower() in FILES:
        passed.companions(name.strip())
    elif name.startswith("._") and not formats.starts_as_picture(path):
        passed.companions("._*")  # AppleDouble: what macOS keeps beside a file on other disks
    elif name.startswith(".trashed-"):
        passed.companions(".trashed-*")  # Android's, until they are deleted
    elif ending in PICTURES or (ending not in OTHERS and formats.is_picture(path)):
        return True
    else:
        passed.file(name)
    return False


def is_companion(path: str, named: str) -> bool:
    """Whether a path lies in a companions' folder that `named`, which led to it, does not name."""
    own = {part.lower() for part in os.path.normpath(path).split(os.sep)[:-1]}
    return bool((own & FOLDERS) - {part.lower() for part in named.split(os.sep)})
