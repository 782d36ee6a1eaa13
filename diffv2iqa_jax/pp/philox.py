"""TensorFlow's stateless random numbers in NumPy: Philox 4x32-10, bit for bit."""

import struct
from collections.abc import Sequence
from functools import partial

import numpy as np

Seed = tuple[int, int]  # two int32
Words = Sequence[int | np.ndarray]

MASK = 2**32 - 1


def seed_of(content: int) -> Seed:
    """The seed that a picture's CRC-32 is."""
    return struct.unpack("<i", struct.pack("<I", content))[0], 0


def fold_in(seed: Seed, number: int) -> Seed:
    """As `tf.random.experimental.stateless_fold_in`."""
    first = _bits(seed, 1)[0]
    return struct.unpack("<i", struct.pack("<I", first))[0], number


def uniform(seed: Seed, count: int) -> np.ndarray:
    """As `tf.random.stateless_uniform` with Philox: float32 in [0, 1)."""
    bits = np.array(_bits(seed, count), np.uint32)
    return ((bits & 0x7FFFFF) | 0x3F800000).view(np.float32) - np.float32(1)


def _bits(seed: Seed, count: int) -> list[int]:
    """As TensorFlow draws 32-bit numbers: the seed is mixed into a key and a counter first."""
    words = [word & MASK for number in seed for word in (number, number >> 32)]
    mixed = philox((0x3EC8F720, 0x02461E29), words)
    blocks = range(-(-count // 4))
    draw = partial(philox, mixed[:2])
    return [bits for i in blocks for bits in draw([i, 0, *mixed[2:]])][:count]


def philox(key: Words, counter: Words) -> Words:
    """Philox 4x32-10 (Salmon et al. 2011): a key of two words, a counter of four -> four.

    Words are below 2^32: whole numbers of Python, or arrays of uint64 that broadcast.
    """
    (k0, k1), c = key, list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & MASK, p0 >> 32 ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return c
