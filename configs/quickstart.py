"""Both stages in miniature: the same modules at small widths, in minutes on two CPU cores.

  python -m diffv2iqa_jax.main --config quickstart --workdir runs/quickstart

Stage 1 learns to restore, its views are computed once, stage 2 learns to score. What differs
from the full-size configurations is width, steps, and that the net predicts what to add to
the distorted image: predicting the noise (SR3, and `configs/restore.py`) needs about a
thousand times as many steps before y_0 is better than what it started from. Widths and steps are
what fits into some five minutes on two cores; where nothing is said beside a number, it was set
once and not tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override
from diffv2iqa_jax.configs import diffv2iqa, restore


def small(c: ConfigDict) -> ConfigDict:
    """What both stages share."""
    return override(
        c,
        {
            "data.name": "builtin/small",
            "data.fractions": (0.7, 0.1, 0.2),  # not tuned
            "data.size": 32,  # half of an image's side; not tuned
            "data.pp_train": "crop({size})|flip(0.5)|vertical_flip(0.5)",
            "data.batch": 16,  # not tuned
            "optim.lr": 3e-3,  # not tuned
            "optim.schedule": "cosine",
            "optim.warmup": 50,  # not tuned
            "optim.weight_decay": 0.0,  # off
            "optim.clip": 1.0,  # not tuned
            "optim.average": 0.99,  # over some 100 steps; not tuned
            "keep": 2,  # checkpoints
        },
    )


def stage1() -> ConfigDict:
    return override(
        small(restore.get_config()),
        {
            "data.pp_test": "",  # whole images of 64 x 64
            "restorer.net": dict(
                inner=16,  # widths of 16 and 32, for speed
                multipliers=(1, 2),
                res_blocks=1,
                attn_res=(),
                image_size=64,
                groups=4,
                dropout=0.0,
                embedding="level",
                zero_final=True,
                patch=2,  # pixels folded 2 x 2: the time it saves went into steps of stage 2
            ),
            "restorer.prediction": "x0",
            "restorer.residual": True,
            "restorer.sampling.steps": 3,  # the fewest that leave two noisy states on the way
            "restorer.sampling.sampler": "ddim",
            "restorer.sampling.keep": (1, 2),  # both of them
            "restorer.dtype": "float32",
            "optim.steps": 1000,  # y_0 then gains 1.1 to 1.4 dB, see README
            "every": dict(log=50, evaluate=500, save=250),
            "evaluate.val_images": 48,  # three batches, for speed
        },
    )


def stage2() -> ConfigDict:
    tab = dict(scramble=False, block=None, dropout=0.0)
    guidance = dict(  # small for speed
        select=((0, 1), (1,), (1,), (1,)),  # both blocks of the image, the last of the other views
        normalise="half",
        noise_width=8,
        reduce=(24,),
        width=24,
        tabs=1,
        positive=False,
        dropout=0.0,
        tab=tab,
        swin=dict(
            depths=(1,),
            heads=(4,),
            window=4,
            mlp=32,
            scale=0.8,
            drop_path=0.0,
            dropout=0.0,
        ),
        vit=dict(image_size=32, patch=8, width=24, depth=2, heads=4, mlp=48),
    )
    return override(
        small(diffv2iqa.get_config()),
        {
            "restorer.run": "restore",
            "model.dtype": "float32",
            "model.branches.guidance": guidance,
            "model.branches.difference.resnet": dict(
                blocks=(1, 1), width=16, classes=0, norm="batch"
            ),
            "model.branches.difference.tab": tab,
            "model.branches.difference.width": 32,  # small for speed
            "model.branches.difference.positive": False,
            "model.branches.difference.dropout": 0.0,
            # 3,000, a fifth more for a margin in SRCC, then the time that folding had saved.
            "optim.steps": 4300,
            "optim.frozen": "^restorer",
            "every": dict(log=100, evaluate=2150, save=600),  # evaluated half-way and at the end
        },
    )


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.stages = dict(restore=stage1(), quality=stage2())
    return c
