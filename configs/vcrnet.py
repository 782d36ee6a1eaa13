"""VCRNet (Pan et al. 2022): a restoration autoencoder, then a quality net that contains it.

  python -m diffv2iqa_jax.main --config vcrnet:restoration --workdir runs/vcr
  python -m diffv2iqa_jax.main --config vcrnet:quality --workdir runs/vcrnet \\
      --config.pretrained.vcrnet_restoration=runs/vcr

The published code holds the training of the quality net only. OPEN marks what is chosen here for
that of the restoration. There are no results at this size, and no number was tuned.
"""

from ml_collections import ConfigDict

from diffv2iqa_jax.config import override, pick
from diffv2iqa_jax.configs import diffv2iqa, restore

RESTORATION = {
    "data.size": 64,  # OPEN: what is left of its data code cuts tiles of 64
    "data.pp_test": "center(128)",  # OPEN: whole images of builtin/full
    "data.batch": 16,  # OPEN: that of the quality net
    "restorer": dict(
        kind="autoencoder",
        net=dict(width=16, norm="batch"),  # published
        loss="l1",  # OPEN
        noise=(0.31, 0.58),  # as much as SR3's two kept states carry
        views_dtype="float16",
        seed=0,
        dtype="float32",
    ),
    "optim.lr": 2e-4,  # OPEN: the quality net's, before its factor of ten
    "optim.schedule": "cosine",  # OPEN
    "optim.steps": 100_000,  # OPEN
}
QUALITY = {
    "data.pp_train": "crop({size})|flip(0.5)",  # published
    "data.pp_test": "random_crops({size}, 25)",  # published
    "data.batch": 16,  # published
    "restorer": dict(kind="none"),
    "model.branches": dict(
        vcrnet=dict(
            net=dict(  # published
                width=16,
                scale_width=24,
                hidden=512,
                dropout=0.5,
                norm="batch",
            )
        )
    ),
    "model.dtype": "float32",
    "pretrained": dict(model="", vcrnet="", vcrnet_restoration="", allow_random=False),
    "loss": "l1",
    "optim.lr": 1.8e-3,  # published, but for a first epoch at 2e-3
    "optim.schedule": "stairs",
    "optim.period": 10_000,  # published: ten epochs
    "optim.steps": 16_000,  # published: 16 epochs
    "optim.weight_decay": 0.0,  # published: none
    "optim.frozen": "",  # published: everything is trained
}


ROWS = {"restoration": (restore, RESTORATION), "quality": (diffv2iqa, QUALITY)}


def get_config(row: str = "quality") -> ConfigDict:
    base, changes = pick(ROWS, row)
    return override(base.get_config(), changes)
