"""Blur, noise and damage in place, on the accelerator.

Pictures are float32 (H, W, 3) in [0, 1]; results may leave that range, `kadid.distort` clips
them. Each distortion maps (key, picture, level 1..5) -> picture. Its docstring gives the
strengths in the order of the levels, lengths in pixels: KADID-10k's (Lin et al. 2019) unless it
says "ours". With the same key, a higher level does the same thing more strongly.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.fft import next_fast_len

from diffv2iqa_jax.distortions.codecs import HIGHEST, RGB_33, joined, planes
from diffv2iqa_jax.distortions.colour import from_lab, pick, product, to_lab

KADID_AREA = 512 * 384  # pixels of KADID's pictures, for which counts and sides are given


def gaussian_blur(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Gaussian of standard deviation 0.4, 0.7, 1, 2, 5 (ours; KADID's first, 0.1, is none)."""
    return joined(gaussian(planes(x_HWC), pick((0.4, 0.7, 1.0, 2.0, 5.0), level), 20))


def gaussian(x_CHW: jax.Array, sigma: jax.Array | float, reach: int) -> jax.Array:
    """Gaussian filter, cut off at 4 sigma or at `reach` if that is less; mirrors at borders."""
    return _separable(x_CHW, *(_gaussian_matrix(n, sigma, reach) for n in x_CHW.shape[1:]))


