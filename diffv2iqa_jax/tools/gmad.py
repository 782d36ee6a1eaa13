"""Where two models disagree most: pairs of images that one finds equal and the other does not.

  python -m diffv2iqa_jax.main --config C --workdir RUN --mode evaluate --on pool/mine  (both runs)
  python -m diffv2iqa_jax.tools.gmad RUN_A RUN_B --on pool/mine -o gmad

The group maximum differentiation of Ma et al. (2016, 2020). It needs no opinions: a look at the
pairs tells which model errs. Writes pairs.json and pairs.html. Exit code 2: a run lacks the
evaluation, or the pool is not there.
"""

import argparse
import csv
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import one_line
from diffv2iqa_jax.reporting import charts, html

LEVELS = 6
SIDE = 320  # pixels of an embedded image's longer side


def pairs(
    defender: ArrayLike, attacker: ArrayLike, group: ArrayLike, levels: int = LEVELS
) -> list[dict[str, Any]]:
    """The attacker's farthest pair in each level of the defender.

    Args:
      defender, attacker: (N,), scores of the same images.
      group: (N,), the reference of each image; a pair never shows one reference twice.
      levels: equal steps between the defender's lowest and highest score.

    Returns:
      One dict for each level that holds two references, from the lowest: level (from 0), low
      and high (rows of the images that the attacker finds worst and best), gap (between them,
      in the attacker's units), defender_gap.

    Raises:
      ValueError: columns of different length, scores that are not finite, or levels below 1.
    """
    defender, attacker = np.asarray(defender, np.float64), np.asarray(attacker, np.float64)
    group = np.asarray(group)
    if defender.ndim != 1 or not defender.shape == attacker.shape == group.shape:
        raise ValueError(
            f"columns of one length are needed; got {defender.shape}, {attacker.shape}"
        )
    if levels < 1 or not np.isfinite([defender, attacker]).all():
        raise ValueError("levels must be at least 1 and all scores finite")
    if not len(defender):
        return []
    edges = np.linspace(defender.min(), defender.max(), levels + 1)[1:-1]
    level_of = np.searchsorted(edges, defender, side="right")
    chosen = []
    for level in range(levels):
        rows = np.flatnonzero(level_of == level)
        rows = rows[np.argsort(attacker[rows], kind="stable")]
        if len(set(group[rows].tolist())) < 2:
            continue
        low, high = rows[0], rows[-1]
        if group[low] == group[high]:  # one of the two has to be another reference's
            others = rows[group[rows] != group[low]]
            choices = ((low, others[-1]), (others[0], high))
            low, high = max(choices, key=lambda pair: attacker[pair[1]] - attacker[pair[0]])
        chosen.append(
            {
                "level": level,
                "low": int(low),
                "high": int(high),
                "gap": float(attacker[high] - attacker[low]),
                "defender_gap": float(defender[high] - defender[low]),
            }
        )
    return chosen


def read(run: str, pool: str) -> dict[str, np.ndarray]:
    """Reads the columns id, name, group and score of a run's evaluation on a pool.

    Raises:
      ValueError: the run was not evaluated on it.
    """
    path = Path(run, "eval", pool.replace("/", "-"), "predictions.csv")
    if not path.is_file():
        how = f"--mode evaluate --on {pool}"
        raise ValueError(f"{path}: is not there; evaluate the run with {how} first")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "id": np.array([int(row["id"]) for row in rows]),
        "name": np.array([row["name"] for row in rows]),
        "group": np.array([row["group"] for row in rows]),
        "score": np.array([float(row["score"]) for row in rows]),
    }


def compare(runs: tuple[str, str], pool: str, levels: int) -> list[dict[str, Any]]:
    """Pairs in both directions, with the names, ids and both scores of their images.

    Raises:
      ValueError: a run lacks the evaluation, or the two saw different images.
    """
    columns = [read(run, pool) for run in runs]
    if not np.array_equal(columns[0]["id"], columns[1]["id"]):
        raise ValueError(f"{runs[0]} and {runs[1]}: evaluated on different images of {pool}")
    ids, names, group = (columns[0][key] for key in ("id", "name", "group"))
    compared = []
    for attacker, defender in ((0, 1), (1, 0)):
        attacks, defends = columns[attacker]["score"], columns[defender]["score"]
        for pair in pairs(defends, attacks, group, levels):
            images = {
                end: {
                    "id": int(ids[pair[end]]),
                    "name": str(names[pair[end]]),
                    "defender": float(defends[pair[end]]),
                    "attacker": float(attacks[pair[end]]),
                }
                for end in ("low", "high")
            }
            sides = {"attacker": runs[attacker], "defender": runs[defender]}
            compared.append({**sides, **pair, **images})
    return compared


def pictures(compared: list[dict], pool: str, folder: str) -> dict[int, np.ndarray]:
    """The images of the pairs by id, uint8, scaled down for a page."""
    from diffv2iqa_jax.data import evaluation, reading  # TensorFlow takes seconds to import

    source = reading.load(pool, folder)
    ids = sorted({pair[end]["id"] for pair in compared for end in ("low", "high")})
    images = {}
    for batch in evaluation.whole(source, np.array(ids), batch=1):
        image = Image.fromarray(batch["image"][0])
        image.thumbnail((SIDE, SIDE))
        images[int(batch["id"][0])] = np.asarray(image)
    return images


def page(compared: list[dict], images: dict[int, np.ndarray]) -> str:
    """Both directions, each level a row: the image that the attacker finds worse, and better."""
    sections = []
    for attacker in dict.fromkeys(pair["attacker"] for pair in compared):
        attacks = [pair for pair in compared if pair["attacker"] == attacker]
        heads = ["worse, it says", "better, it says"]
        rows = [_row(pair, images) for pair in attacks]
        note = f"{escape(attacks[0]['defender'])} scores both images of a row nearly the same."
        body = html.block("Pairs", html.pictures(heads, rows), note)
        sections.append((f"{attacker} attacks", body))
    return html.document("Where two models disagree", sections)


def _row(pair: dict, images: dict[int, np.ndarray]) -> tuple[str, list[tuple[str, str, bool]]]:
    """A pair as `html.pictures` takes it: a label with both scores, and its two images."""
    label, cells = f"<b>level {pair['level'] + 1}</b>", []
    for end, alt in (("low", "worse"), ("high", "better")):
        image = pair[end]
        label += (
            f"<small>{escape(image['name'])}: {image['attacker']:.3f}, "
            f"by the other {image['defender']:.3f}</small>"
        )
        cells.append((charts.data_uri(images[image["id"]], exact=False), alt, False))
    return label, cells


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
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
        storage.check_folder(o.output)
        compared = compare(tuple(o.runs), o.on, o.levels)
        if not compared:
            raise ValueError(f"{o.on}: no level holds images of two references; lower --levels")
        text = page(compared, pictures(compared, o.on, storage.expanded(o.folder)))
        out = Path(o.output)
        storage.make_folder(out)
        storage.write(out / "pairs.json", json.dumps(compared, indent=1, allow_nan=False) + "\n")
        storage.write(out / "pairs.html", text)
    except (ValueError, OSError) as error:
        print(f"gmad: {one_line(error)}", file=sys.stderr)
        return 2
    print(out / "pairs.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
