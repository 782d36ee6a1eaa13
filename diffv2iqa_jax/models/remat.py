"""Computing a net's blocks again in the backward pass, instead of keeping what they computed."""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffv2iqa_jax.models import efficientnet, layers, resnet, swin, unet, vcr, vit

KINDS = ("none", "blocks")
# What is computed again, from its inputs alone. Every trained net consists of these.
BLOCKS = (
    unet.ResnetBlock,
    vcr.Unit,
    vcr.Scales,
    efficientnet.Block,
    resnet.Bottleneck,
    vit.Block,
    swin.SwinBlock,
    layers.TransposedAttention,
    layers.WeightedScore,
)


def recomputing(kind: str) -> contextlib.AbstractContextManager:
    """Within it, "blocks" lets a call of one of BLOCKS keep nothing but its inputs.

    Parameters keep their names, so that nothing else needs to know.
    """
    return nn.intercept_methods(_again) if kind == "blocks" else contextlib.nullcontext()


def _again(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    block = context.module
    if not isinstance(block, BLOCKS) or context.method_name != "__call__":
        return call(*args, **kwargs)
    leaves, tree = jax.tree.flatten((args, kwargs))
    is_array = [isinstance(leaf, jax.Array) for leaf in leaves]  # others, as `train`, are static

    def compute(block: nn.Module, *arrays: jax.Array) -> Any:
        given = iter(arrays)
        filled = [next(given) if one else x for x, one in zip(leaves, is_array, strict=True)]
        args, kwargs = jax.tree.unflatten(tree, filled)
        # The method as its class has it: flax's would be intercepted again, without end.
        return type(block).__call__.__wrapped__(block, *args, **kwargs)

    def forward(block: nn.Module, *arrays: jax.Array) -> tuple[Any, Callable]:
        return nn.vjp(nn.remat(compute), block, *arrays)

    def backward(vjp: Callable, cotangents: Any) -> tuple:
        # A compiler orders by what depends on what. With remat alone it computes some blocks again
        # long before their gradients are wanted, puts the gradients of their weights off to the
        # end, and so keeps all that was computed again: nothing is saved.
        weights, *inputs = _after(cotangents, vjp)(cotangents)
        return weights, *_after(weights, inputs)

    run = nn.custom_vjp(compute, forward, backward)
    return run(block, *(x for x, one in zip(leaves, is_array, strict=True) if one))


def _after(first: Any, then: Any) -> Any:
    """The arrays `then` as they are, but of no use before those of `first` are computed.

    One zero times each of these is added, so a number that is not finite makes all so.
    """
    zeros = [
        0 * x.ravel()[0].astype(jnp.float32) for x in jax.tree.leaves(first) if _is_floating(x)
    ]
    zero = sum(zeros, jnp.float32(0))
    return jax.tree.map(lambda x: x + zero.astype(x.dtype) if _is_floating(x) else x, then)


def _is_floating(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)  # keys and their gradients are not
