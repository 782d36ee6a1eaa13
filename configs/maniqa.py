"""MANIQA (Yang et al. 2022): the guidance branch alone, looking at the image alone.

  python -m diffv2iqa_jax.main --config maniqa --workdir runs/maniqa \\
      --config.pretrained.vit=vit_b8.safetensors

`ours` trains by this project's protocol, `published` by that of the released code; `pipal` has
the residual scale of the checkpoint of the NTIRE 2022 challenge. There are no results at this
size, and no number was tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import diffv2iqa

BASE = {
    "data.batch": 8,  # published
    "restorer": dict(kind="none"),
    "model.branches.difference": None,
    "model.branches.guidance.select": ((6, 7, 8, 9),),  # published: ViT blocks, counted from 0
    "model.branches.guidance.noise_width": 0,  # the image is the only view
    "model.branches.guidance.reduce": (768,),  # published
    "optim.frozen": "",  # everything is trained, the ViT too
}
ROWS = {
    "ours": {},
    "published": {
        "data.pp_train": "crop({size})|vertical_flip(0.7)",  # called horizontal there
        "data.pp_test": "random_crops({size}, 20)",
        "optim.schedule": "wave",
        "optim.period": 100,  # steps, where 100 epochs were meant
        "optim.average": 0.0,  # none
    },
    "pipal": {"model.branches.guidance.swin.scale": 0.13},  # that checkpoint's
}


def get_config(row: str = "ours") -> ConfigDict:
    return override(override(diffv2iqa.get_config(), BASE), pick(ROWS, row))
