"""Turns a release's folder into rows: one short reader for each data set.

A reader knows the names inside its set, and `Layout` finds the files. What is odd about a release
(its columns, order of rows, names) is said in its reader.
"""

import re
from collections.abc import Callable

import numpy as np

from diffv2iqa_jax.data.sets import labels
from diffv2iqa_jax.data.sets.catalog import LayoutError, NothingError, Row
from diffv2iqa_jax.data.sets.layout import Layout

Listed = list[tuple[str, float]]  # names of images and their scores

LIVE_TYPES = {  # type -> images, references among them included, in the order of the label file
    "jp2k": 227,
    "jpeg": 233,
    "wn": 174,
    "gblur": 174,
    "fastfading": 174,
}
LIVE_OTHER_NAMES = {"gblur": ("blur",), "wn": ("white_noise",), "fastfading": ("fast_fading",)}

CSIQ_TYPES = {  # as the Excel sheet calls it -> as the files do
    "noise": "AWGN",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
    "fnoise": "fnoise",
    "blur": "BLUR",
    "contrast": "contrast",
}


def live(layout: Layout, file: str, variable: str) -> list[Row]:
    """One row of scores for all five types; undistorted originals stand among them."""
    path = layout.file(file)
    (dmos,) = labels.mat(path, variable)
    (name,) = labels.mat(layout.file("refnames_all.mat"), "refnames_all")
    (original,) = labels.mat(path, "orgs")
    if len(dmos) != sum(LIVE_TYPES.values()):
        raise LayoutError(f"{path}: {variable} holds {len(dmos)} scores instead of 982")
    # Some copies cut orgs or refnames_all down to the distorted images; an original has DMOS 0.
    original = original.astype(bool) if len(original) == len(dmos) else dmos == 0
    kept = np.flatnonzero(~original)
    name = name[kept] if len(name) == len(dmos) else name
    if len(name) != len(kept):
        raise LayoutError(f"{path}: {len(kept)} distorted images, yet {len(name)} references")
    references = sorted(set(name.tolist()))
    folder = layout.folder(references, "refimgs", "ref_imgs", "references")
    originals = {r: layout.find(folder, r) for r in references}
    type = np.repeat(list(LIVE_TYPES), list(LIVE_TYPES.values()))
    number = np.concatenate([np.arange(1, n + 1) for n in LIVE_TYPES.values()])
    place = {
        t: layout.folder(_images(n), t, *LIVE_OTHER_NAMES.get(t, ()), elsewhere=False)
        for t, n in LIVE_TYPES.items()
    }
    rows = []
    for i, reference in zip(kept, name.tolist(), strict=True):
        image = f"img{number[i]}.bmp"
        paths = layout.find(place[type[i]], image), originals[reference]
        rows.append((f"{type[i]}/{image}", *paths, float(dmos[i]), reference, str(type[i])))
    for i in np.flatnonzero(original):  # the copies of originals are known, not extra
        layout.claim(place[type[i]], f"img{number[i]}.bmp")
    return _there(rows)


def _images(count: int) -> list[str]:
    return [f"img{i}.bmp" for i in range(1, count + 1)]


def csiq(layout: Layout) -> list[Row]:
    """The authors' Excel sheet, or the list `<ref>.<TYPE>.<level>.png score` that goes around."""
    sheets = layout.files("csiq.DMOS.xlsx")
    if sheets:
        table = labels.below(sheets[0], "image", "dst_type", "dst_lev", "dmos")
        scores = labels.numbers(sheets[0], table, "dmos")
        unknown = sorted({r["dst_type"] for r in table} - set(CSIQ_TYPES))
        if unknown:
            raise LayoutError(f"{sheets[0]}: dst_type {unknown}: known are {sorted(CSIQ_TYPES)}")
        named = [
            f"{r['image']}.{CSIQ_TYPES[r['dst_type']]}.{float(r['dst_lev']):.0f}.png" for r in table
        ]
        listed = list(zip(named, scores, strict=True))
    else:
        listed = labels.pairs(layout.file("csiq_label.txt", "csiq.DMOS.xlsx"))
    return _by_name(layout, listed, r"(.+)\.(\w+)\.(\d)\.png", "{}.png", "src_imgs", "dst_imgs_all")


def tid2013(layout: Layout) -> list[Row]:
    """Score first, then the name, in any case; I25 is an artificial picture."""
    listed = labels.pairs(layout.file("mos_with_names.txt"))
    listed = [(name.lower(), score) for name, score in listed]
    pattern, reference = r"(i\d\d)_(\d\d)_(\d)\.bmp", "{}.bmp"
    return _by_name(layout, listed, pattern, reference, "reference_images", "distorted_images")


