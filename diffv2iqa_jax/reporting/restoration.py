"""Tables of what restoration runs gain, by type and level of distortion."""

import numpy as np

from diffv2iqa_jax.reporting.html import markdown_table
from diffv2iqa_jax.reporting.run import Run

DIGITS = {"psnr": 2, "ssim": 3}
Columns = dict[str, np.ndarray]  # (N,) each, a row an image


def gains_tables(runs: list[Run]) -> str:
    """Markdown: PSNR (dB) of the first run by type and level; PSNR and SSIM of all by type.

    Compares only the images that every run has restored; an image's name identifies it.

    Raises:
      ValueError: a run is of another task or has no predictions, or no image is in all of them.
    """
    for run in runs:
        if run.task != "restoration" or run.predictions is None:
            raise ValueError(f"{run.name}: is no evaluated restoration run; give runs of stage 1")
    common = sorted(set.intersection(*(set(run.predictions["name"].tolist()) for run in runs)))
    if not common:
        raise ValueError("the runs have restored no image in common; evaluate them on the same")
    predictions = [_of_images(run, common) for run in runs]
    intro = f"{len(common)} images; y_0 against x_dis, means"
    by_level, by_type = _by_level(predictions[0]), _by_type(runs, predictions)
    return "\n".join([intro, "", *by_level, "", *by_type])


def _of_images(run: Run, names: list[str]) -> Columns:
    """A run's predictions for the images of these names, in this order."""
    row_of = {name: row for row, name in enumerate(run.predictions["name"].tolist())}
    rows = [row_of[name] for name in names]
    return {key: column[rows] for key, column in run.predictions.items()}


def _by_level(columns: Columns) -> list[str]:
    """PSNR of the image and of its restoration: types down, levels across."""
    levels = sorted({*columns["level"].tolist()} - {"0"}, key=float)
    head = ["PSNR, dB", *(f"level {level}" for level in levels), "all"]
    rows = []
    for type in _types(columns):
        of_type = columns["type"] == type
        masks = [*(of_type & (columns["level"] == level) for level in levels), of_type]
        rows.append([type, *(_psnr_change(columns, mask) for mask in masks)])
    return markdown_table(head, rows)


def _by_type(runs: list[Run], predictions: list[Columns]) -> list[str]:
    """PSNR and SSIM, means over levels: types down; the image, then each run, across."""
    names = ["x_dis", *(run.name for run in runs)]
    head = ["", *(f"{measure.upper()} {name}" for measure in DIGITS for name in names)]
    first = predictions[0]
    rows = []
    for type in (*_types(first), "all"):
        mask = slice(None) if type == "all" else first["type"] == type
        cells = [type]
        for measure, digits in DIGITS.items():
            restored = [columns[f"{measure}_restored"] for columns in predictions]
            columns = [first[f"{measure}_image"], *restored]
            cells += [f"{column[mask].mean():.{digits}f}" for column in columns]
        rows.append(cells)
    return markdown_table(head, rows)


def _types(columns: Columns) -> list[str]:
    return sorted(set(columns["type"].tolist()))


def _psnr_change(columns: Columns, mask: np.ndarray) -> str:
    """Mean PSNR of the masked images before and after restoration; "" if there is none."""
    if not mask.any():
        return ""
    before, after = (columns[f"psnr_{name}"][mask].mean() for name in ("image", "restored"))
    return f"{before:.1f} → {after:.1f}"
