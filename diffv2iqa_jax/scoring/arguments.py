"""What a scorer refuses of its arguments, before anything is read or compiled."""

import os
from collections.abc import Callable, Iterable, Mapping, Set
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffv2iqa_jax.models import building

ONE_PICTURE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
TAKEN = "pass a path, the bytes of a file, a PIL image or an array; several: a list of these"


def is_one(source: Any) -> bool:
    """Whether it is one picture, not several.

    Raises:
      TypeError: it is neither.
    """
    if isinstance(source, ONE_PICTURE):
        return True
    if _is_array(source):
        return getattr(source, "ndim", 3) != 4
    if isinstance(source, Mapping | Set) or not isinstance(source, Iterable):
        raise TypeError(f"{_shown(source)}: is no picture; {TAKEN}")
    return False


def check_picture(source: Any) -> None:
    """Refuses what is no picture: None, a number, a list. Raises TypeError."""
    if not isinstance(source, ONE_PICTURE) and not _is_array(source):
        raise TypeError(f"{_shown(source)}: is no picture; {TAKEN}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is no whole number from `least` on.

    Raises:
      TypeError: no whole number.
      ValueError: too small.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} {value!r}: must be a whole number")
    if value < least:
        raise ValueError(f"{name} {value}: must be at least {least}")


def check_crops(
    pp: str, crop: Callable[[np.ndarray], np.ndarray], score: Callable[[tuple], Any]
) -> None:
    """Refuses a pipeline whose crops do not fit the model, be they of one size or of any.

    Args:
      crop: picture (H, W, 3) -> a crop of it, by that pipeline.
      score: shape of a crop -> what the model says of its shape.

    Raises:
      ValueError: the model takes no crops of this size.
    """

    def shapes(*sides: tuple[int, int]) -> set[tuple]:
        return {crop(np.zeros((*side, 3), np.uint8)).shape for side in sides}

    sizes = shapes((8, 13), (11, 7))
    if len(sizes) > 1:
        # Each picture has a shape of its own; these are large enough for any net's levels.
        if all(_error(score, shape) for shape in shapes((512, 768), (768, 512))):
            raise ValueError(
                f"pp {pp!r}: its crops are of any size, and this model takes one; end it in grid(n)"
            )
        return
    shape = sizes.pop()
    if error := _error(score, shape):
        height, width, _ = shape
        raise ValueError(
            f"pp {pp!r}: crops of {height} x {width} do not fit this model ({building.why(error)})"
        ) from error


def _error(score: Callable[[tuple], Any], shape: tuple) -> Exception | None:
    try:
        score(shape)
    except building.UNFIT as error:
        return error
    return None


def check_images(images_BHWC: jax.Array) -> None:
    """Refuses images that are no floating RGB in [0, 1].

    Values are looked at where they are there, under `jax.grad` too. Under `jax.jit` and `jax.vmap`
    they are not: only the type and the shape are.

    Raises:
      ValueError: another type or shape, or values outside 0..1; says what to do.
    """
    x = images_BHWC if isinstance(images_BHWC, jax.Array) else np.asarray(images_BHWC)
    if x.ndim != 4 or x.shape[-1] != 3 or not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"images {x.dtype} {x.shape}: must be floating (B, H, W, 3) in [0, 1]")
    x = jax.lax.stop_gradient(x)  # under grad alone, the values themselves
    if isinstance(x, jax.core.Tracer):
        return
    low, high = float(jnp.min(x)), float(jnp.max(x))
    if not (low >= 0 and high <= 1):  # also where one of them is NaN
        raise ValueError(
            f"images with values from {low:.4g} to {high:.4g}: must be finite and lie in 0..1; "
            "divide 0..255 by 255, or clip them"
        )


def _is_array(source: Any) -> bool:
    return hasattr(source, "ndim") or hasattr(source, "__array__")


def _shown(source: Any) -> str:
    """A number or None as it is, of others the type."""
    simple = isinstance(source, bool | int | float | complex | None)
    return repr(source) if simple else f"an object of type {type(source).__name__}"
