"""Stage 1 on your own pristine photos: the device makes the distorted images, anew at each step.

  python -m diffv2iqa_jax.main --config pristine --workdir runs/pristine \\
      --config.data.folder=PHOTOS

PHOTOS is a folder, a glob or a folder of tfrecord files. A restorer of 5.4 million parameters for
crops of 128 pixels. Like the quickstart's, it predicts what to add to the distorted image. `cpu`
and `small` are for two cores: 612 thousand, and crops of 32. `branches` is stage 2 at full size on
the same photos, before there are any human scores: give it --config.restorer.run too. There are no
results of `base` and `branches`, and no number of theirs was tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import diffv2iqa, restore

# What can be undone without the original. Changes of light, colour or place cannot, yet make up
# most of the error, and for the first thousands of steps a small net learns nothing beside them.
RESTORABLE = (
    *("gaussian_blur", "lens_blur", "motion_blur", "colour_diffusion", "colour_quantisation"),
    *("jpeg2000", "jpeg", "white_noise", "colour_noise", "impulse_noise"),
    *("multiplicative_noise", "denoise", "pixelate", "quantise"),
)
CPU = {  # for a quarter of an hour on two cores
    "restorer.net.inner": 16,  # 612 thousand parameters, for speed
    "restorer.net.res_blocks": 1,  # not tuned
    "restorer.sampling.steps": 5,  # 10 and 50 restore no better, to 0.01 dB
    "restorer.dtype": "float32",
    "data.size": 32,  # not tuned
    "data.pp_test": "center(128)",  # not tuned
    "data.batch": 16,  # not tuned
    "data.distort.group": 1,  # on a CPU larger groups compute in vain
    "data.distort.types": RESTORABLE,
    "data.distort.chains": 0.0,  # none; not tuned
    "optim.lr": 2e-3,  # not tuned
    "optim.steps": 4_500,  # in the first 2,000 it gives back what it is given
    "optim.warmup": 100,  # not tuned
    "optim.average": 0.995,  # over some 200 steps; not tuned
    "every": dict(log=100, evaluate=500, save=500),  # not tuned
}
ROWS = {
    "base": {},
    "cpu": CPU,
    # For configs/small.py, in a quarter of the time: photos at its scale (256), pixels folded.
    "small": {
        **CPU,
        "data.pp_train": "resize(256)|crop({size})|flip(0.5)",
        "data.pp_test": "resize(256)|center(128)",
        "data.distort.clean": 0.2,  # so that it learns to leave photos alone; not tuned
        "restorer.net.patch": 2,
        "restorer.loss": "mse",
        "restorer.sampling.steps": 3,  # the fewest that leave two noisy states on the way
        "restorer.views_dtype": "uint8",
    },
}


def photos(c: ConfigDict) -> ConfigDict:
    """The data of both stages."""
    c.data.name = "pristine"
    c.data.folder = ""  # give it on the command line
    c.data.fractions = (0.8, 0.1, 0.1)  # by file; not tuned
    c.data.batch = 64  # not tuned
    c.data.distort = dict(
        types=(),  # names of distortions/names.py; none: all
        clean=0.04,  # share of the images that stay as they are; not tuned
        chains=0.25,  # share of the others that are distorted two to four times; not tuned
        levels=(1, 5),  # all
        group=8,  # images of one type treated at once; 1 on a CPU
        subsample=True,  # of the label, HaarPSI
        pairs=0,  # (type, level) pairs each held-out photo is shown in; 0: all 125 and none
        test="",  # other photos to test on; "": the folder's test part
    )
    c.evaluate.val_images = 126  # as many as there are pairs of type and level, and none
    return c


def branches() -> ConfigDict:
    """Stage 2 on photos: the restorer runs in every step, as no two see the same images."""
    c = photos(diffv2iqa.get_config())
    # MANIQA's batch again.
    changes = {"data.batch": 8, "data.pp_test": "center({size})", "restorer.cached": False}
    return override(c, changes)


def get_config(row: str = "base") -> ConfigDict:
    if row == "branches":
        return branches()
    c = photos(restore.get_config())
    changes = {
        "restorer.net.inner": 40,  # from here to `groups`: 5.4 million parameters
        "restorer.net.multipliers": (1, 2, 4),
        "restorer.net.res_blocks": 2,
        "restorer.net.attn_res": (),
        "restorer.net.groups": 8,
        "restorer.net.dropout": 0.0,
        "restorer.net.zero_final": True,
        "restorer.prediction": "x0",
        "restorer.residual": True,
        "restorer.sampling.steps": 10,  # of `cpu`, five restore as well
        "restorer.sampling.sampler": "ddim",
        "restorer.sampling.keep": (1, 2),  # the last two states before y_0
        "optim.lr": 3e-4,  # from here on: not tuned
        "optim.schedule": "cosine",
        "optim.warmup": 500,
        "optim.steps": 100_000,
        "optim.average": 0.999,
        "every": dict(log=100, evaluate=5_000, save=1_000),
    }
    return override(override(c, changes), pick(ROWS, row))
