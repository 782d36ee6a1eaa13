"""Where two models disagree most: pairs of images that one finds equal and the other does not.

  python -m diffv2iqa_jax.main --config C --workdir RUN --mode evaluate --on pool/mine  (both runs)
  python -m diffv2iqa_jax.tools.gmad RUN_A RUN_B --on pool/mine -o gmad

The group maximum differentiation of Ma et al. (2016, 2020): no opinions are needed, a look at
the pairs tells which model errs. Writes pairs.json and pairs.html. Exit code 2: a run lacks the
evaluation, or the pool is not there.
"""

import argparse
import csv
import json
import os
import sys
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffv2iqa_jax.reporting import charts, html

LEVELS = 6
SIDE = 320  # pixels of an embedded image's longer side


def pairs(defender, attacker, group, levels: int = LEVELS) -> list[dict[str, Any]]:
    """The attacker's farthest pair in each level of the defender.

    Args:
      defender, attacker: (N,), scores of the same images.
      group: (N,), the reference of each image; a pair never shows one reference twice.
      levels: equal steps between the defender's lowest and highest score.

    Returns:
      One dict a level that holds two references, from the lowest: level (from 0), low and high
      (rows of the worse and the better image by the attacker), gap (between them, in the
      attacker's units), defender_gap.

    Raises:
      ValueError: columns of different length, scores that are not finite, or levels below 1.
    """
    d, a = np.asarray(defender, np.float64), np.asarray(attacker, np.float64)
    names = np.asarray(group)
    if d.ndim != 1 or d.shape != a.shape or d.shape != names.shape:
        raise ValueError(f"columns of one length are needed; got {d.shape}, {a.shape}")
    if levels < 1 or not np.isfinite([d, a]).all():
        raise ValueError("levels must be at least 1 and all scores finite")
    if not len(d):
        return []
    edges = np.linspace(d.min(), d.max(), levels + 1)[1:-1]
    level = np.searchsorted(edges, d, side="right")
    found = []
    for number in range(levels):
        rows = np.flatnonzero(level == number)
        rows = rows[np.argsort(a[rows], kind="stable")]
        if len(set(names[rows].tolist())) < 2:
            continue
        low, high = rows[0], rows[-1]
        if names[low] == names[high]:  # one of the two has to be another reference's
            others = rows[names[rows] != names[low]]
            choices = ((low, others[-1]), (others[0], high))
            low, high = max(choices, key=lambda pair: a[pair[1]] - a[pair[0]])
        gaps = {"gap": float(a[high] - a[low]), "defender_gap": float(d[high] - d[low])}
        found.append({"level": number, "low": int(low), "high": int(high), **gaps})
    return found


def read(run: str, pool: str) -> dict[str, np.ndarray]:
    """Columns id, name, group and score of a run's evaluation on a pool.

    Raises:
      ValueError: the run was not evaluated on it.
    """
    path = Path(run, "eval", pool.replace("/", "-"), "predictions.csv")
    if not path.is_file():
        how = f"--mode evaluate --on {pool}"
        raise ValueError(f"{path}: is not there; evaluate the run with {how} first")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {k: np.array([r[k] for r in rows]) for k in ("name", "group")}
    numbers = {"id": np.array([int(r["id"]) for r in rows])}
    return table | numbers | {"score": np.array([float(r["score"]) for r in rows])}


def compare(runs: tuple[str, str], pool: str, levels: int) -> list[dict[str, Any]]:
    """Pairs in both directions, with the names, ids and both scores of their images.

    Raises:
      ValueError: a run lacks the evaluation, or the two saw different images.
    """
    tables = [read(run, pool) for run in runs]
    if not np.array_equal(tables[0]["id"], tables[1]["id"]):
        raise ValueError(f"{runs[0]} and {runs[1]}: evaluated on different images of {pool}")
    ids, name, group = (tables[0][k] for k in ("id", "name", "group"))
    found = []
    for number, attacker in enumerate(runs):
        scores = tables[1 - number]["score"], tables[number]["score"]
        for pair in pairs(*scores, group, levels):
            images = {
                end: {
                    "id": int(ids[pair[end]]),
                    "name": str(name[pair[end]]),
                    "defender": float(scores[0][pair[end]]),
                    "attacker": float(scores[1][pair[end]]),
                }
                for end in ("low", "high")
            }
            found.append({"attacker": attacker, "defender": runs[1 - number], **pair, **images})
    return found


def pictures(found: list[dict], pool: str, folder: str) -> dict[int, np.ndarray]:
    """The images of the pairs, uint8, scaled down to be looked at."""
    from diffv2iqa_jax.data import evaluation, reading  # TensorFlow takes seconds to import

    source = reading.load(pool, folder)
    ids = sorted({p[end]["id"] for p in found for end in ("low", "high")})
    out = {}
    for batch in evaluation.whole(source, np.array(ids), batch=1):
        image = Image.fromarray(batch["image"][0])
        image.thumbnail((SIDE, SIDE))
        out[int(batch["id"][0])] = np.asarray(image)
    return out


def page(found: list[dict], images: dict[int, np.ndarray]) -> str:
    """Both directions, each level a row: what the attacker finds worse, and better."""
    parts = []
    for attacker in dict.fromkeys(p["attacker"] for p in found):
        rows = []
        own = [p for p in found if p["attacker"] == attacker]
        for p in own:
            uri = lambda end, p=p: charts.data_uri(images[p[end]["id"]], exact=False)
            cells = [(uri("low"), "worse", False), (uri("high"), "better", False)]
            scores = "".join(
                f"<small>{escape(p[e]['name'])}: {p[e]['attacker']:.3f}, "
                f"by the other {p[e]['defender']:.3f}</small>"
                for e in ("low", "high")
            )
            rows.append((f"<b>level {p['level'] + 1}</b>{scores}", cells))
        heads = ["worse, it says", "better, it says"]
        note = f"{escape(own[0]['defender'])} scores both images of a row nearly the same."
        body = html.block("Pairs", html.pictures(heads, rows), note)
        parts.append((f"{attacker} attacks", body))
    return html.document("Where two models disagree", parts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m diffv2iqa_jax.tools.gmad",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="workdir of a quality run")
    parser.add_argument("--on", required=True, help="the pool, as it was prepared")
    parser.add_argument("--folder", default="~/tensorflow_datasets", help="where the pool lies")
    parser.add_argument("--levels", type=int, default=LEVELS)
    parser.add_argument("-o", "--output", default="gmad", help="folder to write to")
    o = parser.parse_args(argv)
    try:
        found = compare(tuple(o.runs), o.on, o.levels)
        if not found:
            raise ValueError(f"{o.on}: no level holds images of two references; lower --levels")
        text = page(found, pictures(found, o.on, os.path.expanduser(o.folder)))
        out = Path(o.output)
        out.mkdir(parents=True, exist_ok=True)
        (out / "pairs.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        (out / "pairs.html").write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"gmad: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(out / "pairs.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
