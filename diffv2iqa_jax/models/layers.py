"""Layers that several models share: transposed attention, patch-weighted scores, BatchNorm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what the parts that come from MANIQA start with.
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# The mapped axis that a training step runs over; BatchNorm averages its statistics there.
BATCH_AXIS = "data"


def attend_channels(
    query_BCN: jax.Array,
    key_BCN: jax.Array,
    value_BCN: jax.Array,
    *,
    block: int | None = None,
    scale: float | None = None,
) -> jax.Array:
    """softmax(scale q k^T) v with channels as tokens: (B, C, N).

    Args:
      scale: of the logits; None is 1 / sqrt(N).
      block: query channels to treat at a time, so that only (B, block, C) of the channel map
        exists at once, also while differentiating. None: all of them.
    """
    batch, channels, positions = query_BCN.shape
    scale = positions**-0.5 if scale is None else scale

    def rows(query_BcN: jax.Array) -> jax.Array:
        # Nothing normalises the logits, so they can be huge: they stay float32.
        logits = jnp.einsum("bcn,bdn->bcd", query_BcN, key_BCN, preferred_element_type=jnp.float32)
        attention = nn.softmax(logits * scale).astype(value_BCN.dtype)
        return jnp.einsum("bcd,bdn->bcn", attention, value_BCN)

    if block is None or block >= channels:
        return rows(query_BCN)
    blocks = -(-channels // block)
    padded = jnp.pad(query_BCN, ((0, 0), (0, blocks * block - channels), (0, 0)))
    query_SBcN = padded.reshape(batch, blocks, block, positions).swapaxes(0, 1)
    out_SBcN = jax.lax.map(jax.checkpoint(rows, prevent_cse=False), query_SBcN)
    return out_SBcN.swapaxes(0, 1).reshape(batch, -1, positions)[:, :channels]


def scramble(x_BCN: jax.Array) -> jax.Array:
    """MANIQA's quirk: transposed to (B, N, C), then *reshaped* back to (B, C, N).

    It mixes channels and positions; the published weights depend on it.
    """
    return x_BCN.swapaxes(1, 2).reshape(x_BCN.shape)


class TransposedAttention(nn.Module):
    """MANIQA's TAB: attention between channels, residual. Also RTAB, with three inputs.

    Attributes:
      scramble: keep MANIQA's transpose-then-reshape.
      block: see `attend_channels`.
    """

    scramble: bool = True
    block: int | None = None
    dropout: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, query_BCN, key_BCN=None, value_BCN=None, residual_BCN=None, *, train=False):
        """One input: it is query, key, value and residual. Otherwise each is given."""
        x = query_BCN
        inputs = {"c_q": x, "c_k": key_BCN, "c_v": value_BCN}
        project = lambda name, x: nn.Dense(
            x.shape[-1], kernel_init=fan_in_uniform, dtype=self.dtype, name=name
        )(x)
        q, k, v = (project(name, x if y is None else y) for name, y in inputs.items())
        out_BCN = attend_channels(q, k, v, block=self.block)
        if self.scramble:
            out_BCN = scramble(out_BCN)
        out_BCN = nn.Dropout(self.dropout, deterministic=not train)(out_BCN)
        return (x if residual_BCN is None else residual_BCN) + out_BCN


class WeightedScore(nn.Module):
    """Scores every position, weighs it, and averages (MANIQA): score = sum(s w) / sum(w).

    Attributes:
      width: of the hidden layer.
      positive: end the scores in a ReLU, as MANIQA. An all-negative start is then a dead head.
    """

    width: int
    positive: bool = True
    dropout: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BHWC: jax.Array, *, train: bool = False):
        """Returns the score (B,), the positions' scores and their weights (B, H, W)."""

        def head(name: str) -> jax.Array:
            dense = lambda width, layer: nn.Dense(
                width, kernel_init=fan_in_uniform, dtype=self.dtype, name=f"{name}_{layer}"
            )
            x = nn.relu(dense(self.width, 0)(x_BHWC))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            return dense(1, 1)(x)[..., 0].astype(jnp.float32)

        score_BHW, logit_BHW = head("score"), head("weight")
        if self.positive:
            score_BHW = nn.relu(score_BHW)
        # w / sum(w), w = sigmoid(logit): in this form it is finite where every w vanishes.
        share_BHW = nn.softmax(nn.log_sigmoid(logit_BHW), axis=(1, 2))
        return jnp.sum(score_BHW * share_BHW, (1, 2)), score_BHW, nn.sigmoid(logit_BHW)


class Norm(nn.Module):
    """The normalisation after each convolution.

    kind "batch": BatchNorm, by its running statistics unless training; "frozen": always by
    its running statistics, as with a frozen backbone; "group": GroupNorm, which keeps none.
    """

    kind: str
    dtype: str
    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train: bool):
        if self.kind == "group":
            return nn.GroupNorm(8, epsilon=self.epsilon, dtype=self.dtype, name="group")(x)
        if self.kind not in ("batch", "frozen"):
            raise ValueError(f"norm {self.kind!r}: known are ['batch', 'frozen', 'group']")
        learn = train and self.kind == "batch"
        return nn.BatchNorm(
            use_running_average=not learn,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=BATCH_AXIS if learn else None,
            dtype=self.dtype,
            name="batch",
        )(x)


def to_map(x_BND: jax.Array) -> jax.Array:
    """Positions in row-major order, as many rows as columns: (B, N, D) -> (B, H, W, D)."""
    side = round(x_BND.shape[1] ** 0.5)
    return x_BND.reshape(x_BND.shape[0], side, side, x_BND.shape[2])
