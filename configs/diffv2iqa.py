"""Stage 2: DiffV2IQA at full size, in its two published forms.

  python -m diffv2iqa_jax.main --config configs/diffv2iqa.py:paper --workdir runs/quality \\
      --config.restorer.run=runs/restore

`paper` is the published figure, `release` the authors' later code. A row is what it changes.
Values marked OPEN are not fixed by the paper; the choice made here is said beside them.
"""

from ml_collections import ConfigDict

from configs import restore
from diffv2iqa_jax.config import override

ROWS = {
    "paper": {},
    "release": {
        "model.w2": 5.0,
        "model.share_tabs": True,
        "model.branches.difference.form": "logits",
        "model.branches.difference.absolute": True,
        "model.branches.difference.width": 32,
        "model.branches.difference.normalise": "half",
        "model.branches.difference.resnet.classes": 1000,
        "optim.frozen": "^restorer",
        "restorer.changes": {"views_dtype": "uint8"},
    },
}


def get_config(row: str = "paper") -> ConfigDict:
    c = restore.get_config()
    c.task = "quality"
    c.data.size = 224
    c.data.pp_test = "grid({size})"  # every pixel is seen; the originals take random crops
    c.data.batch = 8
    c.restorer = dict(
        run="",  # workdir of the stage-1 run: give it on the command line
        changes=dict(),  # to its restorer's settings, e.g. dict(sampling=dict(steps=10))
        cached=True,  # restore every image once, before training
        folder="",  # of the views; "": in this run's workdir
    )
    # Channels of Z treated at a time: its map of 6912 x 6912 is never held whole.
    tab = dict(scramble=True, block=768, dropout=0.1)
    c.model = dict(
        w2=1.0,  # weight of the difference branch; a number or "learned"
        share_tabs=False,
        dtype="bfloat16",
        branches=dict(
            guidance=dict(
                # Blocks (from 0) of x_dis, y_0, y_t1, y_t2.
                select=((6, 7, 8, 9), (6, 7), (8,), (9,)),
                noise_width=192,  # OPEN: the figure draws it as wide as a feature (768)
                reduce=(2304, 768),
                width=384,
                tabs=2,
                positive=True,
                dropout=0.1,
                tab=tab,
                swin=dict(
                    depths=(2, 2),
                    heads=(4, 4),
                    window=4,
                    mlp=768,
                    scale=0.8,
                    drop_path=0.1,
                    dropout=0.1,
                ),
                vit=dict(image_size=224, patch=8, width=768, depth=12, heads=12, mlp=3072),
            ),
            difference=dict(
                form="stages",
                positions=784,  # of form "logits": what the shared TABs attend over
                absolute=False,  # OPEN: the figure draws a plain minus
                width=None,  # OPEN: the features' own 2048
                normalise="imagenet",
                positive=True,
                dropout=0.1,
                tab=tab,
                resnet=dict(blocks=(3, 4, 6, 3), width=64, classes=0, norm="frozen"),
            ),
        ),
    )
    c.loss = "mse"
    c.optim = dict(
        name="adam",
        lr=1e-5,
        schedule="cosine",  # once over the run; the originals' is "wave" with a period of 100
        period=0,
        warmup=0,
        steps=100_000,  # OPEN: the release trains for up to 300 epochs
        weight_decay=1e-5,  # coupled, as PyTorch's Adam has it
        clip=0.0,  # off
        frozen="^restorer|/vit/|/resnet/",
        accumulate=1,
        average=0.999,  # OPEN: the originals have none
    )
    c.every = dict(log=100, evaluate=2_000, save=1_000)
    c.evaluate = dict(val_images=100_000, examples=4, baselines=True)
    return override(c, ROWS[row])
