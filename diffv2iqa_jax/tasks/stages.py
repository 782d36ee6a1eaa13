"""The two stages as three pure functions each: restore images, then judge them."""

from diffv2iqa_jax.tasks.quality import quality
from diffv2iqa_jax.tasks.restoration import restoration

TASKS = {"restoration": restoration, "quality": quality}


# The sections of a configuration that each of them takes.
SETTINGS = {"restoration": ("restorer",), "quality": ("restorer", "model", "loss", "branch_loss")}


def settings(config: dict) -> dict:
    """The task's own sections of a configuration; one stored before a section was lacks it."""
    return {key: config[key] for key in SETTINGS[config["task"]] if key in config}


# What can start from pretrained weights -> where it lies in a task's weights; "" is the whole.
PARTS = {
    "restoration": {"restorer": ""},
    "quality": {
        "model": "quality",
        "guidance": "quality/guidance",
        "difference": "quality/difference",
        "vit": "quality/guidance/vit",
        "resnet": "quality/difference/resnet",
        "vcrnet": "quality/vcrnet/net",
        "vcrnet_restoration": "quality/vcrnet/net/restoration",
    },
}
