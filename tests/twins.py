"""Twins of the public releases: the official folders, names and label files, tiny pictures."""

import itertools
import os
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from scipy import io as matlab

from diffv2iqa_jax.data.sets.readers import CSIQ_TYPES, LIVE_TYPES

SHEET = "xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'"


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (3, 2)) -> Path:
    """A picture of (width, height), made of its seed, in the format its name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(folder: Path, names, size: tuple[int, int] = (3, 2)) -> None:
    """Many: all the same file, so that even 10,000 take a moment."""
    first = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        ending = Path(name).suffix.lower()
        if ending in first:
            os.link(first[ending], folder / name)
        else:
            first[ending] = picture(folder / name, size=size)


def excel(path: Path, rows: list[list], shared: bool = True) -> None:
    """A sheet with texts, shared as Excel writes them or in the cells, and numbers."""
    texts = sorted({str(c) for row in rows for c in row if isinstance(c, str)})

    def cell(value, place):
        if not isinstance(value, str):
            return f"<c r='{place}'><v>{value}</v></c>"
        if shared:
            return f"<c r='{place}' t='s'><v>{texts.index(value)}</v></c>"
        return f"<c r='{place}' t='inlineStr'><is><t>{escape(value)}</t></is></c>"

    def line(number, row):
        cells = (cell(v, f"{chr(65 + j)}{number}") for j, v in enumerate(row) if v != "")
        return f"<row r='{number}'>{''.join(cells)}</row>"

    body = "".join(line(i, row) for i, row in enumerate(rows, 1))
    sheet = f"<worksheet {SHEET}><sheetData>{body}</sheetData></worksheet>"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/worksheets/sheet1.xml", sheet)
        if shared:
            items = "".join(f"<si><t>{escape(t)}</t></si>" for t in texts)
            file.writestr("xl/sharedStrings.xml", f"<sst {SHEET}>{items}</sst>")


def live(root: Path) -> Path:
    """982 rows; every 4th or so is an undistorted original, 203 in all."""
    root, total = root / "databaserelease2", sum(LIVE_TYPES.values())
    original = np.zeros(total, np.uint8)
    original[np.linspace(0, total - 1, 203).astype(int)] = 1
    dmos = np.where(original, 0.0, np.linspace(1, 110, total))
    names = [f"ref{i % 29:02d}.bmp" for i in range(total)]
    pictures(root / "refimgs", sorted(set(names)))
    for type, count in LIVE_TYPES.items():
        pictures(root / type, [f"img{i}.bmp" for i in range(1, count + 1)])
        (root / type / "info.txt").write_text("")
    cells = np.empty((1, total), object)
    cells[0] = names
    matlab.savemat(root / "refnames_all.mat", {"refnames_all": cells})
    whole = {"dmos_new": dmos[None], "dmos_std": dmos[None], "orgs": original[None]}
    matlab.savemat(root / "dmos_realigned.mat", whole)
    matlab.savemat(root / "dmos.mat", {"dmos": dmos[None] * 0.9, "orgs": original[None]})
    return root


def csiq(root: Path) -> Path:
    """30 references; contrast has fewer levels than the other five types."""
    rows = [[""] * 6, ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]]
    for number in range(30):
        image = f"scene{number:02d}"
        pictures(root / "src_imgs", [f"{image}.png"])
        for index, (type, file) in enumerate(CSIQ_TYPES.items()):
            few = 4 if number < 26 else 3
            for level in range(1, (few if type == "contrast" else 5) + 1):
                pictures(root / "dst_imgs" / file.lower(), [f"{image}.{file}.{level}.png"])
                rows.append([image, index + 1, type, level, 0.1, level / 6])
    excel(root / "csiq.DMOS.xlsx", rows)
    return root


def _each(references: int, types: int):
    """Every (reference, type, level), from 1; five levels."""
    return itertools.product(*(range(1, n + 1) for n in (references, types, 5)))


def tid2013(root: Path) -> Path:
    """Names in the mixed case of the release."""
    refs = [f"I{i:02d}.BMP" for i in range(1, 25)] + ["i25.bmp"]
    pictures(root / "reference_images", refs)
    names = [f"i{r:02d}_{t:02d}_{k}.bmp" for r, t, k in _each(25, 24)]
    names = ["I" + n[1:] if i % 7 == 0 else n for i, n in enumerate(names)]
    pictures(root / "distorted_images", names)
    called = [n[0].swapcase() + n[1:] if i % 5 == 0 else n for i, n in enumerate(names)]
    lines = [f"{9 * (i + 0.5) / 3000:.5f} {n}" for i, n in enumerate(called)]
    (root / "mos_with_names.txt").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    (root / "readme").write_text("about")
    return root


def kadid10k(root: Path) -> Path:
    root = root / "kadid10k"
    refs = [f"I{i:02d}.png" for i in range(1, 82)]
    names = [f"I{r:02d}_{t:02d}_{k:02d}.png" for r, t, k in _each(81, 25)]
    pictures(root / "images", refs + names)
    rows = [f"{n},{n[:3]}.png,{1 + 4 * i / 10124:.2f},0.5" for i, n in enumerate(names)]
    (root / "dmos.csv").write_text("\n".join(["dist_img,ref_img,dmos,var", *rows]) + "\n")
    return root


def livec(root: Path) -> Path:
    root = root / "ChallengeDB_release"
    names = [f"{i}.{'JPG' if 533 <= i <= 1159 else 'bmp'}" for i in range(3, 1165)]
    pictures(root / "Images", names)
    training = [f"t{i}.bmp" for i in range(1, 8)]
    pictures(root / "Images" / "trainingImages", training)
    (root / "Data").mkdir()
    cells = np.empty((1169, 1), object)
    cells[:, 0] = training + names
    matlab.savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    mos = np.linspace(3.4, 92.4, 1169)[None]
    matlab.savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": mos})
    return root


def koniq10k(root: Path) -> Path:
    """Both resolutions and both label files."""
    names = [f"{10000000 + 7 * i}.jpg" for i in range(10073)]
    pictures(root / "1024x768", names, size=(1024, 768))
    pictures(root / "512x384", names, size=(512, 384))
    parts = ["training"] * 7058 + ["validation"] * 1000 + ["test"] * 2015
    score = np.linspace(4, 88, 10073)
    head = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD"
    five = ",0,0,0,0,0,100,"
    sets = [f"{n}{five}{s:.4f},0.5,{p}" for n, s, p in zip(names, score, parts, strict=True)]
    (root / "koniq10k_distributions_sets.csv").write_text("\n".join([head + ",set", *sets]))
    both = [f"{n}{five}{1 + s / 25:.4f},0.5,{s:.4f}" for n, s in zip(names, score, strict=True)]
    table = "\n".join([head + ",MOS_zscore", *both])
    (root / "koniq10k_scores_and_distributions.csv").write_text(table)
    return root


def flive(root: Path) -> Path:
    root = root / "database"
    folders = ("blur_dataset", "voc_emotic_ava", "EE371R")
    names = [f"{folders[i % 3]}/{i:05d}.jpg" for i in range(39810)]
    for folder in folders:
        pictures(root / folder, [n.partition("/")[2] for n in names if n.startswith(folder)])
    rows = [f"{n},{20 + 70 * i / 39810:.4f}" for i, n in enumerate(names)]
    (root / "labels_image.csv").write_text("\r\n".join(["name,mos", *rows]))
    test = [f"{n},50,1024" for n in names[::22]]
    (root / "labels640.csv").write_text("\n".join(["name_image,mos_image,width_image", *test]))
    return root


def spaq(root: Path) -> Path:
    names = [f"{i:05d}.jpg" for i in range(1, 11126)]
    pictures(root / "TestImage", names, size=(700, 600))
    (root / "Annotations").mkdir()
    rows = [["Image name", "MOS", "Brightness"]]
    rows += [[n, 100 * i / 11125, 50] for i, n in enumerate(names)]
    excel(root / "Annotations" / "MOS and Image attribute scores.xlsx", rows)
    return root


def pipal(root: Path) -> Path:
    """200 references, 116 distorted images of each, types spread over four folders."""
    refs = [f"A{i:04d}" for i in range(200)]
    pictures(root / "Train_Ref", [f"{r}.bmp" for r in refs])
    kinds = [(t, k) for t in range(40) for k in range(3) if k < 2 or t < 36]
    (root / "Train_Label").mkdir()
    for r in refs:
        names = [f"{r}_{t:02d}_{k:02d}.bmp" for t, k in kinds]
        lines = [f"{n},{930 + 7 * i}" for i, n in enumerate(names)]
        (root / "Train_Label" / f"{r}.txt").write_text("\n".join(lines))
    for part in range(4):
        names = [f"{r}_{t:02d}_{k:02d}.bmp" for r in refs for t, k in kinds if t % 4 == part]
        pictures(root / f"Train_Dis_{part + 1}", names)
    return root


def biq2021(root: Path) -> Path:
    names = [f"ss0{1 + i % 3} ({i}).jpg" for i in range(12000)]
    pictures(root / "Images", names)
    for file, own in (("Train", names[:10000]), ("Test", names[10000:])):
        rows = [f"{n},{i / 12000:.4f}" for i, n in enumerate(own)]
        (root / f"{file} (Images and MOS).csv").write_text("\n".join(["Image Name,MOS", *rows]))
    return root


TWINS = {
    "live": live,
    "live@dmos": live,
    "csiq": csiq,
    "tid2013": tid2013,
    "kadid10k": kadid10k,
    "livec": livec,
    "koniq10k": koniq10k,
    "koniq10k@512": koniq10k,
    "flive": flive,
    "spaq": spaq,
    "pipal": pipal,
    "biq2021": biq2021,
}
