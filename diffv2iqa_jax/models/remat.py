"""Computing a net's blocks again in the backward pass, instead of keeping what they computed."""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

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

    return nn.remat(compute)(block, *(x for x, one in zip(leaves, is_array, strict=True) if one))
