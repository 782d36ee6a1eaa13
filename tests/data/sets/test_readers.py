"""Every release, in its official layout and as others pack it, becomes the right rows."""

import pathlib
import shutil

import numpy as np
import pytest

from diffv2iqa_jax.data import prepare
from diffv2iqa_jax.data.sets import labels, readers
from diffv2iqa_jax.data.sets.catalog import SETS, LayoutError
from diffv2iqa_jax.data.sets.layout import Layout
from tests import twins

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data"


def read(name, root):
    """(rows, what differs from the release)."""
    layout = Layout(root, any_case=SETS[name].any_case)
    rows = readers.READERS[name](layout)
    return rows, layout.differences(*prepare.check(SETS[name], rows, layout))


@pytest.mark.parametrize("name", twins.TWINS)
def test_the_official_layout_is_read_whole(name, tmp_path):
    twins.TWINS[name](tmp_path)
    rows, differences = read(name, tmp_path)
    spec = SETS[name]
    assert differences == [] and len(rows) == spec.images
    assert len({r.name for r in rows}) == spec.images
    assert len({r.reference for r in rows} - {None}) == spec.references
    assert len({r.group for r in rows}) == (spec.references or spec.images)
    assert len({r.type for r in rows} - {""}) == spec.types
    assert {r.part for r in rows} - {""} == set(spec.parts)
    quality = spec.quality([r.native for r in rows])
    assert quality.min() >= 0 and quality.max() <= 1
    if spec.size:  # resolution is part of the name
        assert {r.image.parent.name for r in rows} == {"x".join(map(str, spec.size))}
    assert (np.corrcoef(quality, [r.native for r in rows])[0, 1] > 0) == spec.higher


READ_ALONE = {"kadis700k": "ref_imgs", "waterloo": "pristine_images"}


def test_all_sets_have_a_reader():
    assert (
        READ_ALONE.keys() | twins.TWINS.keys() | {"spaq@512"}
        == readers.READERS.keys()
        == SETS.keys()
    )


@pytest.mark.parametrize("name", READ_ALONE)
def test_pristine_pools_have_no_opinions(name, tmp_path):
    folder = READ_ALONE[name]
    twins.pictures(tmp_path / "release" / folder, ["a.bmp", "b.png"])
    (tmp_path / "release" / "code.m").write_text("")
    rows, differences = read(name, tmp_path)
    assert [(r.name, r.native) for r in rows] == [("a.bmp", None), ("b.png", None)]
    assert differences == [f"labels: name 2 images, the release has {SETS[name].images}"]


def test_each_set_names_reference_type_and_level(tmp_path):
    twins.csiq(tmp_path / "csiq")
    row = next(r for r in read("csiq", tmp_path)[0] if r.name == "scene03.jpeg2000.2.png")
    assert (row.group, row.type, row.level) == ("scene03", "jpeg2000", 2)
    assert row.reference.name == "scene03.png" and row.image.parent.name == "jpeg2000"
    twins.live(tmp_path / "live")
    row = next(r for r in read("live", tmp_path)[0] if r.name == "gblur/img5.bmp")
    assert row.group == "ref29.bmp" or row.group.startswith("ref") and row.type == "gblur"
    assert row.image.parts[-2:] == ("gblur", "img5.bmp")


def test_lives_originals_are_dropped_and_the_rest_keeps_its_order(tmp_path):
    root = twins.live(tmp_path)
    rows = read("live", root)[0]
    (dmos,), (original,) = (
        labels.mat(root / "dmos_realigned.mat", "dmos_new"),
        labels.mat(root / "dmos_realigned.mat", "orgs"),
    )
    np.testing.assert_allclose([r.native for r in rows], dmos[original == 0])
    first_wn = np.flatnonzero(original[460:634] == 0)[0]
    assert next(r for r in rows if r.type == "wn").name == f"wn/img{first_wn + 1}.bmp"


