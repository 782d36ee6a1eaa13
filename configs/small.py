"""Stage 2 with backbones that two CPU cores can train: DeiT-Tiny/16, and ResNet50 up to layer2.

  python -m diffv2iqa_jax.main --config configs/small.py:maniqa --workdir runs/small \\
      --config.data.name=biq2021 --config.pretrained.vit=deit_tiny.safetensors

`maniqa` looks at the photo alone; `paper` is DiffV2IQA and needs --config.restorer.run. Each photo
is scaled to 384 x 384 before anything else, so that restoring it, too, is affordable.
"""

from ml_collections import ConfigDict

from configs import diffv2iqa, maniqa
from diffv2iqa_jax.config import override, pick

GUIDANCE = {
    "normalise": "imagenet",
    "reduce": (192,),
    "width": 96,
    "tab": dict(scramble=True, block=None, dropout=0.1),
    "swin.window": 7,
    "swin.mlp": 192,
    "vit": dict(image_size=224, patch=16, width=192, depth=12, heads=3, mlp=768),
}
DIFFERENCE = {
    "normalise": "imagenet",
    "resnet.blocks": (3, 4),
    "width": 64,
    "tab": dict(scramble=True, block=None, dropout=0.1),
}
SHARED = {
    "data.parts": "official",
    "data.fractions": (0.8, 0.0, 0.2),
    "data.pp_train": "resize(384)|crop({size})|flip(0.5)",
    "data.pp_test": "resize(384)|grid({size})",
    "data.batch": 16,
    "model.dtype": "float32",
    "optim.lr": 1e-4,
    "optim.warmup": 100,
    "optim.weight_decay": 0.0,
    "optim.clip": 1.0,
    "optim.steps": 1_000,
    "optim.average": 0.99,
    "every": dict(log=50, evaluate=1_000, save=100),
    **{f"model.branches.guidance.{key}": value for key, value in GUIDANCE.items()},
}
ROWS = {
    "maniqa": {},
    "paper": {
        "optim.frozen": "^restorer|/resnet/",
        "model.branches.guidance.noise_width": 48,
        **{f"model.branches.difference.{key}": value for key, value in DIFFERENCE.items()},
    },
}


def get_config(row: str = "maniqa") -> ConfigDict:
    changes = pick(ROWS, row)
    base = maniqa.get_config() if row == "maniqa" else diffv2iqa.get_config(row)
    return override(override(base, SHARED), changes)
