"""Times scoring as a user meets it: python -m diffv2iqa_jax.tools.bench_score WEIGHTS --json FILE

Each row is measured in a process of its own. "first": a whole process of the command, from its
start to the score of one 512 x 384 photo, after another one has filled the compilation cache;
"warm": a photo of that size in a process that has scored one; "folder": photos of many sizes a
second, without loading and compiling; "large": a 12-megapixel photo, and the most memory that its
process had.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import one_line

SIDES = (384, 512)  # height and width of a photo, pixels
LARGE = (3000, 4000)

# Programs of the processes that measure; each prints its row's numbers as JSON.
PHOTOS = """
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
    score = scorer(photo)
    seconds.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "crops": score.crops, "peak_kib": peak}))
"""
FOLDER = """
import json, pathlib, sys, time
import numpy as np
import diffv2iqa_jax
weights, folder, height, width = *sys.argv[1:3], *map(int, sys.argv[3:])
scorer = diffv2iqa_jax.load(weights)
scorer(np.zeros((height, width, 3), np.uint8))
start = time.perf_counter()
scores = list(scorer(iter(sorted(pathlib.Path(folder).iterdir()))))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "crops": [score.crops for score in scores]}))
"""


def photo(g: np.random.Generator, height: int, width: int) -> Image.Image:
    """Pixels like a photo's: smooth, with noise."""
    coarse = Image.fromarray(g.integers(0, 256, (height // 32, width // 32, 3), np.uint8))
    x = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((x + g.integers(-9, 10, x.shape)).clip(0, 255).astype(np.uint8))


def _child(program: str, *args: str | int) -> dict[str, Any]:
    """What a program prints in a process of its own. Raises ValueError with its last line."""
    command = [sys.executable, "-c", program, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip().rpartition("\n")[2])
    return json.loads(done.stdout)


def first(weights: str, folder: pathlib.Path, repeat: int) -> dict[str, float]:
    """Seconds of the command for one photo."""
    photo(np.random.default_rng(0), *SIDES).save(folder / "one.png")
    command = [sys.executable, "-m", "diffv2iqa_jax.score", "-q", "--weights", weights]
    seconds = []
    for _ in range(repeat + 1):  # the first one fills the cache
        start = time.perf_counter()
        done = subprocess.run([*command, folder / "one.png"], capture_output=True)
        seconds.append(time.perf_counter() - start)
        done.check_returncode()
    return {"s": statistics.median(seconds[1:]), "s_cold_cache": seconds[0]}


def warm(weights: str, folder: pathlib.Path, repeat: int) -> dict[str, float]:
    """Seconds for a photo like the one before."""
    out = _child(PHOTOS, weights, *SIDES, repeat)
    return {"s": statistics.median(out["seconds"][1:]), "crops": out["crops"]}


def several(weights: str, folder: pathlib.Path, repeat: int) -> dict[str, float]:
    """Photos a second, of three times `repeat`."""
    g, count, photos = np.random.default_rng(0), 3 * repeat, folder / "photos"
    photos.mkdir()
    for number in range(count):
        height, width = (int(side * g.uniform(0.7, 1)) for side in SIDES)
        photo(g, height, width).save(photos / f"{number}.jpg", quality=90)
    out = _child(FOLDER, weights, str(photos), *SIDES)
    return {"images_per_s": count / out["seconds"], "crops": statistics.mean(out["crops"])}


def large(weights: str, folder: pathlib.Path, repeat: int) -> dict[str, float]:
    """Seconds and memory for one large photo, compiling counted."""
    out = _child(PHOTOS, weights, *LARGE, 0)
    return {"s": out["seconds"][0], "crops": out["crops"], "peak_gib": out["peak_kib"] / 2**20}


ROWS = {"first": first, "warm": warm, "folder": several, "large": large}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="bench_score", description=__doc__.partition("\n")[0])
    parser.add_argument("weights", help="as diffv2iqa_jax.load takes it")
    parser.add_argument("what", nargs="*", choices=[*ROWS, []], help=f"of {[*ROWS]}; default all")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each")
    parser.add_argument("--json", type=pathlib.Path, help="also write the rows to this file")
    o = parser.parse_args(argv)
    rows = {}
    try:
        if o.json:
            storage.ending(o.json, (".json",))
        for name in o.what or ROWS:
            with tempfile.TemporaryDirectory() as folder:
                rows[name] = ROWS[name](o.weights, pathlib.Path(folder), max(1, o.repeat))
            print(name, {k: round(v, 3) for k, v in rows[name].items()}, flush=True)
        if o.json:
            storage.write(o.json, json.dumps(rows, indent=1) + "\n")
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"bench_score: {one_line(error)[:300]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
