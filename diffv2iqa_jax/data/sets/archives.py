"""Unpacks a downloaded archive into a folder, once every member has been checked.

An archive comes from the network. If a member would leave the folder, is no plain file, or unpacks
to more than such an archive can hold, we refuse the archive before we write anything.
"""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from diffv2iqa_jax.data.sets.catalog import LayoutError

# Bitmaps of flat colour pack well, a thousand times their size does not occur.
MOST_RATIO = 200  # unpacked bytes for one packed byte, over the whole archive
FREE_OF_CHARGE = 64 * 2**20  # bytes any archive may unpack to
ZIP, TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class Member(NamedTuple):
    """A member of an archive, as the archive describes it.

    Attributes:
      name: its path in the archive.
      size: bytes that it unpacks to.
      kind: "file", "folder", "link" or "device".
    """

    name: str
    size: int
    kind: str


def is_archive(path: str | Path) -> bool:
    """Whether the name ends as those of archives that `unpack` knows."""
    return str(path).lower().endswith((*ZIP, *TAR))


def unpack(path: str | Path, folder: str | Path) -> None:
    """Unpacks all files of a zip or tar archive into an empty folder.

    Raises:
      LayoutError: it cannot be read, or a member is refused; then nothing was written.
    """
    path, folder = Path(path), Path(folder)
    try:
        if str(path).lower().endswith(ZIP):
            with zipfile.ZipFile(path) as archive:
                _check(path, folder, map(_of_zip, archive.infolist()))
                for info in archive.infolist():
                    if not info.is_dir():
                        with archive.open(info) as source:
                            _write(source, folder, info.filename, info.file_size)
        else:
            with tarfile.open(path) as archive:
                _check(path, folder, map(_of_tar, archive))
                for info in archive:
                    if info.isfile():
                        _write(archive.extractfile(info), folder, info.name, info.size)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
        why = "" if isinstance(error, tarfile.ReadError) else f" ({error})"  # a class a line
        raise LayoutError(f"{path}: is damaged or no archive{why}; download it again") from error
    except RuntimeError as error:  # a password
        raise LayoutError(f"{path}: {error}; unpack it yourself and give the folder") from error


def _of_zip(info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 28  # of the file's Unix mode, where there is one
    kind = "folder" if info.is_dir() else {0xA: "link"}.get(mode, "file")
    return Member(info.filename, info.file_size, kind)


def _of_tar(info: tarfile.TarInfo) -> Member:
    if info.isfile() or info.isdir():
        return Member(info.name, info.size, "file" if info.isfile() else "folder")
    return Member(info.name, 0, "link" if info.islnk() or info.issym() else "device")


def _check(path: Path, folder: Path, members: Iterator[Member]) -> None:
    packed, unpacked = path.stat().st_size, 0
    free = shutil.disk_usage(folder).free
    seen: set[str] = set()
    for member in members:
        if member.kind in ("link", "device"):
            raise LayoutError(f"{path}: holds a {member.kind}, {member.name!r}; refused")
        name = str(_inside(path, member.name))
        if member.kind == "file" and name in seen:
            raise LayoutError(f"{path}: holds {member.name!r} twice; refused")
        seen.add(name)
        unpacked += member.size
        # Of a packed tar, what follows a member is only read once the member passed.
        if unpacked > max(MOST_RATIO * packed, FREE_OF_CHARGE):
            raise LayoutError(
                f"{path}: {packed} bytes would unpack to {unpacked} at {member.name!r} or more, "
                "as no pictures do; refused"
            )
        if unpacked > free:
            raise LayoutError(
                f"{path}: unpacks to more than the {free >> 20} MiB that are free for {folder}; "
                "name another --folder or unpack it yourself"
            )


def _inside(path: Path, name: str) -> PurePosixPath:
    place = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    if place.is_absolute() or ".." in place.parts or drive or "\0" in name:
        raise LayoutError(f"{path}: {name!r} would lie outside the folder; refused")
    return place


def _write(source, folder: Path, name: str, size: int) -> None:
    target = folder / PurePosixPath(name.replace("\\", "/"))
    os.makedirs(target.parent, exist_ok=True)
    with open(target, "xb") as out:
        while size > 0 and (chunk := source.read(min(size, 2**20))):
            out.write(chunk)
            size -= len(chunk)
