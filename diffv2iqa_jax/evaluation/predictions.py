"""Predicts every image once, keeps the predictions as a table, and computes results from it."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from diffv2iqa_jax import pixels, storage
from diffv2iqa_jax.evaluation import correlation, full_reference

Table = dict[str, np.ndarray]  # columns (N,) by name, a row an image

TABLE = ("id", "name", "group", "type", "level")
NATIVE = ("native",)  # the opinion on the data set's own scale, where it has one
KEPT = ("id", "mos", "mask", "image", "reference", "crop")  # of a batch, beside its predictions
PSNR_MAX = 60.0  # dB; an identical image would make a mean infinite


def outputs(
    predict: Callable, weights: Any, batches: Iterable[dict], devices: Any
) -> Iterator[dict[str, np.ndarray]]:
    """Predicts batches; yields the predictions and the KEPT arrays, unpadded, on the host.

    Args:
      predict: (weights, batch) -> per-image arrays, mapped by `devices`.
      weights: placed as `devices` wants them.
      devices: from `training.sharding.make`.
    """
    for local in batches:
        batch = devices.put({k: v for k, v in local.items() if v.dtype != object})
        kept = {k: batch[k] for k in KEPT if k in batch}
        arrays = devices.fetch({**predict(weights, batch), **kept})
        real = arrays.pop("mask") > 0
        yield {k: v[real] for k, v in arrays.items()}


def scores(batches: Iterable[dict]) -> Table:
    """Averages the scores of each image over its crops; rows in the order of the ids.

    Args:
      batches: from `outputs`.

    Raises:
      RuntimeError: there was not a single image.
    """
    small = [
        {k: v for k, v in batch.items() if k in ("id", "mos") or k.startswith("score")}
        for batch in batches
    ]
    if not small:
        raise RuntimeError("nothing to evaluate: the part holds no image")
    crops = {k: np.concatenate([batch[k] for batch in small]) for k in small[0]}
    ids, row, count = np.unique(crops["id"], return_inverse=True, return_counts=True)
    means = {
        k: np.bincount(row, weights=v.astype(np.float64)) / count
        for k, v in crops.items()
        if k != "id"
    }
    return {"id": ids, **means}


def fidelity(batches: Iterable[dict]) -> Table:
    """PSNR (dB) and SSIM to the reference, of the image and of its restoration y_0.

    Args:
      batches: from `outputs`.

    Raises:
      RuntimeError: there was not a single image.
    """
    ids, measures = [], []
    for batch in batches:
        restored = np.asarray(pixels.to_uint8(batch["views"][:, 0]))
        ids += batch["id"].tolist()
        pictures = zip(batch["image"], restored, batch["reference"], strict=True)
        for image, y0, reference in pictures:
            psnr = [min(full_reference.psnr(reference, x), PSNR_MAX) for x in (image, y0)]
            measures.append(psnr + [full_reference.ssim(reference, x) for x in (image, y0)])
    if not ids:
        raise RuntimeError("nothing to evaluate: the part holds no image")
    order = np.argsort(ids)
    columns = np.array(measures)[order].T
    names = ("psnr_image", "psnr_restored", "ssim_image", "ssim_restored")
    return {"id": np.array(ids)[order], **dict(zip(names, columns, strict=True))}


def summarise(task: str, table: Table, types: np.ndarray, *, span: float = 1.0) -> dict:
    """The numbers of results.json, from the table of predictions.

    Args:
      types: the distortion of each image, "" where it has none.
      span: see `correlation.summary`.
    """
    if task == "quality":
        return correlation.summary({**table, "type": types}, span=span)
    per_type = {
        type: {"images": int(np.sum(types == type)), **_means(table, types == type)}
        for type in sorted(set(types.tolist()) - {""})
    }
    return {"images": len(table["id"]), **_means(table, slice(None)), "per_type": per_type}


def _means(table: Table, rows: np.ndarray | slice) -> dict[str, float]:
    """The mean of each column over these rows."""
    return {k: float(np.mean(column[rows])) for k, column in table.items() if k != "id"}


MEASURES = {"quality": scores, "restoration": fidelity}
OUTPUTS = {"quality": ("score", "score_guidance", "score_difference"), "restoration": ("views",)}


def curve(task: str, results: dict) -> dict[str, float | None]:
    """The few numbers of the results that are worth a curve over the training steps."""
    if task == "quality":
        by_score = results["scores"].items()
        return {f"val/srcc_{k}".replace("srcc_score_", "srcc_"): v["srcc"] for k, v in by_score}
    return {f"val/{k}": results[k] for k in ("psnr_image", "psnr_restored", "ssim_restored")}


def headline(results: dict) -> dict[str, float]:
    """The numbers of results.json that a run ends with, by what a page calls them."""
    if results["task"] == "quality":
        scores = results["scores"].get("score", {})
        known = {"SRCC": "srcc", "PLCC, fitted": "plcc_fit", "RMSE, fitted": "rmse_fit"}
        return {k: scores[v] for k, v in known.items() if scores.get(v) is not None}
    known = {"PSNR of the images": "psnr_image", "restored": "psnr_restored"}
    return {k: results[v] for k, v in known.items() if results.get(v) is not None}


def write_table(path: str, table: Table, facts: Table) -> None:
    """Writes predictions.csv: the facts about each image, then its predictions.

    Args:
      facts: the data set's columns, one row for each id.
    """
    names = (*TABLE, *(k for k in NATIVE if k in facts))
    predicted = {k: v for k, v in table.items() if k != "id"}
    columns = {k: facts[k][table["id"]] for k in names} | predicted
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([f"{x:.6f}" if isinstance(x, float) else x for x in row])
    storage.write(path, file.getvalue())


def choose(task: str, table: Table, facts: Table, count: int) -> dict[int, str]:
    """Chooses images worth a look: one of each type at level 4 or near, then best and worst.

    Args:
      facts: the data set's columns, one row for each id.
      count: how many of the best, and of the worst.

    Returns:
      Id -> why it was chosen.
    """
    ids = table["id"]
    chosen = {}
    for type in sorted(set(facts["type"][ids].tolist()) - {""}):
        of_type = ids[facts["type"][ids] == type]
        level = facts["level"][of_type]
        nearest = of_type[np.argmin(np.abs(level - 4))]
        chosen[int(nearest)] = f"type {type} level {int(facts['level'][nearest])}"
    if task == "quality":
        fit = correlation.logistic_fit(table["score"], table["mos"])
        error = np.abs(fit(table["score"]) - table["mos"])
    else:
        error = table["psnr_image"] - table["psnr_restored"]
    best_first = ids[np.argsort(error, kind="stable")].tolist()
    for why, order in (("best", best_first), ("worst", best_first[::-1])):
        not_chosen = [i for i in order if i not in chosen]
        chosen |= {i: why for i in not_chosen[:count]}
    return chosen


def write_examples(path: str, batches: Iterable[dict], chosen: dict[int, str]) -> None:
    """Writes examples.npz: picture, views and maps of each chosen image (one crop of each).

    Args:
      batches: from `outputs`.
      chosen: from `choose`.
    """
    columns: dict[str, list] = {}
    written = set()
    for batch in batches:
        for row, id in enumerate(batch["id"].tolist()):
            if id not in chosen or id in written:
                continue
            written.add(id)
            maps = {k: v[row] for k, v in batch.items() if k.startswith("map_")}
            images = {k: batch[k][row] for k in ("image", "reference") if k in batch}
            views = np.asarray(pixels.to_uint8(batch["views"][row]))
            example = {"id": id, "why": chosen[id], "views": views, **images, **maps}
            for k, v in example.items():
                columns.setdefault(k, []).append(v)
    file = io.BytesIO()
    np.savez_compressed(file, **{k: np.stack(v) for k, v in columns.items()})
    storage.write(path, file.getvalue())