def kadid10k(layout: Layout) -> list[Row]:
    """The authors' table, or the comma-separated list of names and scores that goes around."""
    tables = layout.files("dmos.csv")
    if tables:
        table = labels.table(tables[0])
        labels.pick(tables[0], table, "dist_img", "dmos")
        scores = labels.numbers(tables[0], table, "dmos")
        listed = [(r["dist_img"], s) for r, s in zip(table, scores, strict=True)]
    else:
        listed = labels.pairs(layout.file("kadid10k_label.txt", "dmos.csv"))
    return _by_name(layout, listed, r"(I\d\d)_(\d\d)_(\d\d)\.png", "{}.png", "images", "images")


def livec(layout: Layout) -> list[Row]:
    """Two MATLAB files in step, or a table name, deviation, score; not the 7 training images."""
    mats = layout.files("AllMOS_release.mat")
    if mats:
        (name,) = labels.mat(layout.file("AllImages_release.mat"), "AllImages_release")
        (mos,) = labels.mat(mats[0], "AllMOS_release")
        if len(name) != len(mos):
            raise LayoutError(f"{mats[0]}: {len(mos)} scores of {len(name)} images")
        listed = list(zip(name.tolist(), mos.tolist(), strict=True))
    else:
        path = layout.file("live_mos.csv", "AllMOS_release.mat")
        table = labels.table(path, ("name", "std", "mos"))
        scores = labels.numbers(path, table, "mos")
        listed = [(r["name"], s) for r, s in zip(table, scores, strict=True)]
    return _photos(layout, [x for x in listed if not re.fullmatch(r"t[1-7]\.bmp", x[0])], "Images")


