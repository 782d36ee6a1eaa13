"""Each run through the records is a permutation of its own, and as random as one."""

import itertools

import numpy as np
import pytest
from scipy import stats

from diffv2iqa_jax.data import order


def orders(count, epochs, seed=0):
    """The orders of the first epochs: (epochs, count)."""
    return order.places(np.arange(epochs * count), count, seed).reshape(epochs, count)


def in_sequence(orders_EN):
    """How many records each order shows right after the one before them."""
    return (np.diff(orders_EN, axis=1) == 1).sum(axis=1)


NUMBERS = {*range(1, 20), 31, 97, 997, 10_007, 65_537}
NUMBERS |= {2**k + d for k in (5, 8, 10, 13) for d in (-1, 0, 1)}


@pytest.mark.parametrize("count", sorted(NUMBERS))
def test_every_epoch_holds_every_record_once(count):
    for seed in (0, 3, 2**40 + 1, -1):
        got = orders(count, 3, seed)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(np.sort(got, axis=1), np.tile(np.arange(count), (3, 1)))


def test_of_a_hundred_million_no_record_comes_twice_and_each_is_where_it_is_alone():
    count = 10**8
    position = 5 * count - 50_000 + np.arange(100_000)
    got = order.places(position, count, 9)
    for epoch in (got[:50_000], got[50_000:]):
        assert len(np.unique(epoch)) == 50_000 and 0 <= epoch.min() and epoch.max() < count
        assert stats.kstest(epoch / count, "uniform").pvalue > 1e-4
    for i in (0, 49_999, 50_000, 99_999):
        assert order.places(position[i : i + 1], count, 9) == got[i]


@pytest.mark.parametrize("of", ["epochs", "seeds", "large seeds"])
def test_a_thousand_orders_are_all_different_and_all_shuffled(of):
    """TensorFlow's index_shuffle: 256 orders, and 155 of 799 neighbours together in one of them."""
    seeds = {"seeds": range(1000), "large seeds": [2**32 * i + i % 7 for i in range(1000)]}
    if of == "epochs":
        got = orders(800, 1000)
    else:
        got = np.stack([orders(800, 1, seed)[0] for seed in seeds[of]])
    assert len({row.tobytes() for row in got}) == 1000
    together = in_sequence(got)  # nearly a Poisson variable of mean 1
    assert together.max() <= 9 and abs(together.mean() - 1) < 0.16
    assert abs(in_sequence(got[:, ::-1]).mean() - 1) < 0.16
    # Ranks of one epoch say nothing about those of the next: each |r| is about 1 / sqrt(800).
    likeness = [np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(got)]
    assert np.abs(likeness).max() < 5 / 800**0.5 and abs(np.mean(likeness)) < 5 / 800_000**0.5
    first = np.bincount(got[:, 0] // 100, minlength=8)
    assert stats.chisquare(first).pvalue > 1e-4


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_of_few_records_every_order_is_as_frequent_as_every_other(count):
    got = orders(count, 20_000, 7) @ count ** np.arange(count)
    _, seen = np.unique(got, return_counts=True)
    assert len(seen) == np.prod(np.arange(1, count + 1))
    assert stats.chisquare(seen).pvalue > 1e-4


def test_every_record_is_as_frequent_at_every_place():
    got = orders(17, 5000)
    counts = [np.bincount(got[:, place], minlength=17) for place in range(17)]
    statistic = sum(stats.chisquare(c).statistic for c in counts)
    assert 1e-4 < stats.chi2.sf(statistic, 16 * 16) < 1 - 1e-4
