"""Names of layers in published checkpoints and our names for them: tables, and nothing else.

A rule is (published name, our name, layer). The published name is a regular expression in which
a dot is a dot. With a layer of LEAVES it names a layer, whose leaves LEAVES lists; with a layer
of LAYOUTS it names one tensor.
"""

import math
from collections.abc import Callable

import numpy as np

Rule = tuple[str, str, str]


Change = Callable[[np.ndarray], np.ndarray]


def _if(ndim: int, change: Change) -> Change:
    """Changes arrays of that many dimensions, and leaves others for the check of shapes."""
    return lambda x: change(x) if x.ndim == ndim else x


# A published tensor -> ours, by how it lies in memory. PyTorch has the output channels first.
LAYOUTS = {
    "keep": lambda x: x,
    "conv": _if(4, lambda x: x.transpose(2, 3, 1, 0)),
    # PyTorch's transposed convolution is a convolution with the mirrored kernel.
    "deconv": _if(4, lambda x: x[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)),
    # A 1 x 1 convolution is a dense layer.
    "dense": lambda x: x.reshape(x.shape[:2]).T if math.prod(x.shape[2:]) == 1 else x,
    "scalar": lambda x: x.reshape(()) if x.size == 1 else x,
    "row": lambda x: x[0] if x.ndim and len(x) == 1 else x,
    "heads_out": _if(3, lambda x: x.reshape(-1, x.shape[-1])),
}

_BIAS = {"bias": ("params", "bias", "keep")}
# For each layer: published leaf -> (our collection, our leaf, layout), or None to drop it.
LEAVES = {
    "Conv": {"weight": ("params", "kernel", "conv"), **_BIAS},
    "Deconv": {"weight": ("params", "kernel", "deconv"), **_BIAS},
    "Dense": {"weight": ("params", "kernel", "dense"), **_BIAS},
    "Norm": {"weight": ("params", "scale", "keep"), **_BIAS},
    "Batch": {
        "weight": ("params", "batch/scale", "keep"),
        "bias": ("params", "batch/bias", "keep"),
        "running_mean": ("stats", "batch/mean", "keep"),
        "running_var": ("stats", "batch/var", "keep"),
        "num_batches_tracked": None,
    },
    "PReLU": {"weight": ("params", "slope", "scalar")},
}


def _under(theirs: str, ours: str, rules: list[Rule]) -> list[Rule]:
    return [(theirs + a, ours + b, layer) for a, b, layer in rules]


def _unet(mlp: str, level: str) -> list[Rule]:
    block = r"(downs|mid|ups).(\d+)"
    return [
        (rf"{mlp}.([13])", r"noise_level_mlp_\1", "Dense"),
        (r"(downs|ups).(\d+)(?:.conv)?", r"\1_\2/conv", "Conv"),
        (rf"{block}.res_block.{level}", r"\1_\2/noise_func", "Dense"),
        (rf"{block}.res_block.(block[12]).block.0", r"\1_\2/\3/norm", "Norm"),
        (rf"{block}.res_block.(block[12]).block.3", r"\1_\2/\3/conv/conv", "Conv"),
        (rf"{block}.res_block.res_conv", r"\1_\2/res_conv", "Conv"),
        (rf"{block}.attn.norm", r"\1_\2/attn/norm", "Norm"),
        (rf"{block}.attn.(qkv|out)", r"\1_\2/attn/\3", "Conv"),
        ("final_conv.block.0", "final_conv/norm", "Norm"),
        ("final_conv.block.3", "final_conv/conv/conv", "Conv"),
    ]


_VIT = [
    ("(cls_token|pos_embed)", r"\1", "keep"),
    ("patch_embed.proj", "patch_embed", "Conv"),
    (r"blocks.(\d+).(norm[12])", r"blocks_\1/\2", "Norm"),
    (r"blocks.(\d+).attn.(qkv|proj)", r"blocks_\1/\2", "Dense"),
    (r"blocks.(\d+).mlp.(fc[12])", r"blocks_\1/\2", "Dense"),
    ("norm", "norm", "Norm"),
    ("head", "head", "Dense"),
]