def koniq10k(layout: Layout, *usual: str) -> list[Row]:
    """MOS on 0..100: MOS_zscore of one file; MOS of the other, which names the parts too."""
    names = ("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    path = layout.file(*names)
    table = labels.table(path)
    labels.pick(path, table, "image_name")
    column = "MOS_zscore" if "MOS_zscore" in table[0] else "MOS"
    labels.pick(path, table, column)
    scores = labels.numbers(path, table, column)
    if max(scores) <= 5:
        raise LayoutError(f"{path}: {column} is on 1..5; {names[0]} has the scale used here")
    our_names = {"training": "train", "validation": "val", "test": "test"}
    listed = [(r["image_name"], s) for r, s in zip(table, scores, strict=True)]
    return _photos(
        layout, listed, *usual, parts=[our_names.get(r.get("set", ""), "") for r in table]
    )


def flive(layout: Layout) -> list[Row]:
    """Names with their sub-folder; the images of labels640.csv are the official test part."""
    path = layout.file("labels_image.csv")
    table = labels.table(path)
    name, score = ("name", "mos") if "name" in (table or [{}])[0] else ("name_image", "mos_image")
    labels.pick(path, table, name, score)
    test = layout.files("labels640.csv")
    test_names = {r["name_image"] for r in labels.table(test[0])} if test else set()
    scores = labels.numbers(path, table, score)
    parts = [("test" if r[name] in test_names else "train") if test else "" for r in table]
    listed = [(r[name], s) for r, s in zip(table, scores, strict=True)]
    within: dict[str, list[str]] = {}
    for folder, _, file in (n.rpartition("/") for n, _ in listed):
        within.setdefault(folder, []).append(file)
    at = {f: layout.folder(files, f.rpartition("/")[2]) for f, files in within.items()}
    images = [layout.find(at[f], file) for f, _, file in (n.rpartition("/") for n, _ in listed)]
    rows = [
        (n, image, None, score, n, "", 0, part)
        for (n, score), image, part in zip(listed, images, parts, strict=True)
    ]
    return _there(rows, reference=False)


def spaq(layout: Layout) -> list[Row]:
    path = layout.file("MOS and Image attribute scores.xlsx")
    table = labels.below(path, "Image name", "MOS")
    scores = labels.numbers(path, table, "MOS")
    listed = [(r["Image name"], s) for r, s in zip(table, scores, strict=True)]
    return _photos(layout, listed, "TestImage")


def pipal(layout: Layout) -> list[Row]:
    """One text file of `name,score` for each reference; distorted images in one to four folders."""
    listed = []
    for path in layout.matching(r"A\d{4}\.txt"):
        listed += labels.pairs(path)
    if not listed:
        layout.file("A0001.txt")
    return _by_name(
        layout, listed, r"(A\d{4})_(\d\d)_(\d\d)\.bmp", "{}.bmp", "Train_Ref", *PIPAL_FOLDERS
    )


PIPAL_FOLDERS = ("Train_Dis", "Train_Dist", "Train_Distort", "Dist_Imgs", "Distortion_1")


def biq2021(layout: Layout) -> list[Row]:
    """The release's two tables, or one table image, mos, split of a part of it."""
    path, name, score = layout.files("labels.csv"), "image", "mos"
    tables = {"": path[0]} if path else {}
    if not path:
        name, score = "Image Name", "MOS"
        tables = {p: layout.file(f"{p.title()} (Images and MOS).csv") for p in ("train", "test")}
    listed, parts = [], []
    for part, path in tables.items():
        table = labels.table(path)
        labels.pick(path, table, name, score, *([] if part else ["split"]))
        scores = labels.numbers(path, table, score)
        listed += [(r[name], s) for r, s in zip(table, scores, strict=True)]
        # The held-out part of a part is called dev: nothing is selected on it here.
        layout.expected = None if part else len(listed)
        parts += [part or {"dev": "test"}.get(r["split"], r["split"]) for r in table]
    return _photos(layout, listed, "Images", parts=parts)


def pool(layout: Layout, *usual: str) -> list[Row]:
    """Images without opinions: all in folders of a usual name, or, without any, all there are."""
    rows = []
    for folder in layout.folders(*usual):
        for path in layout.images(folder):
            name = path.relative_to(folder if usual else layout.root).as_posix()
            rows.append(Row(name, path, None, None, name))
    if not rows:
        raise NothingError(f"{layout.root}: no images{' in ' + '/'.join(usual) if usual else ''}")
    return rows


READERS: dict[str, Callable[[Layout], list[Row]]] = {
    "live": lambda x: live(x, "dmos_realigned.mat", "dmos_new"),
    "live@dmos": lambda x: live(x, "dmos.mat", "dmos"),
    "csiq": csiq,
    "tid2013": tid2013,
    "kadid10k": kadid10k,
    "livec": livec,
    "koniq10k": lambda x: koniq10k(x, "1024x768"),
    "koniq10k@512": lambda x: koniq10k(x, "512x384"),
    "flive": flive,
    "spaq": spaq,
    "spaq@512": spaq,
    "pipal": pipal,
    "biq2021": biq2021,
    "kadis700k": lambda x: pool(x, "ref_imgs"),
    "waterloo": lambda x: pool(x, "pristine_images"),
}


def _there(rows: list[tuple], reference: bool = True) -> list[Row]:
    """The rows whose files are all there; the layout has noted the files that are not."""
    every = [Row(*row) for row in rows]
    return [r for r in every if r.image and (r.reference or not reference)]


def _photos(
    layout: Layout, listed: Listed, *usual: str, parts: list[str] | None = None
) -> list[Row]:
    """Rows of authentic images in one folder; each is a group by itself."""
    folder = layout.folder([name for name, _ in listed], *usual)
    parts = parts or [""] * len(listed)
    rows = [
        (name, layout.find(folder, name), None, score, name, "", 0, part)
        for (name, score), part in zip(listed, parts, strict=True)
    ]
    return _there(rows, reference=False)


def _by_name(
    layout: Layout, listed: Listed, pattern: str, original: str, at: str, *usual: str
) -> list[Row]:
    """Distorted images whose name holds reference, type and level.

    Args:
      listed: names and scores.
      pattern: of a name, with groups of reference, type and level.
      original: name of a reference's file.
      at: usual folder of the references.
      usual: usual folders of the distorted images; they may lie in several, by type or other.
    """
    parsed = [re.fullmatch(pattern, name) for name, _ in listed]
    wrong = [name for (name, _), m in zip(listed, parsed, strict=True) if m is None]
    if wrong:
        raise LayoutError(f"{len(wrong)} names are not of this set", wrong)
    references = sorted({original.format(m[1]) for m in parsed})
    folder = layout.folder(references, at)
    originals = {r: layout.find(folder, r) for r in references}
    places = layout.places([name for name, _ in listed], *usual)
    rows = [
        (name, layout.find(places[name], name), originals[original.format(m[1])])
        + (score, m[1], m[2], int(m[3]))
        for (name, score), m in zip(listed, parsed, strict=True)
    ]
    return _there(rows)
