"""Layers that several models share: dropout, transposed attention, patch-weighted scores, norms."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax import rng

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): MANIQA's initialisation, of everything we took from it.
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# Names of the mapped axes of a training step; BatchNorm averages its statistics over them.
BATCH_AXES = ("data", "fsdp")


class Dropout(nn.Module):
    """Zeros a share of the values and enlarges the others, by a key for each image.

    nn.Dropout draws once for a whole batch: what an image loses then depends on its place in the
    batch, hence on the number of devices. Here it depends on the image's key and on the module's
    path; two calls of one module with the same keys drop the same.

    Attributes:
      rate: the share, in [0, 1).
      whole: zero all values of an image, or none (drop-path).
    """

    rate: float
    whole: bool = False

    def __call__(self, x: jax.Array, drop_key_B: jax.Array | None) -> jax.Array:
        """(B, ...) -> same; keys of None drop nothing."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout {self.rate}: must be at least 0 and less than 1")
        if drop_key_B is None or self.rate == 0:
            return x
        shape = (1,) * (x.ndim - 1) if self.whole else x.shape[1:]
        own_key_B = rng.within(drop_key_B, "/".join(self.path))
        kept = rng.chosen(own_key_B, 1 - self.rate, shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


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
      block: how many query channels to attend from at a time, so that only (B, block, C) of
        the channel map exists at once, also while differentiating. None takes all.
      scale: factor of the logits; None is 1 / sqrt(N).
    """
    batch, channels, positions = query_BCN.shape
    scale = positions**-0.5 if scale is None else scale

    def attend(query_BcN: jax.Array) -> jax.Array:
        # Nothing normalises the logits, so they can be huge: they stay float32.
        logits = jnp.einsum("bcn,bdn->bcd", query_BcN, key_BCN, preferred_element_type=jnp.float32)
        attention = nn.softmax(logits * scale).astype(value_BCN.dtype)
        return jnp.einsum("bcd,bdn->bcn", attention, value_BCN)

    if block is None or block >= channels:
        return attend(query_BCN)
    blocks = -(-channels // block)  # rounded up
    padded = jnp.pad(query_BCN, ((0, 0), (0, blocks * block - channels), (0, 0)))
    query_SBcN = padded.reshape(batch, blocks, block, positions).swapaxes(0, 1)
    out_SBcN = jax.lax.map(jax.checkpoint(attend, prevent_cse=False), query_SBcN)
    return out_SBcN.swapaxes(0, 1).reshape(batch, -1, positions)[:, :channels]


def scramble(x_BCN: jax.Array) -> jax.Array:
    """MANIQA's quirk: transposes to (B, N, C), then *reshapes* back to (B, C, N).

    This mixes channels and positions; the published weights depend on it.
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
    def __call__(
        self,
        query_BCN: jax.Array,
        key_BCN: jax.Array | None = None,
        value_BCN: jax.Array | None = None,
        residual_BCN: jax.Array | None = None,
        *,
        drop_key_B: jax.Array | None = None,
    ) -> jax.Array:
        """(B, C, N) -> same. A key, value or residual of None is the query."""

        def project(name: str, x_BCN: jax.Array | None) -> jax.Array:
            x_BCN = query_BCN if x_BCN is None else x_BCN
            width = x_BCN.shape[-1]
            dense = nn.Dense(width, kernel_init=fan_in_uniform, dtype=self.dtype, name=name)
            return dense(x_BCN)

        q, k, v = project("c_q", query_BCN), project("c_k", key_BCN), project("c_v", value_BCN)
        out_BCN = attend_channels(q, k, v, block=self.block)
        if self.scramble:
            out_BCN = scramble(out_BCN)
        out_BCN = Dropout(self.dropout)(out_BCN, drop_key_B)
        return (query_BCN if residual_BCN is None else residual_BCN) + out_BCN


class WeightedScore(nn.Module):
    """Scores every position, weighs it, and averages (MANIQA): score = sum(s w) / sum(w).

    Attributes:
      width: width of the hidden layer.
      positive: end the scores in a ReLU, as MANIQA does. A head whose scores all start
        negative then never learns.
    """

    width: int
    positive: bool = True
    dropout: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x_BHWC: jax.Array, *, drop_key_B: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the score (B,), the positions' scores and their weights (B, H, W)."""
        dense = partial(nn.Dense, kernel_init=fan_in_uniform, dtype=self.dtype)

        def head(name: str) -> jax.Array:
            hidden = nn.relu(dense(self.width, name=f"{name}_0")(x_BHWC))
            hidden = Dropout(self.dropout)(hidden, drop_key_B)
            return dense(1, name=f"{name}_1")(hidden)[..., 0].astype(jnp.float32)

        score_BHW, logit_BHW = head("score"), head("weight")
        if self.positive:
            score_BHW = nn.relu(score_BHW)
        # w / sum(w) with w = sigmoid(logit); this form stays finite where every w vanishes.
        share_BHW = nn.softmax(nn.log_sigmoid(logit_BHW), axis=(1, 2))
        return jnp.sum(score_BHW * share_BHW, (1, 2)), score_BHW, nn.sigmoid(logit_BHW)


class Norm(nn.Module):
    """The normalisation after each convolution.

    kind "batch" is BatchNorm, which uses its running statistics unless training; "frozen" is
    BatchNorm that always uses them, as for a frozen backbone; "group" is GroupNorm, which
    keeps no statistics.
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
            axis_name=BATCH_AXES if learn else None,
            dtype=self.dtype,
            name="batch",
        )(x)


def to_map(x_BND: jax.Array) -> jax.Array:
    """Lays positions out as a square, row by row: (B, N, D) -> (B, H, W, D)."""
    side = round(x_BND.shape[1] ** 0.5)
    return x_BND.reshape(x_BND.shape[0], side, side, x_BND.shape[2])


def to_channels(x_BHWC: jax.Array) -> jax.Array:
    """The positions of each channel, row by row: (B, H, W, C) -> (B, C, N)."""
    return x_BHWC.reshape(x_BHWC.shape[0], -1, x_BHWC.shape[-1]).swapaxes(1, 2)
