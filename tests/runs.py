"""Whole runs at the smallest size: configurations for the loop, on the tiny built-in data."""

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.configs import diffv2iqa, maniqa, restore
from diffv2iqa_jax.training import run as training
from diffv2iqa_jax.training.opening import Kept
from tests import tiny

SIZE = tiny.SIZE
PROGRAMS = {}  # what the runs of this process have compiled, by configuration


SELDOM = {"log": 1, "evaluate": 4, "save": 4}  # where a run's way is not the subject


def run(config: dict, workdir, *, report: bool = False, **how) -> dict:
    """A run of one stage that compiles no step twice; the report is drawn only where it matters."""
    return training.run(config, str(workdir), kept=Kept(PROGRAMS), report=report, **how)


def small(c, folder, changes: dict) -> dict:
    """A base configuration shrunk to seconds; `folder` holds the built data."""
    shrunk = {
        "data.name": "builtin/tiny",
        "data.folder": str(folder),
        "data.size": SIZE,
        "data.batch": 8,
        "optim.steps": 4,
        "optim.warmup": 1,
        "optim.lr": 1e-3,
        "optim.average": 0.9,
        "every": dict(log=1, evaluate=2, save=2),
        "evaluate": dict(val_images=96, examples=1, baselines=False),
        "tensorboard": False,
        "pretrained.allow_random": True,  # backbones that are random and frozen: no file is at hand
    }
    return configs.plain(configs.override(c, {**shrunk, **changes}))


def stage1(folder, **changes) -> dict:
    settings = {k: v for k, v in tiny.restorer().items()}
    return small(restore.get_config(), folder, {"restorer": settings, **changes})


def stage2(folder, run, row: str = "paper", **changes) -> dict:
    """A row of configs/diffv2iqa.py: its own switches, tiny widths."""
    narrow = {
        "restorer.run": str(run),
        "model.dtype": "float32",
        "model.branches.guidance.select": tiny.guidance()["select"],
        "model.branches.guidance.vit": tiny.guidance()["vit"],
        "model.branches.guidance.swin": tiny.guidance()["swin"],
        "model.branches.guidance.reduce": (16, 8),
        "model.branches.guidance.width": 8,
        "model.branches.guidance.tabs": 1,
        "model.branches.difference.positions": 16,
    }
    c = diffv2iqa.get_config(row)
    resnet = dict(c.model.branches.difference.resnet)
    narrow["model.branches.difference.resnet"] = {**resnet, "blocks": (1, 1), "width": 8}
    return small(c, folder, {**narrow, **changes})


def maniqa_run(folder, **changes) -> dict:
    """configs/maniqa.py: one branch, one view, no restorer."""
    guidance = tiny.guidance(select=((0,),), noise_width=0, normalise="half")
    return small(maniqa.get_config(), folder, {"model.branches.guidance": guidance, **changes})


TWO_STAGES = """
from ml_collections import ConfigDict
from tests import runs

def get_config():
    c = ConfigDict()
    c.stages = dict(
        restore=runs.stage1({folder!r}, **{changes!r}),
        quality=runs.stage2({folder!r}, "restore", **{changes!r}),
    )
    return c
"""


def two_stages(path, folder, **changes) -> str:
    """Writes a configuration file of both stages, for runs by the command; returns its path."""
    path.write_text(TWO_STAGES.format(folder=str(folder), changes=changes))
    return str(path)
