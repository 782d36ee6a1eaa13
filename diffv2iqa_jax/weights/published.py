"""The nets of published checkpoints: reads their settings off the shapes of their weights.

Some settings leave no trace in the weights (attention heads, groups of a norm, MANIQA's residual
scale). They come from the published configurations or from the caller; where two published nets
differ in one, it is not guessed.
"""

import inspect
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.models.efficientnet import STAGES
from diffv2iqa_jax.models.quality import QualityModel
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.models.vcr import Restoration, VCRNet
from diffv2iqa_jax.models.vit import ViT
from diffv2iqa_jax.types import Views, Weights
from diffv2iqa_jax.weights import files, resize

# What the input of a net must be: (pixels in [0, 1] - mean) / std, per channel.
NORMALISE = {
    name: {"mean": list(mean), "std": list(std)} for name, (mean, std) in pixels.MEAN_STD.items()
}

# (inner, multipliers, res_blocks) of the published U-Nets -> settings that weights do not show.
UNETS = {
    (64, (1, 2, 4, 8, 8), 2): {"groups": 32, "image_size": 128},
    (64, (1, 2, 4, 8, 16), 1): {"groups": 16, "image_size": 512},
    (64, (1, 1, 2, 2, 4, 4), 2): {"groups": 32, "image_size": 128},
}


class Shapes(dict):
    """Shapes by our names without the collection; a missing name raises ValueError."""

    def __missing__(self, name: str):
        raise ValueError(f"{name} is missing, so there is no telling what net it is")

    def count(self, pattern: str) -> int:
        """One more than the largest number that the pattern's group matches; 0 if none does."""
        matches = (re.match(pattern, name) for name in self)
        return max((int(match[1]) + 1 for match in matches if match), default=0)

    def under(self, prefix: str) -> "Shapes":
        """The shapes whose names start with the prefix, without it."""
        return Shapes({k[len(prefix) :]: v for k, v in self.items() if k.startswith(prefix)})


