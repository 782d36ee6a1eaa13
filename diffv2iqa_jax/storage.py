"""Files in folders and in buckets (gs://): read, listed, and written complete or not at all.

A local path is the operating system's. A bucket's is read through etils.epath and fsspec, as
Orbax reads it, so one set of credentials serves both. An object appears whole once it is written;
it cannot be appended to or renamed, so what grows becomes numbered objects there.
"""

import contextlib
import importlib.util
import itertools
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from diffv2iqa_jax.errors import ConfigError, UsageError

PACKAGES = {"gs": "gcsfs"}  # of each scheme that both epath and Orbax write to
PART = 64  # lines: a bucket's file that grows is written anew at each line, so it must stay short

if any(importlib.util.find_spec(name) for name in PACKAGES.values()):
    # Else epath takes TensorFlow for buckets: seconds of import in a process that has no other
    # use for it. epath keeps its first answer, so this stands at the top; a user's own value stays.
    os.environ.setdefault("EPATH_USE_TF", "false")
if os.path.expanduser("~") == "~":
    # There is no home folder, and Keras, which TensorFlow imports, would make one of that name.
    os.environ.setdefault("KERAS_HOME", os.path.join(tempfile.gettempdir(), "keras"))


def is_remote(name: str | os.PathLike) -> bool:
    """Whether it is an address (SCHEME://...), not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(name)) is not None


def check(name: str | os.PathLike) -> None:
    """Refuses an address that cannot be read or written here; looks nothing up.

    Raises:
      ConfigError: a scheme that we do not know, or one whose package is not installed.
    """
    if not is_remote(name):
        return
    scheme = os.fspath(name).partition("://")[0]
    if scheme not in PACKAGES:
        known = ", ".join(f"{one}://" for one in PACKAGES)
        raise ConfigError(f"{name}: {scheme}:// cannot be used; name a local path or {known}")
    if importlib.util.find_spec(PACKAGES[scheme]) is None:
        package = PACKAGES[scheme]
        raise ConfigError(f"{name}: {scheme}:// needs {package}; pip install {package}")


def path(name: str | os.PathLike) -> Any:
    """A pathlib.Path, or for a bucket an epath.Path, which has the same methods.

    Raises:
      ConfigError: see `check`.
    """
    if not is_remote(name):
        return pathlib.Path(name)
    _client(name)
    from etils import epath

    return epath.Path(name)


def expanded(name: str | os.PathLike) -> str:
    """A name whose ~ is the home folder.

    Raises:
      ConfigError: there is none, as in a container for a user without an entry; a folder that is
        called ~ is never made.
    """
    name = os.fspath(name)
    out = os.path.expanduser(name)
    if out == name and re.match(r"~(/|$)", name):
        raise ConfigError(f"{name}: there is no home folder; set HOME, or name a whole path")
    return out


def cache(name: str) -> str | None:
    """As `expanded`; None where there is no home folder, since caches can be done without."""
    try:
        return expanded(name)
    except ConfigError:
        return None


def _client(name: str | os.PathLike) -> Any:
    """The fsspec file system of an address. Raises ConfigError, see `check`."""
    check(name)
    import fsspec

    # Other processes, and TensorStore in this one, write what a kept listing would not show.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return fsspec.filesystem(os.fspath(name).partition("://")[0])


def exists(name: str | os.PathLike) -> bool:
    """Whether there is such a file or folder; a bucket's folder is there once a file is in it."""
    return path(name).exists()


def make_folder(name: str | os.PathLike) -> None:
    """Makes a folder and those above it; a bucket has none to make."""
    if not is_remote(name):
        os.makedirs(name, exist_ok=True)


def read(name: str | os.PathLike) -> str:
    """The text of a file, UTF-8."""
    return path(name).read_text(encoding="utf-8")


def read_range(name: str | os.PathLike, begin: int, end: int) -> bytes:
    """The bytes from `begin` to before `end`, fewer where the file ends; by one request."""
    if is_remote(name):
        return _client(name).cat_file(os.fspath(name), start=begin, end=end)
    with open(name, "rb", buffering=0) as file:  # a buffer would read more than is wanted
        file.seek(begin)
        return file.read(end - begin)


