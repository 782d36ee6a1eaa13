"""Distortions of colour and tone, and the colour spaces they need, on the accelerator.

Pictures are float32 (H, W, 3) sRGB in [0, 1]; results may leave that range, `kadid.distort` clips
them. Each distortion maps (key, picture, level 1..5) -> picture. Its docstring gives the
strengths in the order of the levels: KADID-10k's (Lin et al. 2019) unless it says "ours".
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.distortions.codecs import HIGHEST, joined, planes

# IEC 61966-2-1 and CIE 15 with white D65, the numbers of scikit-image.
XYZ_33 = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE_3 = np.array([0.95047, 1.0, 1.08883])
LAB_33 = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]])  # from cube roots of X, Y, Z
BLACK_3 = np.array([16, 0, 0], np.float32)
KNEE = 6 / 29  # roots below this are linear


def pick(strengths: tuple[float, ...], level: jax.Array) -> jax.Array:
    """The strength of a level, 1..5."""
    return jnp.asarray(strengths, jnp.float32)[level - 1]


def _power(x: jax.Array, exponent: float | jax.Array) -> jax.Array:
    """x ** exponent for x > 0; several times faster than the general power."""
    return jnp.exp(exponent * jnp.log(x))


def product(matrix: np.ndarray, x_CHW: jax.Array) -> jax.Array:
    """Applies the matrix to each pixel's channels.

    As a matrix product, unlike `codecs.mix`, it computes its inputs once, however costly they are.
    """
    weights = jnp.asarray(matrix, jnp.float32)
    return jnp.einsum("rc,chw->rhw", weights, x_CHW, precision=HIGHEST)


def to_lab(x_HWC: jax.Array) -> jax.Array:
    """sRGB in [0, 1] -> CIELAB (3, H, W): L in [0, 100], a and b around [-110, 110]."""
    x_3HW = planes(x_HWC)
    low = x_3HW <= 0.04045
    curved = _power((jnp.where(low, 1.0, x_3HW) + 0.055) / 1.055, 2.4)
    xyz = product(XYZ_33 / WHITE_3[:, None], jnp.where(low, x_3HW / 12.92, curved))
    low = xyz <= KNEE**3
    root = _power(jnp.where(low, 1.0, xyz), 1 / 3)
    f_3HW = jnp.where(low, xyz / (3 * KNEE**2) + 4 / 29, root)
    return product(LAB_33, f_3HW) - BLACK_3[:, None, None]


def from_lab(lab_3HW: jax.Array) -> jax.Array:
    """CIELAB -> sRGB (H, W, 3); clips the channels of colours that sRGB cannot show."""
    f = product(np.linalg.inv(LAB_33), lab_3HW + BLACK_3[:, None, None])
    f = f.at[2].max(0.0)  # Z, as scikit-image does
    xyz = jnp.where(f > KNEE, f**3, 3 * KNEE**2 * (f - 4 / 29))
    linear = jnp.clip(product(np.linalg.inv(XYZ_33) * WHITE_3, xyz), 0.0, 1.0)
    low = linear <= 0.0031308
    curved = 1.055 * _power(jnp.where(low, 1.0, linear), 1 / 2.4) - 0.055
    return joined(jnp.where(low, 12.92 * linear, curved))


def saturation_hsv(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Saturation of HSV times 0.4, 0.2, 0.1, 0, -0.4 (below 0: the complementary hue)."""
    # At the same hue and value, only a channel's distance from the greatest one changes.
    value = jnp.maximum(jnp.maximum(x_HWC[..., :1], x_HWC[..., 1:2]), x_HWC[..., 2:])
    return value - pick((0.4, 0.2, 0.1, 0.0, -0.4), level) * (value - x_HWC)


