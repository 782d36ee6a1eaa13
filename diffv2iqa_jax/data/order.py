"""The order of training: every run through the records is a permutation of its own.

    places(positions, count, seed)

Position i of the stream is in epoch i // count. Its place is a function of all bits of the seed, of
the epoch and of i % count, evaluated where it is wanted: a resumed run, or one process of several,
draws nothing for what it does not show. TensorFlow's `index_shuffle` is not used: of each word of
its seed it reads the lowest eight bits.
"""

import math

import numpy as np

from diffv2iqa_jax.pp.philox import MASK, philox

# Of these orders, beside the weights in a checkpoint. Version 1 was TensorFlow's index_shuffle, and
# NumPy's shuffle for pristine photos.
VERSION = 2

# Of sets of 2 to 8 records every order is as frequent as every other from 18 on, by a chi-square
# test over 200,000 epochs; larger sets need fewer.
ROUNDS = 24


def places(position_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions in the endless stream, from 0 on -> places among `count` records: (N,) int64.

    A Feistel network on pairs of numbers below (a, b), a * b >= count, that walks on from pairs
    which stand for no record (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    Its functions are tables of a random numbers each: memory grows as the root of `count`.

    Args:
      seed: any whole number; its lowest 64 bits count.
    """
    epoch_N, x_N = np.divmod(np.asarray(position_N, np.int64), count)
    # An even one: where both are odd, rounds can make even permutations only.
    a = math.isqrt(count - 1) // 2 * 2 + 2
    b = -(-count // a)
    epoch_E, row_N = np.unique(epoch_N, return_inverse=True)
    tables_ERA = _tables(epoch_E, seed, a)
    todo = np.arange(len(x_N))
    while len(todo):
        x_N[todo] = _permuted(x_N[todo], tables_ERA, row_N[todo], a, b)
        todo = todo[x_N[todo] >= count]
    return x_N


def _permuted(
    x_N: np.ndarray, tables_ERA: np.ndarray, row_N: np.ndarray, a: int, b: int
) -> np.ndarray:
    left_N, right_N = np.divmod(x_N, b)
    for i in range(0, ROUNDS, 2):
        left_N = (left_N + (tables_ERA[row_N, i, right_N] * a >> 32)) % a
        right_N = (right_N + (tables_ERA[row_N, i + 1, left_N] * b >> 32)) % b
    return left_N * b + right_N


def _tables(epoch_E: np.ndarray, seed: int, side: int) -> np.ndarray:
    """Random 32-bit numbers for each epoch, round and argument: (E, ROUNDS, side) int64."""
    block_B = np.arange(-(-ROUNDS * side // 4), dtype=np.uint64)
    epoch_E1 = epoch_E.astype(np.uint64)[:, None]
    counter = (block_B, block_B * 0, epoch_E1 & MASK, epoch_E1 >> 32)
    words = np.broadcast_arrays(*philox((seed & MASK, seed >> 32 & MASK), counter))
    flat = np.stack(words, axis=-1).reshape(len(epoch_E), -1)[:, : ROUNDS * side]
    return flat.reshape(-1, ROUNDS, side).astype(np.int64)