def repacked(name, root):
    """The same release as others hand it on."""
    if name == "live":
        (root / "databaserelease2").rename(root / "LIVEIQA_release2")
        (root / "LIVEIQA_release2" / "gblur").rename(root / "LIVEIQA_release2" / "blur")
    if name == "csiq":
        flat = root / "dst_imgs_all"
        flat.mkdir()
        for path in sorted((root / "dst_imgs").rglob("*.png")):
            path.rename(flat / path.name)
        listed = labels.below(root / "csiq.DMOS.xlsx", "image", "dst_type", "dst_lev", "dmos")
        (root / "csiq.DMOS.xlsx").unlink()
        lines = [
            f"{r['image']}.{readers.CSIQ_TYPES[r['dst_type']]}.{r['dst_lev']}.png {r['dmos']}"
            for r in listed
        ]
        (root / "csiq_label.txt").write_text("\n".join(lines))
    if name == "kadid10k":
        table = labels.table(root / "kadid10k" / "dmos.csv")
        (root / "kadid10k" / "dmos.csv").unlink()
        lines = "\n".join(f"{r['dist_img']},{r['dmos']}" for r in table)
        (root / "kadid10k_label.txt").write_text(lines)
    if name == "tid2013":
        for path in sorted((root / "distorted_images").iterdir()):
            path.rename(path.with_name(path.name.upper()))
    if name == "koniq10k":
        (root / "koniq10k_distributions_sets.csv").unlink()
    if name == "livec":
        shutil.rmtree(root / "ChallengeDB_release" / "Data")
        lines = [f"{i}.{'JPG' if 533 <= i <= 1159 else 'bmp'},15.0,50.5" for i in range(3, 1165)]
        (root / "live_mos.csv").write_text("\n".join(["t1.bmp,18.3,63.9", *lines]))


@pytest.mark.parametrize("name", ["live", "csiq", "kadid10k", "tid2013", "koniq10k", "livec"])
def test_common_repackings_give_the_same_rows(name, tmp_path):
    twins.TWINS[name](tmp_path)
    want, _ = read(name, tmp_path)
    repacked(name, tmp_path)
    rows, differences = read(name, tmp_path)
    assert differences == []
    same = [(r.name, r.group, r.type, r.level) for r in rows]
    assert same == [(r.name, r.group, r.type, r.level) for r in want]
    if name != "livec":
        np.testing.assert_allclose([r.native for r in rows], [r.native for r in want])


def test_what_differs_is_named(tmp_path):
    """A file in the wrong case, a missing one, an extra one: exactly that is said."""
    root = twins.kadid10k(tmp_path) / "images"
    (root / "I03_04_05.png").rename(root / "i03_04_05.PNG")
    (root / "I81_25_05.png").unlink()
    twins.picture(root / "I82_01_01.png")
    (root / "Thumbs.db").write_bytes(b"")  # no picture: nobody's business
    rows, differences = read("kadid10k", tmp_path)
    assert differences == [
        "missing: kadid10k/images/I81_25_05.png",
        "wrong case: kadid10k/images/I03_04_05.png is called i03_04_05.PNG",
        "extra: kadid10k/images/I82_01_01.png",
    ]
    assert len(rows) == 10124 and any(r.image.name == "i03_04_05.PNG" for r in rows)


def test_at_most_twenty_lines_and_each_kind_is_among_them(tmp_path):
    root = twins.kadid10k(tmp_path) / "images"
    for k in range(1, 26):
        (root / f"I01_{k:02d}_01.png").unlink()
        twins.picture(root / f"I9{k}.png")
    (root / "I02.png").rename(root / "I02.PNG")
    lines = read("kadid10k", tmp_path)[1]
    assert len(lines) <= 20
    assert sum("... and" in line for line in lines) == 2
    assert {line.partition(":")[0] for line in lines} >= {"missing", "wrong case", "extra"}


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("live", lambda r: (r / "dmos_realigned.mat").unlink(), "no label file"),
        ("live", lambda r: (r / "dmos_realigned.mat").write_bytes(b"x" * 200), "MATLAB"),
        ("live", lambda r: shutil.rmtree(r / "wn"), "no folder wn or white_noise"),
        ("csiq", lambda r: (r / "csiq.DMOS.xlsx").write_bytes(b"PK"), "Excel"),
        ("csiq", lambda r: twins.excel(r / "csiq.DMOS.xlsx", [["a"]]), "no sheet has the columns"),
    ],
)
def test_damaged_releases_are_refused_in_words(name, spoil, message, tmp_path):
    root = twins.TWINS[name](tmp_path)
    spoil(root)
    with pytest.raises(LayoutError, match=message):
        read(name, tmp_path)


