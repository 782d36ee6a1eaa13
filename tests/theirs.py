"""Names and shapes of published checkpoints in PyTorch's layout, and random tensors for them."""

import numpy as np

from diffv2iqa_jax.types import Weights


def unet(inner, mults, blocks, *, attend=(), channels=6, variant="sr3"):
    """SR3's U-Net; `attend` are the levels with attention. Yields (name, shape)."""
    mlp, told = {
        "sr3": ("noise_level_mlp", "noise_func.noise_func.0"),
        "ddpm": ("time_mlp", "mlp.1"),
    }[variant]

    def layer(name, *shape):
        return [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]

    def block(name, before, after, attention):
        out = layer(f"{name}.res_block.{told}", after, inner)
        for i, width in ((1, before), (2, after)):
            out += layer(f"{name}.res_block.block{i}.block.0", width)
            out += layer(f"{name}.res_block.block{i}.block.3", after, width, 3, 3)
        if before != after:
            out += layer(f"{name}.res_block.res_conv", after, before, 1, 1)
        if attention:
            out += layer(f"{name}.attn.norm", after)
            out += [(f"{name}.attn.qkv.weight", (3 * after, after, 1, 1))]
            out += layer(f"{name}.attn.out", after, after, 1, 1)
        return out

    yield from layer(f"{mlp}.1", 4 * inner, inner) + layer(f"{mlp}.3", inner, 4 * inner)
    yield from layer("downs.0", inner, channels, 3, 3)
    widths, width, n = [inner], inner, 1
    for level, m in enumerate(mults):
        for _ in range(blocks):
            yield from block(f"downs.{n}", width, inner * m, level in attend)
            width, n = inner * m, n + 1
            widths.append(width)
        if level < len(mults) - 1:
            yield from layer(f"downs.{n}.conv", width, width, 3, 3)
            widths, n = [*widths, width], n + 1
    yield from block("mid.0", width, width, True) + block("mid.1", width, width, False)
    n = 0
    for level, m in reversed(list(enumerate(mults))):
        for _ in range(blocks + 1):
            yield from block(f"ups.{n}", width + widths.pop(), inner * m, level in attend)
            width, n = inner * m, n + 1
        if level:
            yield from layer(f"ups.{n}.conv", width, width, 3, 3)
            n += 1
    yield from layer("final_conv.block.0", width) + layer("final_conv.block.3", 3, width, 3, 3)


def vit(width=128, depth=2, patch=4, side=3, mlp=16, classes=5):
    """timm's vision transformer with `side` rows of patches. Yields (name, shape)."""
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, 1 + side**2, width)
    dense = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    dense |= {"mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp)}
    layers = {"patch_embed.proj": (width, 3, patch, patch)}
    for i in range(depth):
        layers |= {f"blocks.{i}.norm{j}": (width,) for j in (1, 2)}
        layers |= {f"blocks.{i}.{name}": shape for name, shape in dense.items()}
    layers |= {"norm": (width,), "head": (classes, width)}
    for name, shape in layers.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]


def random(names, seed: int = 0) -> dict[str, np.ndarray]:
    g = np.random.default_rng(seed)
    return {name: g.standard_normal(shape, np.float32) for name, shape in names}


def to_augreg(tensors: dict, heads: int) -> dict:
    """A timm vision transformer's tensors under the names and in the layout of the JAX code."""
    width = tensors["cls_token"].shape[-1]
    out = {"cls": tensors["cls_token"], "Transformer/posembed_input/pos_embedding": None}
    out["Transformer/posembed_input/pos_embedding"] = tensors["pos_embed"]
    names = {"norm": "Transformer/encoder_norm", "head": "head", "patch_embed.proj": "embedding"}
    for i in range(sum(name.endswith("norm1.weight") for name in tensors)):
        at, block = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        names |= {f"{block}.norm1": f"{at}/LayerNorm_0", f"{block}.norm2": f"{at}/LayerNorm_2"}
        names |= {f"{block}.mlp.fc{j + 1}": f"{at}/MlpBlock_3/Dense_{j}" for j in (0, 1)}
        attention = f"{at}/MultiHeadDotProductAttention_1"
        kernel, bias = (tensors[f"{block}.attn.qkv.{leaf}"] for leaf in ("weight", "bias"))
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * width, (j + 1) * width)
            out[f"{attention}/{part}/kernel"] = kernel[rows].T.reshape(width, heads, -1)
            out[f"{attention}/{part}/bias"] = bias[rows].reshape(heads, -1)
        projection = tensors[f"{block}.attn.proj.weight"].T
        out[f"{attention}/out/kernel"] = projection.reshape(heads, -1, width)
        out[f"{attention}/out/bias"] = tensors[f"{block}.attn.proj.bias"]
    for theirs, ours in names.items():
        weight = tensors[f"{theirs}.weight"]
        leaf = "scale" if weight.ndim == 1 else "kernel"
        out[f"{ours}/{leaf}"] = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        out[f"{ours}/bias"] = tensors[f"{theirs}.bias"]
    return out


def weights(params) -> Weights:
    return Weights(params, {})
