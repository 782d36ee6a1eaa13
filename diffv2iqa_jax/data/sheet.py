"""Draws all types and levels of distortion of a picture on one sheet."""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.data import photos
from diffv2iqa_jax.data.distort import LEVELS, SMALLEST, TYPES, distort


def sheet(image_HWC: np.ndarray, key: jax.Array) -> Image.Image:
    """A uint8 picture in all types (rows, in two columns) and levels."""
    h, w, _ = image_HWC.shape
    count = len(TYPES) * len(LEVELS)
    type_B = np.repeat(np.arange(len(TYPES)), len(LEVELS))
    level_B = np.tile(LEVELS, len(TYPES))
    image_BHWC = np.broadcast_to(image_HWC, (count, h, w, 3))
    # One key for a row: along it, the same thing grows.
    key_B = rng.per_image(key, jnp.asarray(type_B))
    made = jax.jit(distort)(key_B, pixels.to_float(jnp.asarray(image_BHWC)), type_B, level_B)
    cells = np.asarray(pixels.to_uint8(made)).reshape(len(TYPES), len(LEVELS), h, w, 3)
    rows, line = -(-len(TYPES) // 2), 16
    width = len(LEVELS) * (w + 4)
    page = Image.new("RGB", (2 * width + 12, rows * (h + line + 4)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, name in enumerate(TYPES):
        left, top = number // rows * (width + 12), number % rows * (h + line + 4)
        for level in LEVELS:
            at = left + level * (w + 4)
            text = f"{name.replace('_', ' ')}  {level}" if level == 0 else str(level)
            draw.text((at, top), text, "black", font)
            page.paste(Image.fromarray(cells[number, level]), (at, top + line))
    return page


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="distort", description="Draws all types and levels.")
    parser.add_argument("image", metavar="IMAGE", help="its middle is distorted")
    parser.add_argument("--sheet", required=True, metavar="PNG", help="file to write")
    parser.add_argument("--size", type=int, default=160, help="of the part, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of noise, directions and places")
    o = parser.parse_args(argv)
    try:
        picture = photos.read(o.image)
        if min(o.size, *picture.shape[:2]) < SMALLEST:
            raise ValueError(f"--size {o.size} of {o.image}: must be at least {SMALLEST} pixels")
        h, w = (min(o.size, n) for n in picture.shape[:2])
        top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
        made = sheet(picture[top : top + h, left : left + w], rng.stream(o.seed, "sheet"))
        made.save(o.sheet, "PNG")
    except (ValueError, OSError) as error:
        print(f"distort: {error}", file=sys.stderr)
        return 2
    print(f"{o.sheet}: {len(TYPES)} types at levels {LEVELS[0]} to {LEVELS[-1]}")
    return 0
