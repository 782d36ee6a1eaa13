"""Preprocessing: one string, one meaning; the same string trains, evaluates and scores.

    parse("crop(64)|flip(0.5)")

An op maps an example (dict of tensors) to an example. `image`, `reference` (h, w, 3) and `views`
(V - 1, h, w, 3) always get the same geometry. Random ops draw from the example's own seed
alone; pictures smaller than a crop are first continued by reflection at the right and bottom.
"""

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from diffv2iqa_jax.pp import ops_numpy, spec

Example = dict[str, tf.Tensor]
Op = Callable[[Example], Example]

PICTURES = ("image", "reference", "views")


def crop(size: int) -> Op:
    """A random square of `size` pixels; needs the example's `seed`, int32 (2,)."""
    spec.check_size("crop", size)

    def op(ex: Example) -> Example:
        ex = _at_least(ex, size)
        top, left = _random_corners(ex, size, 1, ex["seed"])
        return _on_pictures(ex, lambda x: _cut(x, top[0], left[0], size))

    return op


def center(size: int) -> Op:
    """The square of `size` pixels in the middle."""
    spec.check_size("center", size)

    def op(ex: Example) -> Example:
        ex = _at_least(ex, size)
        h, w = _height_width(ex)
        return _on_pictures(ex, lambda x: _cut(x, (h - size) // 2, (w - size) // 2, size))

    return op


def flip(p: float) -> Op:
    """Left becomes right, with probability `p`; needs the example's `seed`."""
    return _random_flip("flip", p, axis=-2)


def vertical_flip(p: float) -> Op:
    """Top becomes bottom, with probability `p`; needs the example's `seed`."""
    return _random_flip("vertical_flip", p, axis=-3)


def grid(size: int) -> Op:
    """Evenly spaced squares that cover every pixel: ceil(h / size) rows, ceil(w / size) columns.

    Pictures get a leading axis, row by row from the top left; `crop` counts along it.
    """
    spec.check_size("grid", size)

    def starts(length: tf.Tensor) -> tf.Tensor:
        count = (length + size - 1) // size
        return tf.range(count) * (length - size) // tf.maximum(count - 1, 1)

    def op(ex: Example) -> Example:
        ex = _at_least(ex, size)
        h, w = _height_width(ex)
        top, left = tf.meshgrid(starts(h), starts(w), indexing="ij")
        return _many(ex, tf.reshape(top, [-1]), tf.reshape(left, [-1]), size)

    return op


def random_crops(size: int, n: int) -> Op:
    """`n` squares anywhere, chosen by the picture's `content`: the same at every visit.

    Pictures get a leading axis of length n; `crop` counts along it.
    """
    spec.check_size("random_crops", size)
    spec.check_size("random_crops", n)

    def op(ex: Example) -> Example:
        ex = _at_least(ex, size)
        top, left = _random_corners(ex, size, n, seed_of(ex["content"]))
        return _many(ex, top, left, size)

    return op


def resize(size: int) -> Op:
    """The whole picture scaled to (size, size), bicubic with antialiasing; not for views."""
    spec.check_size("resize", size)

    def op(ex: Example) -> Example:
        if "views" in ex:
            raise ValueError(f"resize({size}): stored views cannot be resized; let it come first")
        return _on_pictures(ex, lambda x: _scaled(x, (size, size)))

    return op


def shrink(factor: int) -> Op:
    """The image becomes its reference, `factor` times smaller and as large again.

    Both ways by Pillow's bicubic filter: the condition of SR3's super-resolution.
    """
    spec.check_size("shrink", factor)

    def op(ex: Example) -> Example:
        if "reference" not in ex or "views" in ex:
            raise ValueError(f"shrink({factor}): needs the reference, and no stored views")
        by_pillow = partial(ops_numpy.shrunk, factor=factor)
        image = tf.numpy_function(by_pillow, [ex["reference"]], tf.uint8, stateful=False)
        return ex | {"image": tf.ensure_shape(image, ex["reference"].shape)}

    return op


OPS = {
    "crop": crop,
    "center": center,
    "flip": flip,
    "vertical_flip": vertical_flip,
    "grid": grid,
    "random_crops": random_crops,
    "resize": resize,
    "shrink": shrink,
}


def parse(pipeline: str) -> Op:
    """Builds the op that a pipeline string describes; "" leaves examples as they are.

    Each op draws its own random numbers: its place in the string is folded into the seed.

    Raises:
      ValueError: an op is unknown or its settings do not fit; says which.
    """
    ops = spec.build(pipeline, OPS)

    def run(ex: Example) -> Example:
        seed = ex.get("seed")
        for place, op in enumerate(ops):
            if seed is not None:
                ex = ex | {"seed": tf.random.experimental.stateless_fold_in(seed, place)}
            ex = op(ex)
        return ex

    return run


def seed_of(content: tf.Tensor) -> tf.Tensor:
    """A seed, int32 (2,), that is a function of the picture's CRC-32 alone."""
    return tf.stack([tf.bitcast(tf.cast(content, tf.uint32), tf.int32), 0])


def _scaled(x: tf.Tensor, size: tuple) -> tf.Tensor:
    x = tf.image.resize(x, size, "bicubic", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(x), 0, 255), tf.uint8)


def _on_pictures(ex: Example, change: Callable[[tf.Tensor], tf.Tensor]) -> Example:
    return ex | {key: change(ex[key]) for key in PICTURES if key in ex}


def _height_width(ex: Example) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(ex["image"])
    return shape[-3], shape[-2]


def _cut(x: tf.Tensor, top: tf.Tensor, left: tf.Tensor, size: int) -> tf.Tensor:
    part = x[..., top : top + size, left : left + size, :]
    part.set_shape([*x.shape[:-3], size, size, x.shape[-1]])
    return part


def _reflected(length: tf.Tensor, size: int) -> tf.Tensor:
    """Row numbers 0, 1, .., length - 1, length - 2, .., 0, 1, ..: at least `size` of them."""
    period = tf.maximum(2 * (length - 1), 1)
    place = tf.range(tf.maximum(length, size)) % period
    return tf.minimum(place, period - place) % length


def _at_least(ex: Example, size: int) -> Example:
    h, w = _height_width(ex)

    def extended(x: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.gather(x, _reflected(h, size), axis=-3), _reflected(w, size), axis=-2)

    def checked(x: tf.Tensor) -> tf.Tensor:
        larger = tf.cond(tf.minimum(h, w) < size, lambda: extended(x), lambda: x)
        return tf.ensure_shape(larger, [*x.shape[:-3], None, None, x.shape[-1]])

    return _on_pictures(ex, checked)


def _random_corners(ex: Example, size: int, n: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    h, w = _height_width(ex)
    part = tf.random.stateless_uniform([2, n], seed, alg="philox")
    room = tf.cast(tf.stack([h, w]) - size + 1, tf.float32)[:, None]
    corner = tf.cast(part * room, tf.int32)
    return corner[0], corner[1]


def _many(ex: Example, top: tf.Tensor, left: tf.Tensor, size: int) -> Example:
    """Cuts a square at each corner, along a new leading axis."""
    if ex["image"].shape.rank != 3:
        raise ValueError("only one of grid and random_crops can stand in a pipeline")

    def cut_all(x: tf.Tensor) -> tf.Tensor:
        shape = [*x.shape[:-3], size, size, x.shape[-1]]
        like = tf.TensorSpec(shape, x.dtype)
        return tf.map_fn(lambda c: _cut(x, c[0], c[1], size), (top, left), fn_output_signature=like)

    return _on_pictures(ex, cut_all) | {"crop": tf.range(tf.size(top))}


def _random_flip(name: str, p: float, axis: int) -> Op:
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{name} takes a probability in [0, 1]; got {p!r}")

    def op(ex: Example) -> Example:
        turn = tf.random.stateless_uniform([], ex["seed"], alg="philox") < p

        def turned(x: tf.Tensor) -> tf.Tensor:
            return tf.cond(turn, lambda: tf.reverse(x, [axis + x.shape.rank]), lambda: x)

        return _on_pictures(ex, turned)

    return op
