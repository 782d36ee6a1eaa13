"""Stage 2 with backbones that two CPU cores can train: DeiT-Tiny/16, and ResNet50 up to layer2.

  run() { python -m diffv2iqa_jax.main --config configs/small.py:$1 --workdir runs/$1 "${@:2}"; }
  run synthetic --config.data.folder=PHOTOS --config.pretrained.vit=deit_tiny.safetensors
  run maniqa --config.data.name=biq2021 --config.pretrained.model=runs/synthetic
  run difference --config.data.name=biq2021 --config.pretrained.resnet=resnet50_layer2.safetensors
  run paper --config.data.name=biq2021 --config.pretrained.guidance=runs/maniqa \\
      --config.pretrained.difference=runs/difference --config.restorer.run=runs/restorer

`synthetic` is `maniqa` on pristine photos that each step distorts, with HaarPSI for a score.
`maniqa`, the guidance branch, trains the last blocks of its ViT; `difference` is the other branch:
both look at the photo alone. `paper` is DiffV2IQA and starts from these two. So does `image_alone`,
with both branches and no restoration: what `paper` has to beat. Photos are scaled to 256 x 256
before anything else, so that restoring them, too, is affordable.

`starter` is `paper` with the restored view y_0 only, after `starter_guidance` and
`starter_difference`: the packaged weights, see launch/starter.sh. `maniqa_crops` is `maniqa` on
every pixel, in crops. These four need a GPU, or an hour or two
each on two cores.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import diffv2iqa, maniqa, pristine
from diffv2iqa_jax.distortions.names import TASTE, TYPES

GUIDANCE = {
    "normalise": "imagenet",
    "reduce": (192,),
    "width": 96,
    "tabs": 1,
    "tab": dict(scramble=True, block=None, dropout=0.1),
    "swin.window": 7,
    "swin.mlp": 192,
    "vit": dict(image_size=224, patch=16, width=192, depth=12, heads=3, mlp=768),
}
DIFFERENCE = {
    "normalise": "imagenet",
    "layer_norm": True,
    "resnet.blocks": (3, 4),
    "width": 256,
    "tab": dict(scramble=True, block=None, dropout=0.1),
}
SHARED = {
    "data.parts": "official",
    "data.fractions": (0.8, 0.0, 0.2),
    "data.pp_train": "resize(256)|crop({size})|flip(0.5)",
    "data.pp_test": "resize(256)|center({size})",
    "data.batch": 16,
    "model.dtype": "float32",
    "optim.lr": 1e-4,
    "optim.warmup": 30,
    "optim.weight_decay": 0.0,
    "optim.clip": 1.0,
    "optim.steps": 300,
    "optim.average": 0.98,
    "every": dict(log=50, evaluate=1_000, save=50),
    "evaluate.baselines": False,
    **{f"model.branches.guidance.{key}": value for key, value in GUIDANCE.items()},
}
ALONE = {
    "restorer": dict(kind="none"),
    "model.branches.difference.compare": (),
    "optim.frozen": "/vit/|/resnet/",
}
SEES = {f"model.branches.difference.{key}": value for key, value in DIFFERENCE.items()}
BOTH = {
    **SEES,
    "data.batch": 8,
    "branch_loss": 1.0,
    "optim.lr": 3e-5,  # gently: the branches have learned already
    "optim.steps": 100,
}
PAPER = {
    **BOTH,
    "model.branches.guidance.noise_width": 48,
    "optim.rates": (("/rtab/|noise_embedding", 10.0),),  # what starts from nothing
}
LAST_BLOCKS = {"optim.frozen": "/vit/(patch|pos|cls|blocks_[0-5]/)"}
# A little finer than 256 x 256, as scoring two photos a second on two cores allows.
FINER = {
    "data.size": 272,
    "data.pp_train": "resize(288)|crop({size})|flip(0.5)",
    "data.pp_test": "resize(288)|center({size})",
    "data.batch": 64,
    "optim.average": 0.99,
}
FINER_VIT = {
    "model.branches.guidance.swin.window": 17,
    "model.branches.guidance.vit.image_size": 272,
}
# So that scores fall as distortions grow. Not for the guidance branch alone, which it costs .03 of
# SRCC; both branches together learn it as well.
DISTORTED = {
    "types": tuple(name for name in TYPES if name not in TASTE),
    "clean": 0.75,
    "chains": 0.0,
    "levels": (1, 5),
    "group": 4,
    "subsample": True,
}
ROWS = {
    "synthetic": {
        **LAST_BLOCKS,
        "data.fractions": (1.0, 0.0, 0.0),
        "data.distort.group": 1,
        "data.distort.pairs": 12,
        "optim.steps": 200,
    },
    "maniqa": LAST_BLOCKS,
    # Every pixel, in crops, and all of the ViT: for a GPU.
    "maniqa_crops": {
        "data.pp_train": "crop({size})|flip(0.5)",
        "data.pp_test": "grid({size})",
        "data.batch": 64,
        "optim.warmup": 25,
        "optim.steps": 250,
        "optim.average": 0.99,
        "every": dict(log=25, evaluate=1_000, save=50),
    },
    "difference": {
        **SEES,
        **ALONE,
        "model.branches.guidance": None,
        "optim.lr": 1e-3,
    },
    "paper": PAPER,
    "starter_guidance": {**FINER, **FINER_VIT},
    "starter_difference": {
        **SEES,
        **ALONE,
        **FINER,
        "model.branches.guidance": None,
        "optim.lr": 1e-3,
        "optim.warmup": 50,
        "optim.steps": 500,
    },
    # One restored view, in one step: what fits into half a second a photo on two cores.
    "starter": {
        **PAPER,
        **FINER,
        **FINER_VIT,
        "data.batch": 32,
        "optim.average": 0.98,
        "optim.warmup": 15,
        "optim.steps": 150,
        "restorer.cached": False,
        "restorer.changes": {"sampling": {"steps": 1, "keep": ()}},
        diffv2iqa.SELECT: diffv2iqa.SUBSETS["y0"][0],
        diffv2iqa.COMPARE: diffv2iqa.SUBSETS["y0"][1],
    },
    "image_alone": {
        **BOTH,
        **ALONE,
        "model.branches.guidance.select": ((6, 7, 8, 9),),
        "model.branches.guidance.noise_width": 0,
    },
}


def distorted() -> ConfigDict:
    """DiffV2IQA on photos with human scores, some of which each step distorts."""
    c = diffv2iqa.get_config()
    c.data.distort = dict(DISTORTED)
    return c


# Of the other rows it is DiffV2IQA.
BASES = {
    "synthetic": lambda: pristine.photos(maniqa.get_config()),
    "maniqa": maniqa.get_config,
    "maniqa_crops": maniqa.get_config,
    "starter_guidance": maniqa.get_config,
    "starter_difference": distorted,
    "starter": distorted,
}


def get_config(row: str = "maniqa") -> ConfigDict:
    changes = pick(ROWS, row)
    c = BASES.get(row, diffv2iqa.get_config)()
    return override(override(c, SHARED), changes)