_ENCODER = r"Transformer/encoderblock_(\d+)/"
# The original JAX checkpoints, after `side_by_side` has joined query, key and value.
_AUGREG = [
    ("cls", "cls_token", "keep"),
    ("Transformer/posembed_input/pos_embedding", "pos_embed", "keep"),
    ("embedding/(kernel|bias)", r"patch_embed/\1", "keep"),
    (_ENCODER + "LayerNorm_0/(scale|bias)", r"blocks_\1/norm1/\2", "keep"),
    (_ENCODER + "LayerNorm_2/(scale|bias)", r"blocks_\1/norm2/\2", "keep"),
    (_ENCODER + "MultiHeadDotProductAttention_1/qkv/(kernel|bias)", r"blocks_\1/qkv/\2", "keep"),
    (
        _ENCODER + "MultiHeadDotProductAttention_1/out/(kernel|bias)",
        r"blocks_\1/proj/\2",
        "heads_out",
    ),
    (_ENCODER + "MlpBlock_3/Dense_0/(kernel|bias)", r"blocks_\1/fc1/\2", "keep"),
    (_ENCODER + "MlpBlock_3/Dense_1/(kernel|bias)", r"blocks_\1/fc2/\2", "keep"),
    ("Transformer/encoder_norm/(scale|bias)", r"norm/\1", "keep"),
    ("head/(kernel|bias)", r"head/\1", "keep"),
]

_RESNET = [
    ("conv1", "conv1", "Conv"),
    ("bn1", "bn1", "Batch"),
    (r"(layer\d).(\d+).(conv[123])", r"\1_\2/\3", "Conv"),
    (r"(layer\d).(\d+).(bn[123])", r"\1_\2/\3", "Batch"),
    (r"(layer\d).(\d+).downsample.0", r"\1_\2/downsample_0", "Conv"),
    (r"(layer\d).(\d+).downsample.1", r"\1_\2/downsample_1", "Batch"),
    ("fc", "fc", "Dense"),
]

_SWIN_BLOCK = r"layers.(\d+).blocks.(\d+)"
_SWIN = [
    (r"layers.(\d+).conv", r"layers_\1_conv", "Conv"),
    (_SWIN_BLOCK + ".(norm[12])", r"layers_\1_blocks_\2/\3", "Norm"),
    (_SWIN_BLOCK + ".attn.(qkv|proj)", r"layers_\1_blocks_\2/attn/\3", "Dense"),
    (_SWIN_BLOCK + ".mlp.(fc[12])", r"layers_\1_blocks_\2/\3", "Dense"),
    (
        _SWIN_BLOCK + ".attn.relative_position_bias_table",
        r"layers_\1_blocks_\2/attn/relative_position_bias_table",
        "keep",
    ),
]
_HEADS = [
    ("fc_(score|weight).0", r"head/\1_0", "Dense"),
    ("fc_(score|weight).3", r"head/\1_1", "Dense"),
]
# What MANIQA's net and DiffV2IQA's guidance branch share, except the first TABs.
_GUIDANCE = [
    *_under("vit.", "guidance/vit/", _VIT),
    *_under("swintransformer1.", "guidance/swin1/", _SWIN),
    *_under("swintransformer2.", "guidance/swin2/", _SWIN),
    (r"(tablock2).(\d+).(c_[qkv])", r"guidance/\1_\2/\3", "Dense"),
    ("conv1", "guidance/conv1_0", "Dense"),
    ("conv2", "guidance/conv2", "Dense"),
    *_under("", "guidance/", _HEADS),
]

_VCR = [
    ("relu", "prelu", "PReLU"),
    ("conv", "conv", "Conv"),
    (r"conv(\d+)", r"unit\1/square", "Conv"),
    (r"conv(\d+)_2", r"unit\1/column", "Conv"),
    (r"conv(\d+)_3", r"unit\1/row", "Conv"),
    (r"bn(\d+)", r"unit\1/bn", "Batch"),
    (r"resconv(\d+)", r"resconv\1", "Conv"),
    (r"deconv(\d+)", r"deconv\1", "Deconv"),
    (r"deconv_bn(\d+)", r"deconv_bn\1", "Batch"),
    (r"GP_conv(\d+)", r"image\1", "Conv"),
]
_EFFICIENT = [
    ("_conv_stem", "stem", "Conv"),
    ("_bn0", "stem_bn", "Batch"),
    (r"_blocks.(\d+)._(expand|depthwise|project)_conv", r"blocks_\1/\2", "Conv"),
    (r"_blocks.(\d+)._(bn[012])", r"blocks_\1/\2", "Batch"),
    (r"_blocks.(\d+)._se_(reduce|expand)", r"blocks_\1/squeeze_\2", "Dense"),
    ("_conv_head", "head", "Conv"),
    ("_bn1", "head_bn", "Batch"),
]
_SCALES = r"(inception\d_\d+)"