def saturation_lab(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Chroma a and b of Lab times 1.5, 2, 3, 6, 9 (KADID's first, 1, changes nothing: ours)."""
    gain = pick((1.5, 2.0, 3.0, 6.0, 9.0), level)
    lab = to_lab(x_HWC)
    return from_lab(jnp.concatenate([lab[:1], gain * lab[1:]]))


def _toned(x_HWC: jax.Array, exponent: jax.Array) -> jax.Array:
    """Raises the lightness to a power, which moves all but black and white."""
    lab = to_lab(x_HWC)
    lightness = _power(jnp.maximum(lab[:1] / 100, 1e-6), exponent)
    return from_lab(jnp.concatenate([100 * lightness, lab[1:]]))


def brighten(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Lightness to the power 1 / (1 + a), a = 0.1, 0.2, 0.4, 0.7, 1.1 (the curve is ours)."""
    return _toned(x_HWC, 1 / (1 + pick((0.1, 0.2, 0.4, 0.7, 1.1), level)))


def darken(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Lightness to the power 1 + 2 a, a = 0.05, 0.1, 0.2, 0.4, 0.8 (the curve is ours)."""
    return _toned(x_HWC, 1 + 2 * pick((0.05, 0.1, 0.2, 0.4, 0.8), level))


def _sign(key: jax.Array) -> jax.Array:
    """1 or -1, by chance."""
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def mean_shift(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Plus or minus 0.03, 0.06, 0.09, 0.12, 0.15, by chance (ours: KADID's go back and forth)."""
    return x_HWC + _sign(key) * pick((0.03, 0.06, 0.09, 0.12, 0.15), level)


def contrast(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Distance from mid-grey times 1 - a, or by chance 1 / (1 - a).

    a = 0.15, 0.3, 0.4, 0.5, 0.6 (ours: KADID mixes curves up and down).
    """
    gain = 1 - pick((0.15, 0.3, 0.4, 0.5, 0.6), level)
    return 0.5 + (x_HWC - 0.5) * jnp.where(_sign(key) > 0, gain, 1 / gain)


def quantise(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """20, 16, 13, 10, 7 values in each channel (evenly spaced: ours)."""
    steps = pick((20, 16, 13, 10, 7), level) - 1
    return jnp.round(x_HWC * steps) / steps


DEPTH = 6  # of the tree of colours


def colour_quantisation(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """64, 32, 16, 8, 4 colours, chosen for the picture.

    Halves the set of its colours again and again: a subset is split at the mean of the channel
    that varies most in it (KADID: 64, 48, 32, 16, 8 by least variance).
    """
    depth = 1 + DEPTH - level
    h, w, _ = x_HWC.shape
    stride = max(2, math.ceil(math.sqrt(h * w / 2**15)))  # sums of 32,768 squares fit into 31 bits
    levels = jnp.round(255 * x_HWC).astype(jnp.int32)
    splits = _splits(levels[::stride, ::stride].reshape(-1, 3), depth)
    x_NC = levels.reshape(-1, 3)
    node_N = jnp.zeros(x_NC.shape[0], jnp.int32)
    for number, split_K4 in enumerate(splits):
        node_N = jnp.where(number < depth, _child(node_N, split_K4[node_N], x_NC), node_N)
    count_K, sum_KC = (_sums(x, node_N, DEPTH) for x in (jnp.ones_like(x_NC[:, :1]), x_NC))
    return (sum_KC / jnp.maximum(count_K, 1) / 255)[node_N].reshape(x_HWC.shape)


def _splits(x_NC: jax.Array, depth: jax.Array) -> list[jax.Array]:
    """For each depth, (nodes, 4): the channel to split each node by, one-hot, and the threshold."""
    node_N, splits = jnp.zeros(x_NC.shape[0], jnp.int32), []
    values = jnp.concatenate([jnp.ones_like(x_NC[:, :1]), x_NC, x_NC**2], axis=1)
    for number in range(DEPTH):
        sums = _sums(values, node_N, number)
        count_K, sum_KC, square_KC = sums[:, :1], sums[:, 1:4], sums[:, 4:]
        mean_KC = sum_KC / jnp.maximum(count_K, 1)
        axis_KC = jax.nn.one_hot(jnp.argmax(square_KC - sum_KC * mean_KC, axis=1), 3)
        threshold_K1 = jnp.sum(mean_KC * axis_KC, axis=1, keepdims=True)
        split_K4 = jnp.concatenate([axis_KC, threshold_K1], axis=1)
        splits.append(split_K4)
        node_N = jnp.where(number < depth, _child(node_N, split_K4[node_N], x_NC), node_N)
    return splits


def _child(node_N: jax.Array, split_N4: jax.Array, x_NC: jax.Array) -> jax.Array:
    """The node of each pixel one level deeper in the tree."""
    over_N = sum(x_NC[:, c] * split_N4[:, c] for c in range(3)) > split_N4[:, 3]
    return 2 * node_N + over_N.astype(jnp.int32)


def _sums(values_NC: jax.Array, node_N: jax.Array, depth: int) -> jax.Array:
    """Sums over the pixels of each node, of integers, so that the order does not matter."""
    return jax.ops.segment_sum(values_NC, node_N, 2**depth).astype(jnp.float32)
