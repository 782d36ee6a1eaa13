"""SR3 (Saharia et al. 2021) as a stage 1: super-resolution by a conditional diffusion.

  python -m diffv2iqa_jax.main --config sr3:16_128 --workdir runs/sr3

The condition is the reference, made 8 times smaller and as large again by bicubic interpolation.
A row is what it changes of `configs/restore.py`; values are those of the published code, and none
was tuned here.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import restore

LINEAR = dict(name="linear", steps=2000, start=1e-6, end=1e-2)  # published
# Every 201st of 2000 steps is kept; the two last before y_0 are the views.
CHAIN = dict(steps=2000, spacing="tabulate", sampler="ddpm", keep=(201, 402), clip=True)

BASE = {
    "data.pp_train": "center({size})|shrink(8)|flip(0.5)",  # published: 16 to 128 and 64 to 512
    "data.pp_test": "center({size})|shrink(8)",
    "data.batch": 4,  # published
    "restorer.schedule": LINEAR,
    "restorer.levels": "per_batch",
    "restorer.sampling": CHAIN,
    "optim.warmup": 0,  # published: none of these three is used
    "optim.clip": 0.0,
    "optim.average": 0.0,
}
ROWS = {
    "16_128": {},
    "64_512": {  # all of it published
        "data.size": 512,
        "data.batch": 2,
        "restorer.net.multipliers": (1, 2, 4, 8, 16),
        "restorer.net.res_blocks": 1,
        "restorer.net.attn_res": (),
        "restorer.net.image_size": 512,
        "restorer.net.groups": 16,
        "restorer.net.dropout": 0.0,
        "optim.lr": 3e-6,
    },
    "unconditional": {"restorer.conditional": False},
    "ddpm": {  # all of it published
        "data.batch": 12,
        "restorer.net.multipliers": (1, 1, 2, 2, 4, 4),
        "restorer.net.embedding": "step",
        "restorer.schedule": dict(LINEAR, start=1e-4, end=2e-2),
        "restorer.levels": "per_image",
    },
}


def get_config(row: str = "16_128") -> ConfigDict:
    return override(override(restore.get_config(), BASE), pick(ROWS, row))
