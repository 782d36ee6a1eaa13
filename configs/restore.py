"""Stage 1: the restoration diffusion, at full size. Base of every configuration.

  python -m diffv2iqa_jax.main --config restore --workdir runs/restore

Values marked OPEN are not fixed by the paper; the choice made here is said beside them. There
are no results at this size, and no number was tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick

ROWS = {
    "base": {},
    # A fifth of the steps; the views lie as far along the chain as in `base`. Not tuned.
    "ddim10": {"restorer.sampling.steps": 10, "restorer.sampling.sampler": "ddim"}
    | {"restorer.sampling.keep": (1, 2)},
}


def get_config(row: str = "base") -> ConfigDict:
    c = ConfigDict()
    c.task = "restoration"
    c.seed = 0
    c.data = dict(
        name="builtin/full",
        folder="~/tensorflow_datasets",
        parts="reference",  # how they are chosen; see data/splits.py
        split=0,  # which of the splits by reference
        fractions=(0.6, 0.2, 0.2),  # train, validation (the originals have none), test
        size=128,  # of the crops; published
        pp_train="crop({size})|flip(0.5)",
        pp_test="center({size})",
        batch=256,  # over all devices; published
        cache=True,  # keep the encoded images in memory
    )
    c.restorer = dict(
        kind="diffusion",
        net=dict(  # SR3's for 128 pixels
            inner=64,
            multipliers=(1, 2, 4, 8, 8),
            res_blocks=2,
            attn_res=(16,),
            image_size=128,  # decides where attention is, not what can be fed
            groups=32,
            dropout=0.2,
            embedding="level",
            zero_final=False,
            patch=1,  # every pixel by itself; 2 folds squares of 2 x 2
        ),
        conditional=True,
        schedule=dict(name="cosine", steps=2000),  # as many steps as SR3's
        prediction="eps",
        residual=False,
        loss="l1",
        levels="per_image",  # SR3 draws one step for the whole batch: "per_batch"
        sampling=dict(
            steps=50,  # published
            spacing="tabulate",
            sampler="ddpm",
            keep=(5, 10),  # OPEN: y_t1 and y_t2, inferred from the states SR3's sampler keeps
            clip=True,
        ),
        views_dtype="float16",  # the release stores 8-bit files: "uint8"
        seed=0,  # of the chain's noise
        dtype="bfloat16",  # of the computation; parameters, norms and the chain are float32
    )
    # A converted file or a run to start from; whether what is frozen may stay random.
    c.pretrained = dict(restorer="", allow_random=False)
    c.optim = dict(
        name="adam",
        lr=1e-4,  # from scratch; 1e-5 when started from SR3's weights
        schedule="constant",
        period=0,  # of the schedules that have one, in steps
        warmup=1000,  # OPEN: SR3 has none
        steps=1_000_000,  # published, as the most
        weight_decay=0.0,
        clip=1.0,  # OPEN: SR3 has none
        frozen="",
        rates=(),
        accumulate=1,  # the whole batch at once
        remat="none",  # "blocks" computes each block twice: less memory, more time
        average=0.9999,  # SR3 configures it and does not use it
    )
    c.devices = dict(map="jit", fsdp=1)  # every device holds the whole state
    c.every = dict(log=100, evaluate=10_000, save=5_000)  # evaluated as often as SR3; not tuned
    c.evaluate = dict(val_images=256, examples=4, baselines=False)  # one batch; not tuned
    c.keep = 3  # checkpoints; not tuned
    c.tensorboard = True
    return override(c, pick(ROWS, row))