def test_koniqs_five_point_scale_is_not_taken_for_the_other(tmp_path):
    root = twins.koniq10k(tmp_path)
    path = root / "koniq10k_distributions_sets.csv"
    rows = labels.table(path)
    lines = [f"{r['image_name']},{1 + float(r['MOS']) / 25:.3f}" for r in rows]
    path.write_text("\n".join(["image_name,MOS", *lines]))
    with pytest.raises(LayoutError, match="MOS is on 1..5"):
        read("koniq10k", tmp_path)


# The real label files.


def real(folder, *names):
    path = SHARED / "labels" / folder
    if not path.is_dir():
        pytest.skip(f"no {path}: the real label files are not here")
    return [path / name for name in names]


@pytest.mark.parametrize(
    ("name", "folder", "count", "low", "high"),
    [
        ("live", "live", 779, -2.65, 111.8),
        ("csiq", "csiq", 866, 0, 1),
        ("tid2013", "tid2013", 3000, 0.24, 7.22),
        ("kadid10k", "kadid10k", 10125, 1, 4.94),
        ("koniq10k", "koniq10k", 10073, 3.9, 88.4),
        ("flive", "flive", 39810, 0, 100),
        ("spaq", "spaq", 11125, 0, 100),
        ("livec", "livec", 1160, 3.4, 92.5),
    ],
)
def test_real_label_files_name_the_whole_set_on_its_scale(name, folder, count, low, high, tmp_path):
    """Beside empty stand-ins of the images they name."""
    (source,) = real(folder, ".")
    for path in source.iterdir():
        shutil.copy(path, tmp_path / path.name)
    stand_ins(name, tmp_path)
    rows, differences = read(name, tmp_path)
    native = np.array([r.native for r in rows])
    assert len(rows) == count and native.min() >= low - 1e-9 and native.max() <= high + 1e-9
    if name == "livec":  # this copy of the list lacks two images
        assert differences == ["labels: name 1160 images, the release has 1162"]
    else:
        assert differences == []
    if name == "koniq10k":
        assert [sum(r.part == p for r in rows) for p in SETS[name].parts] == [7058, 1000, 2015]


def stand_ins(name, root):
    """Empty files where the images of a real label file would be."""
    column = {"kadid10k": "dist_img", "koniq10k": "image_name", "flive": "name"}.get(name, "n")
    if name == "live":
        references = labels.mat(root / "refnames_all.mat", "refnames_all")[0]
        files = {f"refimgs/{r}" for r in references}
        files |= {f"{t}/img{i}.bmp" for t, n in readers.LIVE_TYPES.items() for i in range(1, n + 1)}
    elif name == "spaq":
        files = {f"TestImage/{i:05d}.jpg" for i in range(1, 11126)}
    elif name in ("csiq", "tid2013"):
        path = next(p for p in root.iterdir() if p.stem in ("csiq_label", "mos_with_names"))
        names = [n for n, _ in labels.pairs(path)]
        refs = {
            n.split(".")[0] + ".png" if name == "csiq" else n[:3].lower() + ".bmp" for n in names
        }
        files = {f"all/{n}" for n in names} | {f"refs/{r}" for r in refs}
    else:
        path = next(p for p in root.iterdir() if p.suffix == ".csv" and "640" not in p.name)
        rows = labels.table(path, ("n", "s", "m") if column == "n" else ())
        folder = "" if name == "flive" else "images/"
        files = {folder + r[column] for r in rows} - {f"images/t{i}.bmp" for i in range(1, 8)}
        files |= {f"images/{r['ref_img']}" for r in rows} if name == "kadid10k" else set()
    for folder in {f.rpartition("/")[0] for f in files}:
        (root / folder).mkdir(parents=True)
    for file in files:
        (root / file).touch()
