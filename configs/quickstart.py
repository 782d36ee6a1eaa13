"""Both stages in miniature: the same modules at small widths, in minutes on two CPU cores.

  python -m diffv2iqa_jax.main --config configs/quickstart.py --workdir runs/quickstart

Stage 1 learns to restore, its views are computed once, stage 2 learns to score. What differs
from the full-size configurations is width, steps, and that the net predicts what to add to
the distorted image: predicting the noise (SR3, and `configs/restore.py`) needs about a
thousand times as many steps before y_0 is better than what it started from.
"""

from ml_collections import ConfigDict

from configs import diffv2iqa, restore
from diffv2iqa_jax.config import override


def small(c: ConfigDict) -> ConfigDict:
    """What both stages share."""
    return override(
        c,
        {
            "data.name": "builtin/small",
            "data.size": 64,
            "data.pp_test": "center({size})",
            "data.batch": 16,
            "optim.schedule": "cosine",
            "optim.warmup": 20,
            "optim.clip": 1.0,
            "optim.average": 0.99,
            "every": dict(log=20, evaluate=200, save=50),
            "keep": 2,
        },
    )


def stage1() -> ConfigDict:
    return override(
        small(restore.get_config()),
        {
            "data.size": 32,
            "data.pp_test": "",
            "restorer.net": dict(
                inner=8,
                multipliers=(1, 2, 4),
                res_blocks=1,
                attn_res=(),
                image_size=64,
                groups=4,
                dropout=0.0,
                zero_final=True,
            ),
            "restorer.prediction": "x0",
            "restorer.residual": True,
            "restorer.sampling.steps": 4,
            "restorer.sampling.sampler": "ddim",
            "restorer.sampling.keep": (1, 2),
            "restorer.dtype": "float32",
            "optim.lr": 3e-3,
            "optim.steps": 600,
            "evaluate.val_images": 48,
        },
    )


def stage2() -> ConfigDict:
    tab = dict(scramble=True, block=None, dropout=0.0)
    return override(
        small(diffv2iqa.get_config()),
        {
            "restorer.run": "restore",
            "model.dtype": "float32",
            "model.branches.guidance": dict(
                select=((1, 2, 3), (1, 2), (2,), (3,)),
                noise_width=16,
                reduce=(96, 48),
                width=32,
                tabs=1,
                positive=False,
                dropout=0.1,
                tab=tab,
                swin=dict(
                    depths=(2,),
                    heads=(4,),
                    window=4,
                    mlp=64,
                    scale=0.8,
                    drop_path=0.0,
                    dropout=0.0,
                ),
                vit=dict(image_size=64, patch=8, width=48, depth=4, heads=4, mlp=96),
            ),
            "model.branches.difference.resnet": dict(
                blocks=(1, 1, 1), width=16, classes=0, norm="group"
            ),
            "model.branches.difference.tab": tab,
            "model.branches.difference.width": 32,
            "model.branches.difference.positive": False,
            "optim.lr": 1e-3,
            "optim.weight_decay": 0.0,
            "optim.steps": 400,
            "optim.frozen": "^restorer",
            "evaluate.val_images": 400,
        },
    )


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.stages = dict(restore=stage1(), quality=stage2())
    return c
