"""One pass over the images, one table of predictions, and every number from that table."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from diffv2iqa_jax import pixels
from diffv2iqa_jax.evaluation import correlation, full_reference

TABLE = ("id", "name", "group", "type", "level")
NATIVE = ("native",)  # the opinion on the data set's own scale, where it has one
PSNR_MAX = 60.0  # dB; an identical image would make a mean infinite


def outputs(predict: Callable, weights, batches: Iterable, devices) -> Iterator[dict]:
    """Batches with what was predicted for them, padding removed, on the host.

    Args:
      predict: mapped by `devices`; (weights, batch) -> per-image arrays.
      weights: where `devices` wants them.
    """
    for local in batches:
        batch = devices.put({k: v for k, v in local.items() if v.dtype != object})
        out = devices.fetch(
            {**predict(weights, batch), **{k: batch[k] for k in KEPT if k in batch}}
        )
        real = out.pop("mask") > 0
        yield {k: v[real] for k, v in out.items()}


KEPT = ("id", "mos", "mask", "image", "reference", "crop")


def scores(rows: Iterable[dict]) -> dict[str, np.ndarray]:
    """Scores of each image, averaged over its crops, in the order of the ids.

    Raises:
      RuntimeError: there was not a single image.
    """
    found = [
        {k: v for k, v in row.items() if k in ("id", "mos") or k[:5] == "score"} for row in rows
    ]
    if not found:
        raise RuntimeError("nothing to evaluate: the part holds no image")
    flat = {k: np.concatenate([row[k] for row in found]) for k in found[0]}
    ids, place, crops = np.unique(flat["id"], return_inverse=True, return_counts=True)
    mean = lambda x: np.bincount(place, weights=x.astype(np.float64)) / crops
    return {"id": ids, **{k: mean(v) for k, v in flat.items() if k != "id"}}


def fidelity(rows: Iterable[dict]) -> dict[str, np.ndarray]:
    """PSNR (dB) and SSIM to the reference, of the image and of its restoration y_0."""
    ids, measured = [], []
    for row in rows:
        restored = np.asarray(pixels.to_uint8(row["views"][:, 0]))
        ids += row["id"].tolist()
        for image, y0, reference in zip(row["image"], restored, row["reference"], strict=True):
            psnr = [min(full_reference.psnr(reference, x), PSNR_MAX) for x in (image, y0)]
            measured.append(psnr + [full_reference.ssim(reference, x) for x in (image, y0)])
    if not ids:
        raise RuntimeError("nothing to evaluate: the part holds no image")
    order = np.argsort(ids)
    columns = np.array(measured)[order].T
    names = ("psnr_image", "psnr_restored", "ssim_image", "ssim_restored")
    return {"id": np.array(ids)[order], **dict(zip(names, columns, strict=True))}


def summarise(
    task: str, table: dict[str, np.ndarray], types: np.ndarray, *, span: float = 1.0
) -> dict:
    """The numbers of results.json from the table of predictions.

    Args:
      types: the distortion of each image.
      span: how many units of the data set's own scale quality 0 to 1 is.
    """
    if task == "quality":
        return correlation.summary({**table, "type": types}, span=span)
    names = [k for k in table if k != "id"]
    means = lambda rows: {k: float(np.mean(table[k][rows])) for k in names}
    kinds = sorted(set(types.tolist()) - {""})
    per_type = {t: {"images": int(np.sum(types == t)), **means(types == t)} for t in kinds}
    return {"images": len(table["id"]), **means(slice(None)), "per_type": per_type}


MEASURES = {"quality": scores, "restoration": fidelity}
OUTPUTS = {"quality": ("score", "score_guidance", "score_difference"), "restoration": ("views",)}


def curve(task: str, results: dict) -> dict[str, float | None]:
    """The few numbers worth a curve."""
    if task == "quality":
        named = results["scores"].items()
        return {f"val/srcc_{k}".replace("srcc_score_", "srcc_"): v["srcc"] for k, v in named}
    return {f"val/{k}": results[k] for k in ("psnr_image", "psnr_restored", "ssim_restored")}


def write_table(path: str, table: dict[str, np.ndarray], facts: dict[str, np.ndarray]) -> None:
    """predictions.csv: what is known of each image, then what was predicted."""
    kept = (*TABLE, *(k for k in NATIVE if k in facts))
    columns = {k: facts[k][table["id"]] for k in kept} | {
        k: v for k, v in table.items() if k != "id"
    }
    with open(path + ".tmp", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([f"{x:.6f}" if isinstance(x, float) else x for x in row])
    os.replace(path + ".tmp", path)


def choose(task: str, table: dict[str, np.ndarray], facts: dict, count: int) -> dict[int, str]:
    """Images worth a look, and why: one of each type at a high level, then best and worst."""
    ids = table["id"]
    chosen = {}
    for kind in sorted(set(facts["type"][ids].tolist()) - {""}):
        of_type = ids[facts["type"][ids] == kind]
        level = facts["level"][of_type]
        near = of_type[np.argmin(np.abs(level - 4))]
        chosen[int(near)] = f"type {kind} level {int(facts['level'][near])}"
    if task == "quality":
        fit = correlation.logistic_fit(table["score"], table["mos"])
        error = np.abs(fit(table["score"]) - table["mos"])
    else:
        error = table["psnr_image"] - table["psnr_restored"]
    order = ids[np.argsort(error, kind="stable")].tolist()
    for why, some in (("best", order), ("worst", order[::-1])):
        rest = [i for i in some if i not in chosen]
        chosen |= {i: why for i in rest[:count]}
    return chosen


def write_examples(path: str, rows: Iterable[dict], chosen: dict[int, str]) -> None:
    """examples.npz: pictures, views and maps of the chosen images (one crop of each)."""
    parts: dict[str, list] = {}
    seen = set()
    for row in rows:
        for i, number in enumerate(row["id"].tolist()):
            if number in chosen and number not in seen:
                seen.add(number)
                maps = {k: v[i] for k, v in row.items() if k.startswith("map_")}
                images = {k: row[k][i] for k in ("image", "reference") if k in row}
                views = np.asarray(pixels.to_uint8(row["views"][i]))
                one = {"id": number, "why": chosen[number], "views": views, **images, **maps}
                for k, v in one.items():
                    parts.setdefault(k, []).append(v)
    with open(path + ".tmp", "wb") as file:
        np.savez_compressed(file, **{k: np.stack(v) for k, v in parts.items()})
    os.replace(path + ".tmp", path)