def names(folder: str | os.PathLike) -> list[str]:
    """The names of what a folder holds, sorted; none if it is not there."""
    place = path(folder)
    return sorted(item.name for item in place.iterdir()) if place.exists() else []


def read_ranges(places: list[tuple[str, int, int]]) -> list[bytes]:
    """As `read_range` of each (name, begin, end), in their order, in local files or in buckets.

    A local file is opened once and read forwards; requests to a bucket are on their way together.
    """
    if places and is_remote(places[0][0]):
        names, begins, ends = map(list, zip(*places, strict=True))
        return _client(names[0]).cat_ranges(names, begins, ends, on_error="raise")
    pieces = [b""] * len(places)
    order = sorted(range(len(places)), key=places.__getitem__)
    for name, mine in itertools.groupby(order, key=lambda i: places[i][0]):
        with open(name, "rb") as file:
            for i in mine:
                file.seek(places[i][1])
                pieces[i] = file.read(places[i][2] - places[i][1])
    return pieces


def files_below(folder: str | os.PathLike) -> list[str]:
    """The files in a folder and in those below it, sorted; none if it is not there."""
    if is_remote(folder):
        client = _client(folder)
        return sorted(map(client.unstrip_protocol, client.find(os.fspath(folder))))
    return sorted(str(p) for p in pathlib.Path(folder).rglob("*") if p.is_file())


def write(name: str | os.PathLike, data: str | bytes) -> None:
    """Writes a file that is complete or not there at all; text as UTF-8.

    Raises:
      OSError: it cannot be written; no part of it is left.
    """
    data = data.encode() if isinstance(data, str) else data
    if is_remote(name):
        path(name).write_bytes(data)
        return
    with replacing(name) as unfinished, open(unfinished, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(name: str | os.PathLike) -> Iterator[str]:
    """A local path to write at; where the block ends well, what lies there becomes `name`.

    Whoever reads `name` sees the old file or the new one. Its mode is what the user's umask leaves
    of 0666, if the block opens it by `open`: files of `tempfile`, and of libraries that use it, are
    private.

    Raises:
      OSError: it cannot be written; no part of it is left.
    """
    name = os.fspath(name)
    if is_remote(name):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder, name.rpartition("/")[2])
            yield str(copy)
            path(name).write_bytes(copy.read_bytes())
        return
    unfinished = f"{name}.{os.getpid()}.tmp"  # of this process: others may write the same file
    try:
        yield unfinished
        with open(unfinished, "r+b") as file:
            os.fsync(file.fileno())  # else a loss of power may leave the name and no content
        os.replace(unfinished, name)
    except BaseException as error:
        pathlib.Path(unfinished).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _named(error, name) from None
        raise


def _named(error: OSError, name: str) -> OSError:
    """The error with the file's name, which a full disk leaves out."""
    named = error.filename or not error.errno
    return error if named else OSError(error.errno, error.strerror, name)


def ending(name: str | os.PathLike, known: Iterable[str]) -> str:
    """What a file to be written is by its name, one of `known`; to be asked before any work.

    Args:
      known: endings in lower case, with their dots.

    Raises:
      UsageError: it ends otherwise, or `check_place` refuses it.
    """
    known = list(known)
    suffix = pathlib.PurePath(name).suffix.lower()
    if suffix not in known:
        what = f"{suffix} is not written" if suffix else "says nothing of its format"
        raise UsageError(f"{name}: {what}; name a file that ends in {', '.join(known)}")
    check_place(name)
    return suffix


def check_place(name: str | os.PathLike) -> None:
    """Refuses a name by which no file can be written; to be asked before any work.

    Raises:
      ConfigError, UsageError: see `check`; or it is no file, or lies in no folder to write to.
    """
    if is_remote(name):
        check(name)
        return
    _check_home(name)
    name, folder = os.fspath(name), os.path.dirname(name) or "."
    if os.path.exists(name) and not os.path.isfile(name):
        what = "a folder" if os.path.isdir(name) else "no file"
        raise UsageError(f"{name}: is {what}; name a file")
    if not os.path.isdir(folder):
        raise UsageError(f"{name}: {folder} is no folder; make it first")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{name}: {folder} cannot be written to; name another place")


