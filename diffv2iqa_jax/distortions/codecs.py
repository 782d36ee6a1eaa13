"""JPEG and JPEG 2000 as a decoder shows them, computed on the accelerator without a bit stream.

JPEG follows libjpeg step by step (colour in 8 bits, 4:2:0 chroma, scaled quantisation tables,
"fancy" upsampling), so that a picture comes out as Pillow would decode it. JPEG 2000 keeps what
an encoder keeps at a given rate: 9/7 wavelet coefficients down to some bit plane, or to a level
between two, as a stream may end between coding passes. Pictures are float32 (H, W, 3) RGB in
[0, 255], of any size.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

HIGHEST = jax.lax.Precision.HIGHEST  # TF32 or bfloat16 would show in 8 bits

# ITU-T T.81, Annex K.1: tables for luminance and chrominance at quality 50.
LUMA_88 = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMA_88 = np.full((8, 8), 99, np.float32)
CHROMA_88[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# ITU-R BT.601, full range; chroma without its offset of 128.
YCC_33 = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]],
    np.float32,
)
# libjpeg computes colours with 16 bits after the point, which float32 holds exactly; halves of
# chroma round down.
YCC_OFFSET_3 = np.array([32768, 2**23 + 32767, 2**23 + 32767], np.float32)
RGB_33 = np.array([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]], np.float32)

_u, _i = np.mgrid[:8, :8]
DCT_88 = np.cos((2 * _i + 1) * _u * np.pi / 16) * np.where(_u == 0, 8**-0.5, 0.5)
DCT_88 = DCT_88.astype(np.float32)


def mix(matrix_33: np.ndarray, x_3HW: jax.Array) -> jax.Array:
    """Applies the matrix to each pixel's channels, in full float32."""
    r, g, b = x_3HW
    return jnp.stack([m[0] * r + m[1] * g + m[2] * b for m in matrix_33.tolist()])


def planes(x_HWC: jax.Array) -> jax.Array:
    """Moves channels first, which makes operations over pixels fast."""
    return jnp.moveaxis(x_HWC, -1, 0)


def joined(x_CHW: jax.Array) -> jax.Array:
    """Moves channels last again."""
    return jnp.moveaxis(x_CHW, 0, -1)


