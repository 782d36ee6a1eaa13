"""Stage 2: DiffV2IQA at full size, in its two published forms.

  python -m diffv2iqa_jax.main --config diffv2iqa:paper --workdir runs/quality \\
      --config.restorer.run=runs/restore --config.pretrained.vit=vit_b8.safetensors \\
      --config.pretrained.resnet=resnet50.safetensors

`paper` is the published figure, `release` the authors' later code. The other rows are an ablation
table: each is what it changes of `paper`, or of `release` where its name says so.
Values marked OPEN are not fixed by the paper; the choice made here is said beside them. There
are no results at this size, and no number was tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import restore

RELEASE = {  # all of it from the release's code
    "model.w2": 5.0,
    "model.share_tabs": True,
    "model.branches.difference.form": "logits",
    "model.branches.difference.absolute": True,
    "model.branches.difference.width": 32,
    "model.branches.difference.normalise": "half",
    "model.branches.difference.resnet.classes": 1000,
    "optim.frozen": "^restorer",
    "restorer.changes": {"views_dtype": "uint8"},
}
SELECT = "model.branches.guidance.select"
COMPARE = "model.branches.difference.compare"
# What each subset of the restored views leaves: the ViT blocks of each view, and the three views
# whose differences are query, key and value. The image itself is always looked at.
SUBSETS = {
    "y0": (((6, 7, 8, 9), (6, 7)), (1, 1, 1)),
    "yt1": (((6, 7, 8, 9), (), (8,)), (2, 2, 2)),
    "yt2": (((6, 7, 8, 9), (), (), (9,)), (3, 3, 3)),
    "y0_yt1": (((6, 7, 8, 9), (6, 7), (8,)), (1, 2, 2)),
    "y0_yt2": (((6, 7, 8, 9), (6, 7), (), (9,)), (1, 3, 3)),
    "yt1_yt2": (((6, 7, 8, 9), (), (8,), (9,)), (2, 3, 3)),
}
ROWS = {
    "paper": {},
    "release": RELEASE,
    # Parts.
    "no_guidance": {"model.branches.guidance": None},
    "no_difference": {"model.branches.difference": None},
    "no_noise_embedding": {"model.branches.guidance.noise_width": 0},
    "wide_noise_embedding": {"model.branches.guidance.noise_width": 768},  # as the figure draws it
    "no_scramble": {
        "model.branches.guidance.tab.scramble": False,
        "model.branches.difference.tab.scramble": False,
    },
    # Views.
    **{f"views_{k}": {SELECT: v[0], COMPARE: v[1]} for k, v in SUBSETS.items()},
    "layers_early": {SELECT: ((2, 3, 4, 5), (2, 3), (4,), (5,))},  # four blocks before the paper's
    "layers_late": {SELECT: ((8, 9, 10, 11), (8, 9), (10,), (11,))},  # the last four
    "layers_all_views": {SELECT: ((6, 7, 8, 9),) * 4},
    # What is done with the differences.
    "concat": {"model.branches.difference.mix": "concat"},
    "plain_difference": {"model.branches.difference.mix": "difference"},
    "absolute": {"model.branches.difference.absolute": True},
    "release_signed": {**RELEASE, "model.branches.difference.absolute": False},
    "release_own_tabs": {**RELEASE, "model.share_tabs": False},
    # Weights.
    "trained_backbones": {
        "optim.frozen": "^restorer",
        "model.branches.difference.resnet.norm": "batch",
    },
    "w2_5": {"model.w2": 5.0},  # the release's
    "w2_learned": {"model.w2": "learned"},
    # The restorer, as trained by stage 1 or another.
    # A fifth of the steps, and the views as far along the chain.
    "steps_10": {"restorer.changes": dict(sampling=dict(steps=10, keep=(1, 2)))},
    "ddim_10": {"restorer.changes": dict(sampling=dict(steps=10, keep=(1, 2), sampler="ddim"))},
    "noisier_states": {"restorer.changes": dict(sampling=dict(keep=(15, 30)))},  # steps; not tuned
    "autoencoder": {"restorer.run": "runs/vcr"},  # a run of configs/vcrnet.py:restoration
    "no_restorer": {
        "restorer": dict(kind="none"),
        "model.branches.difference": None,
        SELECT: ((6, 7, 8, 9),),
        "optim.frozen": "/vit/",
    },
    # Training.
    "loss_l1": {"loss": "l1"},
    "loss_huber": {"loss": "huber"},
    "branch_loss": {"branch_loss": 1.0},  # as much as that of the sum
    "no_flip": {"data.pp_train": "crop({size})"},
    "vertical_flip": {"data.pp_train": "crop({size})|vertical_flip(0.7)"},  # the release's
    "wave": {"optim.schedule": "wave", "optim.period": 100},  # the release's, in steps
    "release_training": {  # all of it from the release's code
        **RELEASE,
        "data.pp_train": "crop({size})|vertical_flip(0.7)",
        "data.pp_test": "random_crops({size}, 1)",
        "data.batch": 4,
        "optim.schedule": "wave",
        "optim.period": 100,
        "optim.average": 0.0,
    },
}


def tab() -> dict:
    """Settings of a TAB, anew for each branch: one dictionary in both places stays one there."""
    # Channels of Z treated at a time: its map of 6912 x 6912 is never held whole.
    return dict(scramble=True, block=768, dropout=0.1)  # MANIQA's dropout; `block` is not tuned


def get_config(row: str = "paper") -> ConfigDict:
    c = restore.get_config()
    c.task = "quality"
    c.data.size = 224  # what the ViT was pretrained on
    c.data.pp_test = "grid({size})"  # every pixel is seen; the originals take random crops
    c.data.batch = 8  # MANIQA's; the release has 4
    c.restorer = dict(
        run="",  # workdir of the stage-1 run: give it on the command line
        changes=dict(),  # to its restorer's settings, e.g. dict(sampling=dict(steps=10))
        cached=True,  # restore every image once, before training
        folder="",  # of the views; "": in this run's workdir
    )
    c.model = dict(
        w2=1.0,  # weight of the difference branch; a number or "learned"
        share_tabs=False,
        dtype="bfloat16",
        branches=dict(
            guidance=dict(
                # Blocks (from 0) of x_dis, y_0, y_t1, y_t2.
                select=((6, 7, 8, 9), (6, 7), (8,), (9,)),
                normalise="half",  # pixels in [-1, 1]
                noise_width=192,  # OPEN: the figure draws it as wide as a feature (768)
                reduce=(2304, 768),  # the release's
                width=384,  # from here to `vit`: MANIQA's
                tabs=2,
                positive=True,
                dropout=0.1,
                tab=tab(),
                swin=dict(
                    depths=(2, 2),
                    heads=(4, 4),
                    window=4,
                    mlp=768,
                    scale=0.8,
                    drop_path=0.1,
                    dropout=0.1,
                ),
                # ViT-B/8.
                vit=dict(image_size=224, patch=8, width=768, depth=12, heads=12, mlp=3072),
            ),
            difference=dict(
                form="stages",
                positions=784,  # of form "logits": what the shared TABs attend over
                tabs=2,  # of form "logits", where the guidance branch shares none
                compare=(1, 2, 3),  # the views whose differences are query, key and value
                mix="rtab",
                layer_norm=False,  # of the features
                absolute=False,  # OPEN: the figure draws a plain minus
                width=None,  # OPEN: the features' own 2048
                normalise="imagenet",
                positive=True,
                dropout=0.1,  # MANIQA's heads
                tab=tab(),
                resnet=dict(blocks=(3, 4, 6, 3), width=64, classes=0, norm="frozen"),  # ResNet50
            ),
        ),
    )
    # Converted files or runs to start from; a branch comes from a run. What is frozen and starts
    # from none of them stays random, which has to be meant.
    c.pretrained = dict(model="", guidance="", difference="", vit="", resnet="", allow_random=False)
    c.loss = "mse"
    c.branch_loss = 0.0  # of each branch by itself
    c.optim = dict(
        name="adam",
        lr=1e-5,  # the release's and MANIQA's
        schedule="cosine",  # once over the run; the originals' is "wave" with a period of 100
        period=0,
        warmup=0,  # the release has none
        steps=100_000,  # OPEN: the release trains for up to 300 epochs
        weight_decay=1e-5,  # coupled, as PyTorch's Adam has it
        clip=0.0,  # off
        frozen="^restorer|/vit/|/resnet/",
        rates=(),  # (expression, factor) of parameters with a rate of their own
        accumulate=1,  # the whole batch at once
        remat="none",  # "blocks" computes each block twice: less memory, more time
        average=0.999,  # OPEN: the originals have none
    )
    c.every = dict(log=100, evaluate=2_000, save=1_000)  # not tuned
    c.evaluate = dict(val_images=100_000, examples=4, baselines=True)  # all; best and worst four
    return override(c, pick(ROWS, row))