def _separable(x_CHW: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Applies a filter of rows and one of columns, both given as matrices."""
    x_CHW = jnp.matmul(rows, x_CHW, precision=HIGHEST)
    return jnp.matmul(x_CHW, columns.T, precision=HIGHEST)


def _gaussian_matrix(n: int, sigma: jax.Array | float, reach: int) -> jax.Array:
    """The filter of a line of n values as a matrix, with the line's mirror images folded in."""
    radius = jnp.minimum(jnp.floor(4 * sigma + 0.5), reach)

    def weight(distance: jax.Array) -> jax.Array:
        gaussian = jnp.exp(-0.5 * (distance / sigma) ** 2)
        return jnp.where(jnp.abs(distance) <= radius, gaussian, 0.0)

    to, at = jnp.arange(n, dtype=jnp.float32)[:, None], jnp.arange(n, dtype=jnp.float32)[None]
    periods = (n + reach) // (2 * n)  # of the mirrored line, that `reach` covers on either side
    images = [at + 2 * n * m for m in range(-periods, periods + 1)]
    images += [2 * n * m - 1 - at for m in range(-periods, periods + 2)]
    total = sum(weight(to - image) for image in images)
    return total / jnp.sum(weight(jnp.arange(-reach, reach + 1, dtype=jnp.float32)))


def convolved(x_HWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution with a square kernel of odd side; mirrors at the borders."""
    h, w, _ = x_HWC.shape
    reach = kernel.shape[0] // 2
    padded = jnp.pad(x_HWC, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    shape = [next_fast_len(n, real=True) for n in padded.shape[:2]]
    x_CHW = jnp.fft.rfft2(planes(padded), s=shape)
    out = jnp.fft.irfft2(x_CHW * jnp.fft.rfft2(kernel, s=shape)[None], s=shape)
    return joined(out[:, 2 * reach : 2 * reach + h, 2 * reach : 2 * reach + w])


def lens_blur(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Mean over a disc of radius 1, 2, 4, 6, 8."""
    return convolved(x_HWC, disc(pick((1, 2, 4, 6, 8), level), 8))


def disc(radius: jax.Array | float, reach: int) -> jax.Array:
    """A disc of sum 1 with a soft rim one pixel wide: (2 * reach + 1, 2 * reach + 1)."""
    offset = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    kernel = jnp.clip(radius + 0.5 - jnp.hypot(offset[:, None], offset[None]), 0.0, 1.0)
    return kernel / jnp.sum(kernel)


def motion_blur(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Mean along a straight path of length 3, 5, 9, 13, 21 in a random direction."""
    length = 1 + 2 * pick((1, 2, 4, 6, 10), level)
    return convolved(x_HWC, path(length, jax.random.uniform(key, maxval=math.pi), 10))


def path(length: jax.Array | float, angle: jax.Array | float, reach: int) -> jax.Array:
    """A straight path through the centre as a kernel; four pixels share each of its points."""
    along = jnp.linspace(-0.5, 0.5, 8 * reach + 1) * (length - 1)
    offset = jnp.arange(-reach, reach + 1, dtype=jnp.float32)[:, None]
    # The share that each point of the path gives to each row and to each column.
    rows = jnp.maximum(0.0, 1.0 - jnp.abs(offset - (along * jnp.sin(angle))[None]))
    columns = jnp.maximum(0.0, 1.0 - jnp.abs(offset - (along * jnp.cos(angle))[None]))
    kernel = jnp.matmul(rows, columns.T, precision=HIGHEST)
    return kernel / jnp.sum(kernel)


def colour_diffusion(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Chroma a and b of Lab blurred by a Gaussian of 1, 3, 6, 8, 12."""
    lab = to_lab(x_HWC)
    blurred = gaussian(lab[1:], pick((1, 3, 6, 8, 12), level), 48)
    return from_lab(jnp.concatenate([lab[:1], blurred]))


def colour_shift(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Green moved by 1, 3, 6, 8, 12 in a random direction (KADID shows it at edges only)."""
    h, w, _ = x_HWC.shape
    angle = jax.random.uniform(key, maxval=2 * math.pi)
    shift = pick((1, 3, 6, 8, 12), level) * jnp.stack([jnp.sin(angle), jnp.cos(angle)])
    top, left = jnp.round(shift).astype(jnp.int32) + 12
    green = jnp.pad(x_HWC[..., 1], 12, mode="symmetric")
    green = jax.lax.dynamic_slice(green, (top, left), (h, w))
    return jnp.stack([x_HWC[..., 0], green, x_HWC[..., 2]], axis=-1)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform numbers in (0, 1) in steps of 2**-16.

    Random bits cost most here, so each 32 of them make two numbers.
    """
    count = math.prod(shape)
    bits = jax.random.bits(key, (-(-count // 2),))
    halves = jnp.concatenate([bits >> 16, bits & 0xFFFF])[:count].reshape(shape)
    return (halves.astype(jnp.float32) + 0.5) / 65536


def _normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise."""
    return math.sqrt(2) * jax.lax.erf_inv(2 * _uniform(key, shape) - 1)


def white_noise(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Gaussian noise of variance 0.001, 0.002, 0.003, 0.005, 0.01 in R, G and B."""
    variance = pick((0.001, 0.002, 0.003, 0.005, 0.01), level)
    return x_HWC + jnp.sqrt(variance) * _normal(key, x_HWC.shape)


def colour_noise(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Gaussian noise in Cb and Cr, of variance 0.0005, 0.001, 0.002, 0.004, 0.008 (ours)."""
    deviation = jnp.sqrt(pick((0.0005, 0.001, 0.002, 0.004, 0.008), level))
    noise = deviation * _normal(key, (2, *x_HWC.shape[:2]))
    return x_HWC + joined(product(RGB_33[:, 1:], noise))


def impulse_noise(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """0.1, 0.5, 1, 2, 3 % of the values are black or white."""
    share = pick((0.001, 0.005, 0.01, 0.02, 0.03), level)
    chance = _uniform(key, x_HWC.shape)
    return jnp.where(chance < share / 2, 0.0, jnp.where(chance > 1 - share / 2, 1.0, x_HWC))


def multiplicative_noise(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Each value times 1 + Gaussian noise of variance 0.001, 0.005, 0.01, 0.02, 0.05."""
    variance = pick((0.001, 0.005, 0.01, 0.02, 0.05), level)
    return x_HWC * (1 + jnp.sqrt(variance) * _normal(key, x_HWC.shape))


def denoise(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """White noise as in `white_noise`, then a 5 x 5 Wiener filter to remove it.

    The filter is ours: KADID's is a trained net.
    """
    variance = pick((0.001, 0.002, 0.003, 0.005, 0.01), level)
    return wiener(white_noise(key, x_HWC, level), variance)


def wiener(x_HWC: jax.Array, noise: jax.Array | float) -> jax.Array:
    """Wiener filter: pulls values to their local mean where they vary no more than the noise.

    Args:
      noise: the noise's variance.
    """
    x_CHW = planes(x_HWC)
    rows, columns = (_box_matrix(n) for n in x_HWC.shape[:2])
    means = _separable(jnp.concatenate([x_CHW, x_CHW**2]), rows, columns)
    mean, mean_square = means[: len(x_CHW)], means[len(x_CHW) :]
    variance = mean_square - mean**2
    kept = jnp.maximum(variance - noise, 0.0) / jnp.maximum(variance, noise)
    return joined(mean + kept * (x_CHW - mean))


def _box_matrix(n: int) -> np.ndarray:
    """The mean of five neighbours as a matrix; mirrors at the ends."""
    padded = np.pad(np.eye(n, dtype=np.float32), ((2, 2), (0, 0)), mode="symmetric")
    return sum(padded[i : i + n] for i in range(5)) / np.float32(5)


def jitter(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Takes each pixel from a Gaussian distance of 0.11, 0.22, 0.45, 1.12, 2.24, interpolated.

    KADID scatters five times by 0.05 to 1; scattering once by root 5 as much moves as far.
    """
    deviation = math.sqrt(5) * pick((0.05, 0.1, 0.2, 0.5, 1.0), level)
    return warped(x_HWC, deviation * _normal(key, (2, *x_HWC.shape[:2])))


def warped(x_HWC: jax.Array, offset_2HW: jax.Array) -> jax.Array:
    """The picture's values, interpolated, at each pixel's place plus its offset (rows, columns)."""
    h, w, c = x_HWC.shape
    y = jnp.clip(jnp.arange(h, dtype=jnp.float32)[:, None] + offset_2HW[0], 0, h - 1)
    x = jnp.clip(jnp.arange(w, dtype=jnp.float32)[None] + offset_2HW[1], 0, w - 1)
    top = jnp.clip(jnp.floor(y).astype(jnp.int32), 0, h - 2)
    left = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, w - 2)
    flat, at = x_HWC.reshape(h * w, c), top * w + left
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    upper = (1 - dx) * flat[at] + dx * flat[at + 1]
    lower = (1 - dx) * flat[at + w] + dx * flat[at + w + 1]
    return (1 - dy) * upper + dy * lower


def patches(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """20, 40, 60, 80, 100 squares of 16 pixels, copied from up to 16 pixels away.

    These are counts for 512 x 384 pixels. Pictures of other sizes get as many as cover the same
    share; those below 128 pixels get smaller squares.
    """
    h, w, c = x_HWC.shape
    side = min(16, max(2, min(h, w) // 8))
    share = h * w / KADID_AREA * (16 / side) ** 2
    count = jnp.maximum(level, jnp.round(share * pick((20, 40, 60, 80, 100), level)))
    most = max(5, round(share * 100))
    room = jnp.array([h - side + 1, w - side + 1])
    at_key, from_key = jax.random.split(key)
    at_N2 = _places(at_key, most, room)
    distance_N2 = jax.random.randint(from_key, (most, 2), -16, 17)
    from_N2 = jnp.clip(at_N2 + distance_N2, 0, room[None] - 1)

    def copy(i: jax.Array, offset_2HW: jax.Array) -> jax.Array:
        inside = _inside(at_N2[i], side, h, w) & (i < count)
        return jnp.where(inside, (from_N2 - at_N2)[i][:, None, None], offset_2HW)

    # First where each pixel comes from, then one look-up for all squares.
    offset_2HW = jax.lax.fori_loop(0, most, copy, jnp.zeros((2, h, w), jnp.int32))
    y, x = jnp.arange(h)[:, None] + offset_2HW[0], jnp.arange(w)[None] + offset_2HW[1]
    return x_HWC.reshape(h * w, c)[y * w + x]


def colour_blocks(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """2, 4, 6, 8, 10 squares of a random colour each; 32 pixels wide in 512 x 384."""
    h, w, _ = x_HWC.shape
    side = min(h, w, max(1, round(32 * math.sqrt(h * w / KADID_AREA))))
    at_key, colour_key = jax.random.split(key)
    at_N2 = _places(at_key, 10, jnp.array([h - side + 1, w - side + 1]))
    colour_N3 = jax.random.uniform(colour_key, (10, 3))

    def paint(i: jax.Array, x_HWC: jax.Array) -> jax.Array:
        inside = _inside(at_N2[i], side, h, w) & (i < 2 * level)
        return jnp.where(inside[..., None], colour_N3[i][None, None], x_HWC)

    return jax.lax.fori_loop(0, 10, paint, x_HWC)


def _places(key: jax.Array, count: int, room_2: jax.Array) -> jax.Array:
    """Random corners (count, 2), rows and columns from 0 to below `room_2`."""
    share_N2 = jax.random.uniform(key, (count, 2))
    return jnp.minimum((share_N2 * room_2[None]).astype(jnp.int32), room_2[None] - 1)


def _inside(corner_2: jax.Array, side: int, h: int, w: int) -> jax.Array:
    """Whether each pixel (H, W) lies in the square."""
    y, x = jnp.arange(h)[:, None] - corner_2[0], jnp.arange(w)[None] - corner_2[1]
    return (y >= 0) & (y < side) & (x >= 0) & (x < side)


def pixelate(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Shrinks to 0.89, 0.78, 0.70, 0.57, 0.29 of the side and enlarges, by nearest pixels.

    The factor is 0.95 - z ** 0.6, z = 0.01, 0.05, 0.1, 0.2, 0.5.
    """
    factor = 0.95 - pick((0.01, 0.05, 0.1, 0.2, 0.5), level) ** 0.6
    rows, columns = (_nearest(n, factor) for n in x_HWC.shape[:2])
    return x_HWC[rows][:, columns]


def _nearest(n: int, factor: jax.Array | float) -> jax.Array:
    """Which pixel each of n comes from; in integers, since centres may fall on borders."""
    fewer = jnp.maximum(jnp.round(n * factor), 1).astype(jnp.int32)
    small_index = (2 * jnp.arange(n) + 1) * fewer // (2 * n)
    return (2 * small_index + 1) * n // (2 * fewer)


def sharpen(key: jax.Array, x_HWC: jax.Array, level: jax.Array) -> jax.Array:
    """Adds 1, 2, 3, 6, 12 times what a Gaussian blur of deviation 1 removes."""
    gain = pick((1, 2, 3, 6, 12), level)
    return x_HWC + gain * (x_HWC - joined(gaussian(planes(x_HWC), 1.0, 4)))
