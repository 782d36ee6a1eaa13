"""Times scoring as a user meets it: python -m diffv2iqa_jax.tools.bench_score WEIGHTS --json FILE

Each row comes from a process of its own. "first" is a whole process, from its start to the score
of one 512 x 384 photo, with the compilation cache filled by one before it; "warm" the same photo
size in a process that has scored one; "folder" images a second of the command over photos of
many sizes; "large" a 12-megapixel photo and what memory its process needed at most.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from diffv2iqa_jax import score

SIDES = (384, 512)
LARGE = (3000, 4000)

WARM = """
import json, resource, sys, time
import numpy as np
import diffv2iqa_jax
weights, height, width, repeat = sys.argv[1], *map(int, sys.argv[2:])
scorer = diffv2iqa_jax.load(weights)
g = np.random.default_rng(0)
seconds = []
for _ in range(repeat + 1):
    photo = g.integers(0, 256, (height, width, 3), np.uint8)
    start = time.perf_counter()
    found = scorer(photo)
    seconds.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "crops": found.crops, "peak": peak}))
"""


def photo(g: np.random.Generator, height: int, width: int) -> Image.Image:
    """A photo's worth of pixels: smooth, with noise."""
    coarse = Image.fromarray(g.integers(0, 256, (height // 32, width // 32, 3), np.uint8))
    x = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((x + g.integers(-9, 10, x.shape)).clip(0, 255).astype(np.uint8))


def _child(weights: str, height: int, width: int, repeat: int) -> dict:
    command = [sys.executable, "-c", WARM, weights, str(height), str(width), str(repeat)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def first(weights: str, folder: pathlib.Path, repeat: int) -> dict:
    photo(np.random.default_rng(0), *SIDES).save(folder / "one.png")
    command = [sys.executable, "-m", "diffv2iqa_jax.score", "-q", "--weights", weights]
    seconds = []
    for _ in range(repeat + 1):  # the first one fills the cache
        start = time.perf_counter()
        done = subprocess.run([*command, folder / "one.png"], capture_output=True)
        seconds.append(time.perf_counter() - start)
        done.check_returncode()
    return {"s": statistics.median(seconds[1:]), "s_cold_cache": seconds[0]}


def warm(weights: str, folder: pathlib.Path, repeat: int) -> dict:
    found = _child(weights, *SIDES, repeat)
    return {"s": statistics.median(found["seconds"][1:]), "crops": found["crops"]}


def several(weights: str, folder: pathlib.Path, repeat: int) -> dict:
    """Three times `repeat` photos, compiling and loading not counted."""
    g, count, place = np.random.default_rng(0), 3 * repeat, folder / "photos"
    place.mkdir()
    for number in range(count):
        height, width = (int(side * g.uniform(0.7, 1)) for side in SIDES)
        photo(g, height, width).save(place / f"{number}.jpg", quality=90)
    o = score.parse(["--weights", weights, str(place)])
    scorer = score.load(o)
    scorer(np.zeros((*SIDES, 3), np.uint8))
    start = time.perf_counter()
    found = list(scorer(iter(sorted(place.iterdir()))))
    took = time.perf_counter() - start
    crops = statistics.mean(x.crops for x in found)
    return {"images_per_s": count / took, "crops": crops}


def large(weights: str, folder: pathlib.Path, repeat: int) -> dict:
    found = _child(weights, *LARGE, 0)
    return {"s": found["seconds"][0], "crops": found["crops"], "peak_gib": found["peak"] / 2**20}


ROWS = {"first": first, "warm": warm, "folder": several, "large": large}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="bench_score", description=__doc__.partition("\n")[0])
    parser.add_argument("weights", help="as diffv2iqa_jax.load takes it")
    parser.add_argument("what", nargs="*", choices=[*ROWS, []], help=f"of {[*ROWS]}; default all")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each")
    parser.add_argument("--json", type=pathlib.Path, help="also write the rows to this file")
    o = parser.parse_args(argv)
    rows = {}
    try:
        for name in o.what or ROWS:
            with tempfile.TemporaryDirectory() as folder:
                rows[name] = ROWS[name](o.weights, pathlib.Path(folder), max(1, o.repeat))
            print(name, {k: round(v, 3) for k, v in rows[name].items()}, flush=True)
    except (ValueError, subprocess.CalledProcessError) as error:
        print(f"bench_score: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 2
    if o.json:
        o.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
