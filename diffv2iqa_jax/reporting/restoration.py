"""What restoration runs gain, by type and level of distortion, as tables."""

import numpy as np

from diffv2iqa_jax.reporting.html import markdown
from diffv2iqa_jax.reporting.run import Run

UNITS = {"psnr": 2, "ssim": 3}  # digits


def table(runs: list[Run]) -> str:
    """Markdown. PSNR (dB) of one run by type and level; PSNR and SSIM of all runs by type.

    Only images are compared that every run has restored, found by their names.

    Raises:
      ValueError: a run is of another task or has no predictions, or no image is in all of them.
    """
    for run in runs:
        if run.task != "restoration" or run.predictions is None:
            raise ValueError(f"{run.name}: is no evaluated restoration run; give runs of stage 1")
    common = sorted(set.intersection(*(set(run.predictions["name"].tolist()) for run in runs)))
    if not common:
        raise ValueError("the runs have restored no image in common; evaluate them on the same")
    tables = [_rows(run, common) for run in runs]
    head = f"{len(common)} images; y_0 against x_dis, means"
    return "\n".join([head, "", *_by_level(tables[0]), "", *_by_type(runs, tables)])


def _rows(run: Run, names: list[str]) -> dict[str, np.ndarray]:
    place = {name: i for i, name in enumerate(run.predictions["name"].tolist())}
    order = [place[name] for name in names]
    return {key: column[order] for key, column in run.predictions.items()}


def _by_level(rows: dict[str, np.ndarray]) -> list[str]:
    """PSNR of the image and of its restoration: types down, levels across."""
    levels = sorted({*rows["level"].tolist()} - {"0"}, key=float)
    lines = [["PSNR, dB", *(f"level {level}" for level in levels), "all"]]
    for kind in _types(rows):
        of_type = rows["type"] == kind
        chosen = [of_type & (rows["level"] == level) for level in levels]
        lines.append([kind, *(_change(rows, "psnr", some) for some in (*chosen, of_type))])
    return markdown(lines[0], lines[1:])


def _by_type(runs: list[Run], tables: list[dict[str, np.ndarray]]) -> list[str]:
    """PSNR and SSIM, means over levels: types down; the image, then each run, across."""
    names = ["x_dis", *(run.name for run in runs)]
    lines = [["", *(f"{unit.upper()} {name}" for unit in UNITS for name in names)]]
    for kind in (*_types(tables[0]), "all"):
        cells = [kind]
        for unit, digits in UNITS.items():
            columns = [tables[0][f"{unit}_image"], *(t[f"{unit}_restored"] for t in tables)]
            some = slice(None) if kind == "all" else tables[0]["type"] == kind
            cells += [f"{column[some].mean():.{digits}f}" for column in columns]
        lines.append(cells)
    return markdown(lines[0], lines[1:])


def _types(rows: dict[str, np.ndarray]) -> list[str]:
    return sorted(set(rows["type"].tolist()))


def _change(rows: dict[str, np.ndarray], unit: str, some: np.ndarray) -> str:
    if not some.any():
        return ""
    before, after = (rows[f"{unit}_{name}"][some].mean() for name in ("image", "restored"))
    return f"{before:.1f} → {after:.1f}"