RULES: dict[str, list[Rule]] = {
    "sr3": _unet("noise_level_mlp", "noise_func.noise_func.0"),
    "ddpm": _unet("time_mlp", "mlp.1"),
    "vit_timm": _VIT,
    "vit_augreg": _AUGREG,
    "resnet50": _RESNET,
    "maniqa": [*_GUIDANCE, (r"(tablock1).(\d+).(c_[qkv])", r"guidance/\1_\2/\3", "Dense")],
    "diffv2iqa_release": [
        *_GUIDANCE,
        (r"(tablock1).(\d+).(c_[qkv])", r"\1_\2/\3", "Dense"),
        ("conv3", "guidance/conv1_1", "Dense"),
        ("noise_levels", "guidance/noise_embedding", "row"),
        *_under("res.", "difference/resnet/", _RESNET),
        ("qa.(c_[qkv])", r"difference/\1", "Dense"),
        ("qa.x_linear", "difference/residual", "Dense"),
        ("conv_s1", "difference/conv", "Dense"),
        ("fc_(score|weight)1.0", r"difference/head/\1_0", "Dense"),
        ("fc_(score|weight)1.3", r"difference/head/\1_1", "Dense"),
    ],
    "vcrnet_restore": _VCR,
    "vcrnet": [
        *_under("VCR.", "restoration/", _VCR),
        *_under("efficient.", "efficient/", _EFFICIENT),
        (_SCALES + ".conv1_2", r"\1/point", "Conv"),
        (_SCALES + ".conv3_([123])", r"\1/square\2", "Conv"),
        (_SCALES + ".bn", r"\1/bn", "Batch"),
        (_SCALES + ".prelu", r"\1/prelu", "PReLU"),
        ("prelu", "prelu", "PReLU"),
        (r"(fc\d)", r"\1", "Dense"),
    ],
}

# Prefixes that all names may have, removed in this order.
PREFIXES = ("module.", "denoise_fn.")

_BUFFERS = (
    "betas|alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod|sqrt_one_minus_alphas_cumprod"
    "|log_one_minus_alphas_cumprod|sqrt_recip_alphas_cumprod|sqrt_recipm1_alphas_cumprod"
    "|posterior_variance|posterior_log_variance_clipped|posterior_mean_coef[12]"
)
_SWIN_UNUSED = [
    "swintransformer[12].downsample.(weight|bias)",  # built and saved, never called
    r"swintransformer[12].layers.\d+.blocks.\d+.attn_mask",
    r"swintransformer[12].layers.\d+.blocks.\d+.attn.relative_position_index",
]
# Published tensors that our forward pass does not need: tables that follow from the settings,
# and layers that the published code never calls.
DROPPED: dict[str, list[str]] = {
    "sr3": [_BUFFERS],
    "ddpm": [_BUFFERS, "time_mlp.0.inv_freq"],
    "maniqa": _SWIN_UNUSED,
    "diffv2iqa_release": [
        *_SWIN_UNUSED,
        "noise_embedding.weight",
        "bn1.[^/]+",
        "rq_score.[^/]+",
    ],
    "vcrnet": ["efficient._fc.(weight|bias)"],
}

# Our names (plain regular expressions) of tensors that a net may lack: a ViT ends at its last
# tap, so its later blocks are left out.
SPARE: dict[str, str] = {
    "maniqa": r"guidance/vit/(blocks_\d+|norm|head)/.*",
    "diffv2iqa_release": r"guidance/vit/(blocks_\d+|norm|head)/.*",
}


def side_by_side(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joins query, key and value of all heads into one projection, in ViT checkpoints of JAX."""
    joined = dict(tensors)
    for name in tensors:
        if not name.endswith(("/query/kernel", "/query/bias")):
            continue
        leaf = name.rpartition("/")[2]
        stem = name.removesuffix(f"/query/{leaf}")
        names = [f"{stem}/{which}/{leaf}" for which in ("query", "key", "value")]
        qkv = [joined[n].reshape(*joined[n].shape[:-2], -1) for n in names if n in joined]
        # Anything else is left as it is: the check of shapes then names it.
        if len(qkv) == 3 and len({x.shape[:-1] for x in qkv}) == 1:
            for n in names:
                del joined[n]
            joined[f"{stem}/qkv/{leaf}"] = np.concatenate(qkv, axis=-1)
    return joined


PREPARE = {"vit_augreg": side_by_side}
