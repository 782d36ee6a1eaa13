from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.models import layers
from tests import tiny, traces

B, C, N = 2, 12, 5
QKV = [tiny.images(seed, B, C, N) for seed in (1, 2, 3)]
TAB = layers.TransposedAttention(dropout=0.0)
X = tiny.images(0, B, C, N)


def plain(q, k, v, scale):
    """Attention between channels in numpy, in float64."""
    logits = scale * np.einsum("bcn,bdn->bcd", *(np.asarray(x, np.float64) for x in (q, k)))
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bcd,bdn->bcn", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("block", [1, 4, 5, 12, 20])
def test_blockwise_attention_is_the_plain_one(block):
    def both(blocks, q, k, v):
        def attend(*x):
            return layers.attend_channels(*x, block=blocks)

        return attend(q, k, v), jax.grad(lambda x: jnp.sum(jnp.sin(attend(*x))))((q, k, v))

    whole, parts = (jax.jit(partial(both, b))(*QKV) for b in (None, block))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, rtol=0), parts, whole)


def test_attention_is_the_formula():
    np.testing.assert_allclose(layers.attend_channels(*QKV), plain(*QKV, N**-0.5), atol=1e-6)
    np.testing.assert_allclose(
        layers.attend_channels(*QKV, scale=2.0, block=5), plain(*QKV, 2.0), atol=1e-6
    )


def test_huge_logits_pick_one_channel_and_stay_finite():
    huge = 1e4 * QKV[0]
    out = layers.attend_channels(huge, huge, QKV[2])
    np.testing.assert_allclose(out, plain(huge, huge, QKV[2], N**-0.5), atol=1e-5)
    half = [x.astype(jnp.bfloat16) for x in (huge, huge, QKV[2])]
    assert np.all(np.isfinite(layers.attend_channels(*half).astype(jnp.float32)))


@pytest.mark.parametrize("block", [8, 7])
def test_blockwise_attention_never_holds_the_channel_map(block):
    channels, positions = 32, 4
    qkv = [jnp.zeros((B, channels, positions))] * 3

    def attend(x, blocks):
        return jnp.sum(layers.attend_channels(*x, block=blocks))

    for derive in (lambda fn: fn, jax.grad):

        def of(blocks, derive=derive):
            return traces.sizes(derive(partial(attend, blocks=blocks)), qkv)

        assert max(of(None)) == B * channels**2
        assert max(of(block)) == B * block * channels


def test_scramble_is_maniqas_reshape_element_by_element():
    a = np.asarray(X)
    out = np.asarray(layers.scramble(X))
    for c in range(C):
        for n in range(N):
            p = c * N + n
            np.testing.assert_array_equal(out[:, c, n], a[:, p % C, p // C])


def without_value(variables):
    zero = jax.tree.map(jnp.zeros_like, variables["params"]["c_v"])
    return {"params": {**variables["params"], "c_v": zero}}


def test_transposed_attention_without_values_is_the_residual():
    silent = without_value(tiny.variables(TAB, X))
    np.testing.assert_array_equal(TAB.apply(silent, X), X)
    residual = tiny.images(7, B, C, N)
    np.testing.assert_array_equal(TAB.apply(silent, *QKV, residual), residual)


def test_only_without_the_scramble_channels_are_alike():
    order = np.random.default_rng(0).permutation(C)
    variables = tiny.variables(TAB, X)
    for scrambled in (False, True):
        tab = layers.TransposedAttention(dropout=0.0, scramble=scrambled)
        out, permuted = tab.apply(variables, X), tab.apply(variables, X[:, order])
        assert np.allclose(out[:, order], permuted, atol=1e-5) is not scrambled


def test_blocks_scramble_as_a_whole():
    variables = tiny.variables(TAB, X)
    blocks = layers.TransposedAttention(dropout=0.0, block=5)
    np.testing.assert_allclose(blocks.apply(variables, X), TAB.apply(variables, X), atol=1e-5)


def shifted(variables, name, by):
    layer = variables["params"][name]
    return {"params": {**variables["params"], name: {**layer, "bias": layer["bias"] + by}}}


def test_the_score_is_the_weighted_mean_of_its_maps():
    x = tiny.images(0, 3, 4, 5, 6)
    for positive in (True, False):
        head = layers.WeightedScore(8, positive=positive)
        score_B, score_BHW, weight_BHW = head.apply(tiny.variables(head, x), x)
        assert score_BHW.shape == weight_BHW.shape == (3, 4, 5)
        assert np.all((weight_BHW > 0) & (weight_BHW < 1))
        assert np.any(score_BHW < 0) is not np.bool(positive)
        want = [np.average(s, weights=w) for s, w in zip(score_BHW, weight_BHW, strict=True)]
        np.testing.assert_allclose(score_B, want, rtol=1e-5)


def test_raising_every_position_raises_the_score_by_as_much():
    x = tiny.images(0, 3, 4, 5, 6)
    head = layers.WeightedScore(8, positive=False)
    variables = tiny.variables(head, x)
    score, _, weight = head.apply(variables, x)
    raised, _, same = head.apply(shifted(variables, "score_1", 2.0), x)
    np.testing.assert_allclose(raised, score + 2, rtol=1e-5)
    np.testing.assert_array_equal(weight, same)


def test_equal_weights_give_the_plain_mean_however_small():
    x = tiny.images(0, 3, 4, 5, 6)
    head = layers.WeightedScore(8, positive=False)
    variables = tiny.variables(head, x)
    flat = jax.tree.map(jnp.zeros_like, variables["params"]["weight_1"])
    variables = {"params": {**variables["params"], "weight_1": flat}}
    for level in (0.0, -30.0):
        score, patches, _ = head.apply(shifted(variables, "weight_1", level), x)
        np.testing.assert_allclose(score, patches.mean((1, 2)), rtol=1e-5)


def test_positions_form_a_square_in_row_major_order():
    x = jnp.arange(2 * 9 * 2).reshape(2, 9, 2)
    np.testing.assert_array_equal(layers.to_map(x)[1, 2, 0], x[1, 6])
