"""Archives from the network: what would harm is refused before anything is written."""

import gzip
import io
import tarfile
import time
import zipfile

import pytest

from diffv2iqa_jax.data.sets import archives
from diffv2iqa_jax.data.sets.catalog import LayoutError


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def tarred(path, *members, mode="w:gz"):
    """Members are (name, data) or ready TarInfos without data."""
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def special(kind, target=""):
    info = tarfile.TarInfo("set/odd")
    info.type, info.linkname = kind, target
    return info


def refused(path, folder, message):
    folder.mkdir()
    start = time.perf_counter()
    with pytest.raises(LayoutError, match=message):
        archives.unpack(path, folder)
    assert time.perf_counter() - start < 2
    assert not list(folder.iterdir())


FILES = (("set/labels.csv", b"a,b\n"), ("set/images/1.png", bytes(range(256)) * 40))


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.xz", "x.tar.bz2"])
def test_files_come_out_as_they_went_in(name, tmp_path):
    if name.endswith("zip"):
        path = zipped(tmp_path / name, *FILES)
    else:
        mode = "w:" + {"tgz": "gz", "tar": ""}.get(name.rpartition(".")[2], name.rpartition(".")[2])
        path = tarred(tmp_path / name, *FILES, mode=mode)
    assert archives.is_archive(path)
    (tmp_path / "out").mkdir()
    archives.unpack(path, tmp_path / "out")
    for file, data in FILES:
        assert (tmp_path / "out" / file).read_bytes() == data


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/etc/evil", "C:\\x", "a\\..\\b"])
def test_what_would_leave_the_folder_is_refused(make, name, tmp_path):
    path = make(tmp_path / f"x.{'zip' if make is zipped else 'tar.gz'}", *FILES, (name, b"x"))
    refused(path, tmp_path / "out", "outside the folder")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.FIFOTYPE, "device")],
)
def test_links_and_devices_are_refused(kind, word, tmp_path):
    path = tarred(tmp_path / "x.tar.gz", *FILES, special(kind, "/etc/passwd"))
    refused(path, tmp_path / "out", f"holds a {word}")


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("set/link")
    info.external_attr = 0xA1FF << 16
    refused(zipped(tmp_path / "x.zip", (info, b"/etc/passwd")), tmp_path / "out", "holds a link")


def test_bombs_are_refused_from_what_they_declare(tmp_path):
    """Ten gigabytes of zeros: in a zip by its directory, in a tar by the member's header."""
    bomb = zipped(tmp_path / "x.zip", *FILES, ("set/zeros", bytes(80 << 20)))
    refused(bomb, tmp_path / "one", "as no pictures do")
    info = tarfile.TarInfo("set/zeros")
    info.size = 10 << 30
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf()))  # its data would follow
    refused(path, tmp_path / "two", f"would unpack to {10 << 30} at 'set/zeros'")


def test_the_same_name_twice_is_refused(tmp_path):
    path = tarred(tmp_path / "x.tar.gz", *FILES, FILES[0])
    refused(path, tmp_path / "out", "twice")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
@pytest.mark.parametrize("data", [b"", b"<html>404</html>"])
def test_what_is_no_archive_is_said_to_be_none(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, tmp_path / "out", "download it again")
