"""Whether scores fall as distortions grow.

  python -m diffv2iqa_jax.tools.monotone PHOTOS --weights WEIGHTS

Each photo is distorted in all types of `distortions.kadid` at every level and scored. For every
type it prints the mean score at each level, the share of pairs of levels that are in order, and
the share of photos that score above each of their own copies of level 3 and more.
"""

import argparse
import json
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import pixels, rng, storage
from diffv2iqa_jax.data import shelf
from diffv2iqa_jax.distortions.kadid import distort
from diffv2iqa_jax.distortions.names import LEVELS, TASTE, TYPES
from diffv2iqa_jax.errors import WeightsError, one_line
from diffv2iqa_jax.pp import decode
from diffv2iqa_jax.scoring import scorer

STRONG = 3  # from this level on, a copy should score below its original


def copies(image_HWC: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """A uint8 picture as it is, then in all types, each at levels 1 and up."""
    yield image_HWC
    x = pixels.to_float(jnp.asarray(image_HWC))[None]
    for number in range(len(TYPES)):
        key_B = rng.per_image(rng.stream(seed, "monotone"), jnp.array([number]))
        for level in LEVELS[1:]:
            made = _distorted(key_B, x, jnp.array([number]), jnp.array([level]))
            yield np.asarray(made)[0]


@jax.jit
def _distorted(key_B, image_BHWC, type_B, level_B):
    return pixels.to_uint8(distort(key_B, image_BHWC, type_B, level_B))


def scores(judge: scorer.Scorer, paths: list[str], seed: int = 0) -> np.ndarray:
    """Scores (photos, types, levels)."""
    rows = [[float(s) for s in judge(copies(decode.read(path).image_HWC, seed))] for path in paths]
    original_P1, copies_PN = np.split(np.array(rows), [1], axis=1)
    copies_PTL = copies_PN.reshape(len(paths), len(TYPES), len(LEVELS) - 1)
    original_PT1 = np.repeat(original_P1[:, :, None], len(TYPES), axis=1)
    return np.concatenate([original_PT1, copies_PTL], axis=2)


def summary(scores_PTL: np.ndarray) -> dict:
    """Per type: mean score of each level, share of level pairs in order; and over types.

    A pair is in order where the higher level has the lower score.
    """
    lower, higher = np.triu_indices(scores_PTL.shape[2], 1)
    ordered_PTQ = scores_PTL[:, :, lower] > scores_PTL[:, :, higher]
    above_PT = (scores_PTL[:, :, :1] > scores_PTL[:, :, STRONG:]).all(-1)
    counted = np.array([name not in TASTE for name in TYPES])
    rows = {
        name: {
            "means": scores_PTL[:, t].mean(0).tolist(),
            "ordered": float(ordered_PTQ[:, t].mean()),
            "original_above": float(above_PT[:, t].mean()),
        }
        for t, name in enumerate(TYPES)
    }
    return {
        "photos": len(scores_PTL),
        "ordered": float(ordered_PTQ[:, counted].mean()),
        "ordered_all_types": float(ordered_PTQ.mean()),
        "original_above": float(above_PT[:, counted].mean()),
        "taste": list(TASTE),
        "types": rows,
    }


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="monotone", description=__doc__.partition("\n")[0])
    parser.add_argument("photos", help="folder or glob of undistorted photos")
    parser.add_argument("--weights", default="starter", help="as diffv2iqa_jax.load takes it")
    parser.add_argument("--limit", type=int, help="look at this many photos at most")
    parser.add_argument("--seed", type=int, default=0, help="of noise, directions and places")
    parser.add_argument("--json", help="also write the numbers to this file")
    o = parser.parse_args(argv)
    try:
        if o.json:
            storage.ending(o.json, (".json",))
        paths = shelf.list_files(o.photos)[: o.limit]
        found = summary(scores(scorer.load(o.weights), paths, o.seed))
        if o.json:
            storage.write(o.json, json.dumps(found, indent=1, allow_nan=False) + "\n")
    except (WeightsError, ValueError, OSError) as error:
        print(f"monotone: {one_line(error)}", file=sys.stderr)
        return 2
    for name, row in found["types"].items():
        means = " ".join(f"{mean:.3f}" for mean in row["means"])
        taste = " (a matter of taste)" if name in TASTE else ""
        print(f"{name:24} {means}  in order {row['ordered']:.0%}{taste}")
    print(
        f"{found['photos']} photos: {found['ordered']:.1%} of level pairs in order, "
        f"{found['original_above']:.1%} of originals above their copies of level {STRONG} and more"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