def _check_home(name: str | os.PathLike) -> None:
    """Refuses a ~ that the shell has left, as in --maps=~/m: a folder called so would be made.

    Raises:
      UsageError: the name starts with one.
    """
    if os.fspath(name).partition("/")[0] == "~":
        raise UsageError(f"{name}: ~ is not replaced here; write $HOME or a whole path")


def check_folder(name: str | os.PathLike) -> None:
    """Refuses a folder to write in whose name is a file's; to be asked before any work.

    Raises:
      ConfigError, UsageError: see `check`; or it is a file, or ends as files do and not in "/".
    """
    if is_remote(name):
        check(name)
        return
    _check_home(name)
    name = os.fspath(name)
    suffix = pathlib.PurePath(name).suffix
    if os.path.isdir(name) or name.endswith("/"):
        return
    if os.path.exists(name):
        raise UsageError(f"{name}: is a file; name a folder")
    if suffix[1:].isalpha():  # no number of a version
        raise UsageError(
            f"{name}: a folder is written, no {suffix} file; name one, or end the name in /"
        )


def move_folder(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Moves a folder; in a bucket file by file, as nothing can be renamed there."""
    if not is_remote(source):
        shutil.move(os.fspath(source), os.fspath(target))
        return
    source, target = path(source), path(target)
    _copy(source, target)
    source.rmtree()


def _copy(source: Any, target: Any) -> None:
    for item in source.iterdir():
        if item.is_dir():
            _copy(item, target / item.name)
        else:
            (target / item.name).write_bytes(item.read_bytes())


def lines(name: str | os.PathLike) -> Iterator[str]:
    """The lines of a file that `Lines` wrote, without their ends; none if there is no file."""
    for part in parts(name):
        yield from _text(part).splitlines()


def _text(name: str) -> str:
    """The text of a file, of which a kill may have cut the last letter."""
    return path(name).read_bytes().decode("utf-8", "replace")


def parts(name: str | os.PathLike) -> list[str]:
    """The objects that a file of lines consists of, in order; a local one is one file."""
    name = os.fspath(name)
    if not is_remote(name):
        return [name] if os.path.exists(name) else []
    place = path(name)
    ours = rf"{place.name}(\.\d{{6}})?"
    return [f"{place.parent}/{x}" for x in names(place.parent) if re.fullmatch(ours, x)]


class Lines:
    """A text file that grows line by line.

    A local file is appended to. In a bucket, the file itself holds the first PART lines at most,
    NAME.000001 the next ones, and so on; only the last one is written anew at each line, so a line
    costs one request of PART lines at most, however long the file grows.

    Args:
      name: the file; what it holds stays.
      keep: which lines stay, all if None; the others are dropped before one is added.
    """

    def __init__(self, name: str | os.PathLike, keep: Callable[[str], bool] | None = None):
        self._name, self._last, self._number = os.fspath(name), [], 0
        # From the end: a kill leaves a whole beginning.
        for part in reversed(parts(name) if keep else []):
            old = _text(part).splitlines()
            kept = [line for line in old if keep(line)]
            if is_remote(name) and not kept:
                path(part).unlink()
            elif kept != old or not is_remote(name):
                write(part, "".join(f"{line}\n" for line in kept))
        if is_remote(name) and (left := parts(name)):
            number = left[-1].removeprefix(self._name).lstrip(".")
            self._number = int(number or 0)
            self._last = read(left[-1]).splitlines()

    def add(self, line: str) -> None:
        """Adds a line; a kill after this does not lose it."""
        if not is_remote(self._name):
            try:
                with open(self._name, "a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise _named(error, self._name) from None
            return
        if len(self._last) >= PART:
            self._last, self._number = [], self._number + 1
        self._last.append(line)
        part = f"{self._name}.{self._number:06d}" if self._number else self._name
        write(part, "".join(f"{one}\n" for one in self._last))
