"""KADID-10k's 25 types of distortion at 5 levels, on the accelerator, each image its own.

    distort(key, image_BHWC, type_B, level_B)

is one compiled program for all types mixed in a batch. It runs through groups of images of one
type and computes that type alone. Groups of one waste nothing (CPU); larger groups keep an
accelerator busy and compute a few images in vain where a type does not fill its last group. As
a program, it draws all types and levels of a picture:

    python -m diffv2iqa_jax.distortions.kadid --sheet out.png IMAGE
"""

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffv2iqa_jax import pixels, rng, storage
from diffv2iqa_jax.distortions import codecs, colour, spatial
from diffv2iqa_jax.distortions.names import LEVELS, TYPES
from diffv2iqa_jax.errors import one_line
from diffv2iqa_jax.pp import decode

SMALLEST = 16  # pixels each way


def jpeg(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """JPEG, 4:2:0, of quality 43, 36, 24, 7, 4."""
    return codecs.jpeg(255 * x_HWC, colour.pick((43, 36, 24, 7, 4), level)) / 255


def jpeg2000(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """JPEG 2000 at a ratio of 16, 32, 45, 120, 170, headers not counted."""
    ratio = colour.pick((16, 32, 45, 120, 170), level)
    return codecs.jpeg2000(255 * x_HWC, 24 / ratio) / 255


# In the order of TYPES: `distort` finds a type's function by its number.
FUNCTIONS = {
    "gaussian_blur": spatial.gaussian_blur,
    "lens_blur": spatial.lens_blur,
    "motion_blur": spatial.motion_blur,
    "colour_diffusion": spatial.colour_diffusion,
    "colour_shift": spatial.colour_shift,
    "colour_quantisation": colour.colour_quantisation,
    "saturation_hsv": colour.saturation_hsv,
    "saturation_lab": colour.saturation_lab,
    "jpeg2000": jpeg2000,
    "jpeg": jpeg,
    "white_noise": spatial.white_noise,
    "colour_noise": spatial.colour_noise,
    "impulse_noise": spatial.impulse_noise,
    "multiplicative_noise": spatial.multiplicative_noise,
    "denoise": spatial.denoise,
    "brighten": colour.brighten,
    "darken": colour.darken,
    "mean_shift": colour.mean_shift,
    "jitter": spatial.jitter,
    "patches": spatial.patches,
    "pixelate": spatial.pixelate,
    "quantise": colour.quantise,
    "colour_blocks": spatial.colour_blocks,
    "sharpen": spatial.sharpen,
    "contrast": colour.contrast,
}


def distort(
    key: jax.Array,
    image_BHWC: jax.Array,
    type_B: jax.Array,
    level_B: jax.Array,
    *,
    group: int = 1,
) -> jax.Array:
    """Distorts each image by its own type and level.

    Args:
      key: one for each image, (B,), from `rng.per_image`; or one for all, from which each row
        derives its own.
      image_BHWC: float RGB in [-1, 1], at least 16 pixels each way. Values beyond are clipped; a
        NaN spoils its own image only.
      type_B: int32, indices into TYPES.
      level_B: int32, 0 (as it is) to 5 (severe). Inside a compiled function types and levels
        cannot be checked; those out of range count as the nearest one.
      group: images of one type to distort at once: 1 on a CPU, some 8 on an accelerator.

    Returns:
      float32 in [-1, 1], of the same shape; each image depends on its own row alone.

    Raises:
      ValueError: shapes, sizes, dtypes, a type or a level that do not fit; says which.
    """
    _check(image_BHWC, type_B, level_B)
    count = image_BHWC.shape[0]
    key_B = rng.per_image(key, jnp.arange(count)) if key.ndim == 0 else key
    level_B = jnp.clip(jnp.asarray(level_B, jnp.int32), 0, LEVELS[-1])
    type_B = jnp.clip(jnp.asarray(type_B, jnp.int32), 0, len(TYPES) - 1)
    type_B = jnp.where(level_B == 0, len(TYPES), type_B)
    x_BHWC = jnp.clip(jnp.asarray(image_BHWC, jnp.float32) / 2 + 0.5, 0.0, 1.0)
    member_TG, type_T, place_B = _groups(type_B, group)
    functions = [jax.vmap(f) for f in FUNCTIONS.values()] + [lambda key, x, level: x]

    def distort_group(_, member_and_type: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        member_G, type = member_and_type
        arguments = (key_B[member_G], x_BHWC[member_G], level_B[member_G])
        return None, jax.lax.switch(type, functions, *arguments)

    _, out_TGHWC = jax.lax.scan(distort_group, None, (member_TG, type_T))
    out_BHWC = out_TGHWC.reshape(-1, *x_BHWC.shape[1:])[place_B]
    return 2 * jnp.clip(out_BHWC, 0.0, 1.0) - 1


def chain(
    key: jax.Array,
    image_BHWC: jax.Array,
    *,
    most: int = 4,
    levels: tuple[int, int] = (1, 3),
    group: int = 1,
) -> jax.Array:
    """Applies two to `most` distortions in turn, as happens to photos on their way to a viewer.

    Draws the number, the types (none twice), their order and their levels for each image.

    Args:
      key, image_BHWC, group: as in `distort`.
      most: the largest number of distortions, 2 to 25.
      levels: the lowest and the highest level to draw.

    Raises:
      ValueError: as `distort`, or settings out of range.
    """
    return mixture(
        key, image_BHWC, types=TYPES, clean=0.0, chains=1.0, levels=levels, most=most, group=group
    )


def mixture(
    key: jax.Array,
    image_BHWC: jax.Array,
    *,
    types: tuple[str, ...],
    clean: float,
    chains: float,
    levels: tuple[int, int],
    most: int = 4,
    group: int = 1,
) -> jax.Array:
    """Distorts images as training does: by chance not at all, once, or by a chain.

    Args:
      key, image_BHWC, group: as in `distort`.
      types: names from TYPES to draw from.
      clean: share of the images that stay as they are.
      chains: share of the other images that get 2 to `most` distortions.
      levels: the lowest and the highest level to draw.

    Raises:
      ValueError: as `distort`, or settings out of range.
    """
    check_mixture(types=types, clean=clean, chains=chains, levels=levels, most=most, group=group)
    count = image_BHWC.shape[0]
    key_B = rng.per_image(key, jnp.arange(count)) if key.ndim == 0 else key
    type_K = jnp.array([TYPES.index(name) for name in types], jnp.int32)
    steps = most if chains > 0 else 1

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Types and levels of an image's steps; level 0 where it has fewer."""
        several = jax.random.randint(rng.stream_of(key, "count"), (), 2, most + 1)
        in_chain = jax.random.bernoulli(rng.stream_of(key, "chain"), chains)
        as_it_is = jax.random.bernoulli(rng.stream_of(key, "clean"), clean)
        count = jnp.where(as_it_is, 0, jnp.where(in_chain, several, 1))
        type_S = jax.random.permutation(rng.stream_of(key, "types"), type_K)[:steps]
        low, high = levels
        level_S = jax.random.randint(rng.stream_of(key, "levels"), (steps,), low, high + 1)
        return type_S, jnp.where(jnp.arange(steps) < count, level_S, 0)

    def step(x_BHWC: jax.Array, drawn: tuple) -> tuple[jax.Array, None]:
        number, type_B, level_B = drawn
        step_key_B = rng.within(key_B, number)
        return distort(step_key_B, x_BHWC, type_B, level_B, group=group), None

    type_BS, level_BS = jax.vmap(draw)(key_B)
    start_BHWC = jnp.clip(jnp.asarray(image_BHWC, jnp.float32), -1.0, 1.0)
    return jax.lax.scan(step, start_BHWC, (jnp.arange(steps), type_BS.T, level_BS.T))[0]


def check_mixture(
    *,
    types: Sequence[str],
    clean: float,
    chains: float,
    levels: Sequence[int],
    most: int = 4,
    group: int = 1,
) -> None:
    """Raises ValueError for settings of `mixture` that do not fit."""
    unknown = [name for name in types if name not in TYPES]
    if unknown or not types:
        raise ValueError(f"types {unknown or types}: known are {list(TYPES)}")
    for name, share in (("clean", clean), ("chains", chains)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} {share}: must be a share from 0 to 1")
    if len(levels) != 2 or not 1 <= levels[0] <= levels[1] <= LEVELS[-1]:
        raise ValueError(f"levels {levels}: must be the lowest and the highest, 1 to {LEVELS[-1]}")
    if most < 2 or (chains > 0 and len(types) < most):
        raise ValueError(f"most {most}: must be 2 to {len(types)}, the number of types")
    if group < 1:
        raise ValueError(f"group {group}: must be at least 1")


def _groups(type_B: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sorts images by type into T groups of `size`.

    Returns:
      The members of each group (T, size), image 0 where a type does not fill its last group;
      each group's type (T,), "as it is" for groups that no image needs; and each image's place
      among all members (B,).
    """
    count, types = type_B.shape[0], len(TYPES) + 1
    groups = min(count, (count + types * (size - 1)) // size)  # enough for any mix of types
    order_B = jnp.argsort(type_B)
    sorted_type_B = type_B[order_B]
    images_K = jnp.sum(sorted_type_B[:, None] == jnp.arange(types)[None], axis=0)
    images_before_K = jnp.cumsum(images_K) - images_K
    groups_K = (images_K + size - 1) // size
    groups_before_K = jnp.cumsum(groups_K) - groups_K
    rank_B = jnp.arange(count) - images_before_K[sorted_type_B]  # within its type
    group_B = groups_before_K[sorted_type_B] + rank_B // size
    place_B = group_B * size + rank_B % size
    member = jnp.zeros(groups * size, jnp.int32).at[place_B].set(order_B.astype(jnp.int32))
    type_T = jnp.full(groups, types - 1, jnp.int32).at[group_B].set(sorted_type_B)
    unsorted_place_B = jnp.zeros_like(place_B).at[order_B].set(place_B)
    return member.reshape(groups, size), type_T, unsorted_place_B


def _check(image_BHWC: jax.Array, type_B: jax.Array, level_B: jax.Array) -> None:
    """Raises ValueError for arguments of `distort` that do not fit, as far as they are known."""
    shape, dtype = jnp.shape(image_BHWC), jnp.result_type(image_BHWC)
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(f"images of shape {shape}: must be (B, H, W, 3); repeat grey, drop alpha")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"images of {dtype}: must be float in [-1, 1]; see pixels.to_float")
    if min(shape[1:3]) < SMALLEST:
        raise ValueError(f"images of {shape[1]} x {shape[2]}: must be at least {SMALLEST} pixels")
    for name, value, allowed in (
        ("type", type_B, range(len(TYPES))),
        ("level", level_B, LEVELS),
    ):
        if jnp.shape(value) != shape[:1]:
            raise ValueError(f"{name}s of shape {jnp.shape(value)}: must be one for each image")
        if not isinstance(value, jax.core.Tracer):
            wrong = sorted(set(np.asarray(value).tolist()) - set(allowed))
            if wrong:
                raise ValueError(f"{name} {wrong[0]}: known are 0 to {allowed[-1]}")


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
        storage.ending(o.sheet, (".png",))
        picture = decode.read(o.image).image_HWC
        if min(o.size, *picture.shape[:2]) < SMALLEST:
            raise ValueError(f"--size {o.size} of {o.image}: must be at least {SMALLEST} pixels")
        h, w = (min(o.size, n) for n in picture.shape[:2])
        top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
        made = sheet(picture[top : top + h, left : left + w], rng.stream(o.seed, "sheet"))
        with storage.replacing(o.sheet) as unfinished:
            made.save(unfinished, "PNG")
    except (ValueError, OSError) as error:
        print(f"distort: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{o.sheet}: {len(TYPES)} types at levels {LEVELS[0]} to {LEVELS[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
