"""The two stages by name: their tasks, their sections of a configuration, their weights."""

from diffv2iqa_jax.tasks.quality import quality
from diffv2iqa_jax.tasks.restoration import restoration

TASKS = {"restoration": restoration, "quality": quality}


# The sections of a configuration that each stage takes.
SETTINGS = {"restoration": ("restorer",), "quality": ("restorer", "model", "loss", "branch_loss")}


def settings(config: dict) -> dict:
    """The stage's sections of a configuration; one stored earlier may lack newer sections."""
    return {key: config[key] for key in SETTINGS[config["task"]] if key in config}


# What can start from pretrained weights -> its path in a task's weights; "" is the whole.
PRETRAINED = {
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