def unet(shapes: Shapes, *, groups: int | None = None, image_size: int | None = None) -> dict:
    """Settings of models.unet.UNet.

    Raises:
      ValueError: no such U-Net, or `groups` and `image_size` are needed and not given.
    """
    inner = shapes["downs_0/conv/kernel"][-1]
    widths, counts, attends = _unet_levels(shapes)
    if not counts or len(set(counts)) > 1 or any(width % inner for width in widths):
        raise ValueError(f"levels of {counts} blocks and {widths} channels: not such a U-Net")
    multipliers, res_blocks = tuple(width // inner for width in widths), counts[0]
    published = UNETS.get((inner, multipliers, res_blocks), {})
    groups = groups or published.get("groups")
    image_size = image_size or published.get("image_size")
    if not groups or not image_size:
        raise ValueError(
            f"a U-Net of inner {inner}, multipliers {multipliers}, res_blocks {res_blocks} is not"
            " one of the published: give groups and image_size, which its weights do not tell"
        )
    return {
        "inner": inner,
        "multipliers": multipliers,
        "res_blocks": res_blocks,
        "attn_res": tuple(image_size // 2**i for i, attend in enumerate(attends) if attend),
        "image_size": image_size,
        "groups": groups,
    }


def _unet_levels(shapes: Shapes) -> tuple[list[int], list[int], list[bool]]:
    """Of each level of a U-Net: its width, its number of blocks, and whether it attends."""
    widths, counts, attends = [], [], []
    starts_level = True
    for i in range(1, shapes.count(r"downs_(\d+)/")):
        if f"downs_{i}/conv/kernel" in shapes:  # the convolution that halves the size
            starts_level = True
            continue
        if starts_level:
            widths.append(shapes[f"downs_{i}/block2/conv/conv/kernel"][-1])
            counts.append(0)
            attends.append(f"downs_{i}/attn/qkv/kernel" in shapes)
        counts[-1] += 1
        starts_level = False
    return widths, counts, attends


def ddpm(shapes: Shapes, *, groups: int | None = None, image_size: int | None = None) -> dict:
    """Settings of models.unet.UNet as DDPM has it."""
    return {**unet(shapes, groups=groups, image_size=image_size), "embedding": "step"}


def vit(shapes: Shapes, *, heads: int | None = None) -> dict:
    """Settings of models.vit.ViT with all its blocks; `heads` None makes them 64 wide."""
    patch, _, _, width = shapes["patch_embed/kernel"]
    side = round((shapes["pos_embed"][1] - 1) ** 0.5)
    depth = shapes.count(r"blocks_(\d+)/")
    if not heads and width % 64:
        raise ValueError(f"width {width} does not divide into heads of 64: give heads")
    return {
        "image_size": side * patch,
        "patch": patch,
        "width": width,
        "depth": depth,
        "heads": heads or width // 64,
        "mlp": shapes["blocks_0/fc1/kernel"][-1],
    }


def whole_vit(shapes: Shapes, *, heads: int | None = None) -> dict:
    """Settings of models.vit.ViT that taps every block and ends in its head, if it has one."""
    settings = vit(shapes, heads=heads)
    classes = shapes["head/kernel"][-1] if "head/kernel" in shapes else 0
    all_blocks = tuple(range(settings["depth"]))
    return {**settings, "taps": all_blocks, "final": True, "classes": classes}


def resnet(shapes: Shapes) -> dict:
    """Settings of models.resnet.ResNet."""
    stages = shapes.count(r"layer(\d+)_")
    blocks = tuple(shapes.count(rf"layer{i}_(\d+)/") for i in range(1, stages))
    classes = shapes["fc/kernel"][-1] if "fc/kernel" in shapes else 0
    width = shapes["conv1/kernel"][-1]
    return {"blocks": blocks, "width": width, "classes": classes, "norm": "frozen"}


def swin(shapes: Shapes, scale: float) -> dict:
    """Settings of models.swin.ScaleSwin."""
    layers = range(shapes.count(r"layers_(\d+)_"))
    # Shapes of the bias tables: ((2 window - 1)^2, heads).
    tables = [shapes[f"layers_{i}_blocks_0/attn/relative_position_bias_table"] for i in layers]
    return {
        "depths": tuple(shapes.count(rf"layers_{i}_blocks_(\d+)/") for i in layers),
        "heads": tuple(heads for _, heads in tables),
        "window": (round(tables[0][0] ** 0.5) + 1) // 2,
        "mlp": shapes["layers_0_blocks_0/fc1/kernel"][-1],
        "scale": scale,
    }


def maniqa(shapes: Shapes, *, scale: float = 0.8, heads: int | None = None) -> dict:
    """Settings of models.quality.QualityModel with MANIQA as its one branch."""
    guidance = shapes.under("guidance/")
    convs = range(guidance.count(r"conv1_(\d+)/"))
    settings = {
        "select": ((6, 7, 8, 9),),
        "noise_width": 0,
        "reduce": tuple(guidance[f"conv1_{i}/kernel"][-1] for i in convs),
        "width": guidance["conv2/kernel"][-1],
        "tabs": guidance.count(r"tablock2_(\d+)/"),
        "swin": swin(guidance.under("swin1/"), scale),
        "vit": vit(guidance.under("vit/"), heads=heads),
    }
    return {"branches": {"guidance": settings}}


def release(
    shapes: Shapes, *, scale: float = 0.8, heads: int | None = None, w2: float = 5.0
) -> dict:
    """Settings of models.quality.QualityModel: preset `release`, which scores S1 + w2 S2."""
    guidance = maniqa(shapes, scale=scale, heads=heads)["branches"]["guidance"]
    guidance["select"] = ((6, 7, 8, 9), (6, 7), (8,), (9,))
    guidance["noise_width"] = shapes["guidance/noise_embedding"][-1]
    difference = {
        "form": "logits",
        "absolute": True,
        "positions": shapes["difference/residual/kernel"][-1],
        "normalise": "half",
        "resnet": resnet(shapes.under("difference/resnet/")),
    }
    branches = {"guidance": guidance, "difference": difference}
    return {"branches": branches, "w2": w2, "share_tabs": True}


def restoration(shapes: Shapes) -> dict:
    """Settings of models.vcr.Restoration."""
    return {"width": shapes["conv/kernel"][-1]}


def vcrnet(shapes: Shapes) -> dict:
    """Settings of models.vcr.VCRNet."""
    return {
        "width": shapes["restoration/conv/kernel"][-1],
        "scale_width": shapes["inception1_1/point/kernel"][-1],
        "hidden": shapes["fc1/kernel"][-1],
        "stages": STAGES,
    }


def _image(settings: dict, shapes: Shapes) -> tuple:
    return (jnp.zeros((1, 64, 64, 3)),)


def _noisy(settings: dict, shapes: Shapes) -> tuple:
    """An unconditional U-Net has three input channels, and no condition."""
    image = jnp.zeros((1, 64, 64, 3))
    return (image if shapes["downs_0/conv/kernel"][2] == 6 else None, image, jnp.ones(1))


def _vit_image(settings: dict, shapes: Shapes) -> tuple:
    size = settings["image_size"]
    return (jnp.zeros((1, size, size, 3)),)


def _views(settings: dict, shapes: Shapes) -> tuple:
    size = settings["branches"]["guidance"]["vit"]["image_size"]
    return (Views(jnp.zeros((1, 4, size, size, 3))),)


class Kind(NamedTuple):
    """A kind of checkpoint.

    Attributes:
      module: the net.
      settings: (shapes, **hints) -> the net's fields; `hints` are settings that no shape shows.
      example: (settings, shapes) -> arguments to call the net with.
      normalise: how its input was normalised, one of NORMALISE.
      vit: prefix, in the weights' names, of a vision transformer to resize; None: there is none.
    """

    module: Callable[..., nn.Module]
    settings: Callable[..., dict]
    example: Callable[[dict, Shapes], tuple]
    normalise: str
    vit: str | None = None


KINDS = {
    "sr3": Kind(UNet, unet, _noisy, "half"),
    "ddpm": Kind(UNet, ddpm, _noisy, "half"),
    "vit_timm": Kind(ViT, whole_vit, _vit_image, "half", vit=""),
    "vit_augreg": Kind(ViT, whole_vit, _vit_image, "half", vit=""),
    "resnet50": Kind(ResNet, resnet, _image, "imagenet"),
    "maniqa": Kind(QualityModel, maniqa, _views, "half", vit="guidance/vit/"),
    "diffv2iqa_release": Kind(QualityModel, release, _views, "half", vit="guidance/vit/"),
    "vcrnet_restore": Kind(Restoration, restoration, _image, "imagenet"),
    "vcrnet": Kind(VCRNet, vcrnet, _image, "imagenet"),
}


def convert(
    kind: str,
    tensors: dict[str, np.ndarray],
    *,
    image_size: int | None = None,
    patch: int | None = None,
    patch_filter: str = "bilinear",
    normalise: str | None = None,
    **hints: float,
) -> tuple[Weights, dict, list]:
    """A published checkpoint's tensors -> (weights, card, report of each tensor).

    Args:
      kind: one of KINDS.
      image_size, patch: resize a vision transformer to these; for a U-Net, `image_size` is the
        one it was built for.
      patch_filter: of the patches' resizing, one of `resize.FILTERS`.
      normalise: how its input was normalised, one of NORMALISE; None: as published.
      hints: settings that no weight's shape shows, such as groups, heads, scale.

    Raises:
      ValueError: unknown kind, tensors that are not such a net's, settings it does not have.
    """
    renamed = files.rename(kind, tensors)
    entry = KINDS[kind]
    if normalise is not None and normalise not in NORMALISE:
        raise ValueError(f"normalise {normalise!r}: known are {list(NORMALISE)}")
    sizes = {"image_size": image_size, "patch": patch}
    if entry.vit is None:
        hints |= {name: value for name, value in sizes.items() if value is not None}
    takes = list(inspect.signature(entry.settings).parameters)[1:]
    if strange := sorted(set(hints) - set(takes)):
        raise ValueError(f"{strange}: not settings of kind {kind!r}, which takes {takes or 'none'}")
    try:
        if entry.vit is not None:
            _resize(renamed.tensors, f"params/{entry.vit}", **sizes, patch_filter=patch_filter)
        shapes = Shapes({k.partition("/")[2]: x.shape for k, x in renamed.tensors.items()})
        settings = entry.settings(shapes, **hints)
        like = _like(kind, settings, shapes)
    except (ValueError, IndexError) as error:
        names = f"{len(renamed.unknown)} unknown: {', '.join(renamed.unknown[:10]) or 'none'}"
        raise ValueError(f"not a checkpoint of kind {kind!r}: {error}; {names}") from None
    weights = files.fit(kind, renamed, like)
    leaves = files.flatten(weights)
    report = [
        (name, shape, ours if ours in leaves else "dropped") for name, shape, ours in renamed.report
    ]
    mean_std = NORMALISE[normalise or entry.normalise]
    return weights, {"kind": kind, "settings": settings, "normalise": mean_std}, report


def _resize(
    tensors: dict, prefix: str, image_size: int | None, patch: int | None, patch_filter: str
) -> None:
    """Resizes, in place, the vision transformer whose tensors' names start with the prefix."""
    if image_size is None and patch is None:
        return
    kernel, embedding = f"{prefix}patch_embed/kernel", f"{prefix}pos_embed"
    for name in (kernel, embedding):
        if name not in tensors:
            raise ValueError(f"{name} is missing")
    old_patch = tensors[kernel].shape[0]
    old_side = round((tensors[embedding].shape[1] - 1) ** 0.5)
    patch, image_size = patch or old_patch, image_size or old_side * old_patch
    if image_size % patch:
        raise ValueError(f"patch {patch}: does not divide image_size {image_size}")
    if patch != old_patch:
        tensors[kernel] = resize.patches(tensors[kernel], patch, patch_filter)
    if image_size // patch != old_side:
        tensors[embedding] = resize.positions(tensors[embedding], image_size // patch)


def module(card: dict) -> nn.Module:
    """The net that a card describes, ready for `apply`."""
    return KINDS[card["kind"]].module(**card["settings"])


def like(card: dict) -> Weights:
    """Shapes of the weights that a card is for; its net must take nothing but images."""
    return _like(card["kind"], card["settings"], Shapes())


def _like(kind: str, settings: dict, shapes: Shapes) -> Weights:
    """Shapes of this net's weights; makes no array."""
    entry = KINDS[kind]
    net = entry.module(**settings)
    variables = jax.eval_shape(net.init, rng.stream(0, "shapes"), *entry.example(settings, shapes))
    return Weights(variables["params"], variables.get("batch_stats", {}))