def jpeg(x_HWC: jax.Array, quality: jax.Array | float) -> jax.Array:
    """Codes a picture as JPEG with 4:2:0 chroma, and decodes it again.

    Args:
      x_HWC: RGB in [0, 255]; rounded to whole numbers first.
      quality: libjpeg's, 1 to 100.

    Returns:
      Whole numbers in [0, 255], as Pillow's except for rounding (tests: 45 dB and more).
    """
    h, w, _ = x_HWC.shape
    ycc = mix(np.rint(YCC_33 * 65536), _levels(planes(x_HWC))) + YCC_OFFSET_3[:, None, None]
    ycc = jnp.floor(ycc / 65536)
    luma = _block_coded(ycc[:1], _table(LUMA_88, quality))[:, :h, :w]
    # Beyond the border libjpeg repeats the last column before it averages, the last row after.
    chroma = jnp.pad(ycc[1:], ((0, 0), (0, h % 2), (0, -w % 16)), mode="edge")
    coded = _block_coded(_halved(chroma), _table(CHROMA_88, quality))
    chroma = _doubled(coded[:, : -(-h // 2), : -(-w // 2)])[:, :h, :w] - 128.0
    return joined(_levels(mix(RGB_33, jnp.concatenate([luma, chroma]))))


def _levels(x: jax.Array) -> jax.Array:
    """Rounds to the 256 levels, halves up."""
    return jnp.clip(jnp.floor(x + 0.5), 0.0, 255.0)


def _table(table_88: np.ndarray, quality: jax.Array | float) -> jax.Array:
    """libjpeg's scaling: 5000 / q percent below quality 50, 200 - 2 q above."""
    quality = jnp.asarray(quality, jnp.float32)
    percent = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    return jnp.clip(jnp.floor((table_88 * percent + 50) / 100), 1, 255)


def _block_coded(x_CHW: jax.Array, table_88: jax.Array) -> jax.Array:
    """Quantises planes in the DCT of their 8 x 8 blocks: whole numbers, padded to blocks."""
    c, h, w = x_CHW.shape
    x_CHW = jnp.pad(x_CHW, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="edge")
    padded = x_CHW.shape
    blocks = x_CHW.reshape(c, padded[1] // 8, 8, padded[2] // 8, 8) - 128.0

    product = functools.partial(jnp.einsum, precision=HIGHEST)
    step = 8 * table_88[None, None, :, None, :]
    # As libjpeg, round to 2 bits after the point between the passes, and to none of 8 x DCT
    # after them: else coefficients half way between two steps could fall to either side.
    rows = jnp.round(product("vj,chiwj->chiwv", DCT_88 * 128**0.5, blocks))
    coefficients = jnp.round(product("ui,chiwv->chuwv", DCT_88 * 0.5**0.5, rows))
    steps = jnp.floor((jnp.abs(coefficients) + step / 2) / step)
    quantised = jnp.sign(coefficients) * steps * (step / 8)
    decoded = product("ui,chuwv->chiwv", DCT_88, quantised)
    decoded = product("vj,chiwv->chiwj", DCT_88, decoded)
    return _levels(decoded.reshape(padded) + 128.0)


def _halved(x_CHW: jax.Array) -> jax.Array:
    """Means of 2 x 2 in whole numbers; libjpeg adds 1 and 2 in turn before it divides by 4."""
    total = x_CHW[:, ::2] + x_CHW[:, 1::2]
    total = total[:, :, ::2] + total[:, :, 1::2]
    bias = 1.0 + jnp.arange(total.shape[2], dtype=jnp.float32) % 2
    return jnp.floor((total + bias[None, None]) / 4)


def _doubled(x_CHW: jax.Array) -> jax.Array:
    """libjpeg's triangle filter: each value is 9, 3, 3 and 1 sixteenths of the four nearest."""
    c, h, w = x_CHW.shape
    padded = jnp.pad(x_CHW, ((0, 0), (1, 1), (1, 1)), mode="edge")
    nearer = 3 * padded[:, 1:-1]
    rows = jnp.stack([nearer + padded[:, :-2], nearer + padded[:, 2:]], axis=2)
    rows = rows.reshape(c, 2 * h, w + 2)
    nearer = 3 * rows[:, :, 1:-1]
    left = jnp.floor((nearer + rows[:, :, :-2] + 8) / 16)
    right = jnp.floor((nearer + rows[:, :, 2:] + 7) / 16)
    return jnp.stack([left, right], axis=3).reshape(c, 2 * h, 2 * w)


# JPEG 2000 (ITU-T T.800): lifting steps of the 9/7 wavelet. Its scaling does not matter, since we
# cut coefficients in units of the picture's error.
LIFTING = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
LEVELS = 5  # of decomposition, as OpenJPEG chooses
# Bits of a coefficient: A * log2(1 + (B * s) ** 2 / (1 + C * s)), where s is the mean size, in
# steps, of the 3 x 3 coefficients around it. Fitted to OpenJPEG's code for photos. Without C a
# coefficient twice as large would cost 1.6 bits more, where a coder spends 1: too coarse at high
# rates.
RATE_A, RATE_B, RATE_C = 0.946, 1.922, 0.303
SEARCH = (-4.0, 10.0)  # log2 of the step, in grey levels


def jpeg2000(x_HWC: jax.Array, bits_per_pixel: jax.Array | float) -> jax.Array:
    """Codes a picture as JPEG 2000 (irreversible, one tile, one layer), and decodes it again.

    Cuts every coefficient to multiples of one step, in units of the picture's squared error.
    Truncating bit planes for the least error tends to that. A bisection finds the step at which
    the estimated length of the code is the wanted one.

    Args:
      x_HWC: RGB in [0, 255].
      bits_per_pixel: length of the code without headers; the compression ratio is 24 over it.

    Returns:
      Whole numbers in [0, 255]. PSNR to the original is about that of Pillow's OpenJPEG at that
      rate, with mct=1 for colour (its default codes R, G and B each by itself). On the 24 Kodak
      photos, in colour and in grey, at ratios of 3 to 170: 0.5 dB off (root mean square), more
      than 1 dB in 4 % of cases, 1.4 dB at most.
    """
    h, w, _ = x_HWC.shape
    bands = _analysis(mix(YCC_33, _levels(planes(x_HWC)) - 128.0))
    spread = jnp.concatenate([_spread(band).reshape(-1) for band in bands])
    wanted = jnp.asarray(bits_per_pixel, jnp.float32) * (h * w)

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        too_long = _bits(spread / jnp.exp2(middle)) > wanted
        return jnp.where(too_long, middle, low), jnp.where(too_long, high, middle)

    low, high = jax.lax.fori_loop(0, 11, halve, tuple(jnp.float32(x) for x in SEARCH))
    step = jnp.exp2((low + high) / 2)
    decoded = _synthesis([_cut(band, step) for band in bands], h, w)
    return joined(_levels(mix(RGB_33, decoded) + 128.0))


def _cut(x: jax.Array, step: jax.Array) -> jax.Array:
    """Cuts coefficients to multiples of the step, and decodes each as its interval's middle."""
    whole = jnp.floor(jnp.abs(x) / step)
    return jnp.where(whole > 0, jnp.sign(x) * (whole + 0.5) * step, 0.0)


def _spread(x_CHW: jax.Array) -> jax.Array:
    """Mean size of the 3 x 3 coefficients around each, which the coder's contexts exploit."""
    size = jnp.pad(jnp.abs(x_CHW), ((0, 0), (1, 1), (1, 1)))
    rows = size[:, :-2] + size[:, 1:-1] + size[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9


def _bits(spread_in_steps: jax.Array) -> jax.Array:
    """Estimated length of the code in bits."""
    s = spread_in_steps
    return RATE_A * jnp.sum(jnp.log2(1.0 + (RATE_B * s) ** 2 / (1.0 + RATE_C * s)))


def _sides(h: int, w: int) -> list[tuple[int, int]]:
    """Height and width of the low-pass picture at each level, the whole picture first."""
    sides = [(h, w)]
    while len(sides) <= LEVELS and min(sides[-1]) > 1:
        sides.append(tuple(-(-n // 2) for n in sides[-1]))
    return sides


def _analysis(x_CHW: jax.Array) -> list[jax.Array]:
    """Wavelet coefficients in units of the picture's error: three bands a level, then the rest."""
    bands = []
    sides = _sides(*x_CHW.shape[1:])
    for level, (h, w) in enumerate(sides[:-1]):
        rows, columns = (jnp.asarray(wavelet(n)[0]) for n in (h, w))
        y = jnp.matmul(jnp.matmul(rows, x_CHW, precision=HIGHEST), columns.T, precision=HIGHEST)
        a, b = sides[level + 1]
        x_CHW = y[:, :a, :b]
        details = (y[:, :a, b:], y[:, a:, :b], y[:, a:, b:])
        bands += [d * gain for d, gain in zip(details, _gains(level + 1)[1:], strict=True)]
    return [*bands, x_CHW * _gains(len(sides) - 1)[0]]


def _synthesis(bands: list[jax.Array], h: int, w: int) -> jax.Array:
    """The inverse of `_analysis` for a picture of (h, w)."""
    sides = _sides(h, w)
    x_CHW = bands[-1] / _gains(len(sides) - 1)[0]
    for level in range(len(sides) - 2, -1, -1):
        details, gains = bands[3 * level : 3 * level + 3], _gains(level + 1)[1:]
        right, below, both = (d / gain for d, gain in zip(details, gains, strict=True))
        top = jnp.concatenate([x_CHW, right], axis=2)
        y = jnp.concatenate([top, jnp.concatenate([below, both], axis=2)], axis=1)
        rows, columns = (jnp.asarray(wavelet(n)[1]) for n in sides[level])
        x_CHW = jnp.matmul(jnp.matmul(rows, y, precision=HIGHEST), columns.T, precision=HIGHEST)
    return x_CHW


@functools.lru_cache(maxsize=64)
def wavelet(n: int) -> tuple[np.ndarray, np.ndarray]:
    """One level of the 9/7 wavelet on n values as a matrix, low-pass rows first, and its inverse.

    On small crops an accelerator multiplies by a matrix faster than it does lifting steps.
    """
    x = np.eye(n)
    even, odd = x[::2], x[1::2]
    for number, weight in enumerate(LIFTING):
        # A value's neighbours on both sides; the signal is mirrored at its ends.
        if number % 2 == 0:
            right = np.concatenate([even[1:], even[-1:]])[: len(odd)]
            odd = odd + weight * (even[: len(odd)] + right)
        else:
            left = np.concatenate([odd[:1], odd])[: len(even)]
            right = np.concatenate([odd, odd[-1:]])[: len(even)]
            even = even + weight * (left + right)
    forward = np.concatenate([even, odd])
    return forward.astype(np.float32), np.linalg.inv(forward).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _gains(level: int) -> np.ndarray:
    """Error in the picture per unit of a coefficient: (4 bands, C, 1, 1), low-pass first."""
    low, high, basis = 1.0, 1.0, np.eye(512)
    for depth in range(level):
        n = 512 >> depth
        inverse = wavelet(n)[1].astype(np.float64)
        norm = np.linalg.norm(basis @ inverse, axis=0)
        low, high = norm[n // 4], norm[3 * n // 4]
        basis = basis @ inverse[:, : n // 2]
    colour_C = np.linalg.norm(RGB_33, axis=0)
    gains = np.multiply.outer([low * low, low * high, high * low, high * high], colour_C)
    return gains[..., None, None].astype(np.float32)
