"""What each key of a configuration may be: numbers within their range, texts, truth values.

What belongs together (a schedule and its period, a net and its crops) is checked where it is used.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from diffv2iqa_jax import pixels
from diffv2iqa_jax.config import flat
from diffv2iqa_jax.errors import ConfigError

# Pixels. A side beyond every camera's; a batch of one such picture is made to look at shapes.
LARGEST = 2**14
SEEDS = 2**32 - 1  # what both NumPy's and TensorFlow's generators take
STEPS = 2**31 - 1  # a state counts its steps in int32


class Rule(NamedTuple):
    """A test of a value, and what it asks for, as "must be ...".

    Attributes:
      holds: value -> whether it passes.
      asks: ends the sentence.
    """

    holds: Callable[[Any], bool]
    asks: str


def is_number(value: Any) -> bool:
    """Whether it is a finite number; a truth value is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number of type int."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int, most: int | None = None) -> Rule:
    """A whole number in [least, most]."""
    to = f"at least {least}" if most is None else f"from {least} to {most}"
    top = math.inf if most is None else most
    return Rule(lambda x: is_whole(x) and least <= x <= top, f"a whole number, {to}")


def real(least: float, below: float | None = None) -> Rule:
    """A finite number in [least, below)."""
    to = f"at least {least:g}" if below is None else f"in [{least:g}, {below:g})"
    top = math.inf if below is None else below
    return Rule(lambda x: is_number(x) and least <= x < top, f"a finite number, {to}")


def among(*choices: Any) -> Rule:
    """One of these texts."""
    return Rule(lambda x: isinstance(x, str) and x in choices, f"one of {list(choices)}")


def wholes(least: int, *, some: bool = True) -> Rule:
    """A list of whole numbers; with `some`, of at least one."""
    asks = f"a list of whole numbers, each at least {least}"
    asks = f"{asks}, and not empty" if some else asks
    one = whole(least).holds
    return Rule(lambda x: isinstance(x, list | tuple) and len(x) >= some and all(map(one, x)), asks)


def either(rule: Rule, *others: Any) -> Rule:
    """What passes the rule, or is one of these values."""
    asks = f"{rule.asks}, or {' or '.join(map(repr, others))}"
    return Rule(lambda x: x in others or rule.holds(x), asks)


def _is_split(x: Any) -> bool:
    fits = isinstance(x, list | tuple) and len(x) == 3 and all(is_number(v) and v >= 0 for v in x)
    return fits and math.isclose(sum(x), 1)


def _are_lists(x: Any) -> bool:
    """Lists of whole numbers from 0, one for each view; the first shows the image itself."""
    one = wholes(0, some=False).holds
    return isinstance(x, list | tuple) and len(x) > 0 and all(map(one, x)) and len(x[0]) > 0


def _are_texts(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(isinstance(v, str) for v in x)


def _is_noise(x: Any) -> bool:
    return is_number(x) and 0 < x < 1


def _are_noises(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(map(_is_noise, x))


def _is_rate(x: Any) -> bool:
    pair = isinstance(x, list | tuple) and len(x) == 2
    return pair and isinstance(x[0], str) and is_number(x[1]) and x[1] > 0


def _are_rates(x: Any) -> bool:
    return isinstance(x, list | tuple) and all(map(_is_rate, x))


TEXT = Rule(lambda x: isinstance(x, str), "text")
FLAG = Rule(lambda x: isinstance(x, bool), "True or False")
SHARE = Rule(lambda x: is_number(x) and 0 <= x <= 1, "a share, from 0 to 1")
RATE = real(0, 1)
COUNT, COUNT_OR_NONE = whole(1), whole(0)
DTYPE = among("float32", "bfloat16", "float16")
NOISE = Rule(_is_noise, "a number between 0 and 1")
LEVELS = Rule(
    lambda x: wholes(1).holds(x) and len(x) == 2 and x[0] <= x[1] <= 5,
    "the lowest and the highest level, whole numbers from 1 to 5",
)
SPLIT = Rule(_is_split, "three parts of 1 (train, validation, test), none below 0")

# By the end of a key's path: the longest that fits counts.
RULES = {
    "seed": whole(0, SEEDS),
    "loss": TEXT,
    "data.name": TEXT,
    "data.folder": TEXT,
    "data.parts": TEXT,
    "data.split": whole(0, SEEDS),
    "data.fractions": SPLIT,
    "data.size": whole(1, LARGEST),
    "data.batch": COUNT,
    "data.cache": FLAG,
    "distort.types": Rule(_are_texts, "a list of texts"),
    "distort.clean": SHARE,
    "distort.chains": SHARE,
    "distort.levels": LEVELS,
    "distort.group": COUNT,
    "distort.subsample": FLAG,
    "distort.pairs": COUNT_OR_NONE,
    "distort.test": TEXT,
    "restorer.kind": TEXT,
    "restorer.prediction": TEXT,
    "restorer.levels": TEXT,
    "restorer.views_dtype": TEXT,
    "schedule.name": TEXT,
    "sampling.sampler": TEXT,
    "sampling.spacing": TEXT,
    "restorer.noise": Rule(_are_noises, "a list of numbers between 0 and 1"),
    "restorer.run": TEXT,
    "restorer.cached": FLAG,
    "restorer.folder": TEXT,
    "restorer.conditional": FLAG,
    "restorer.residual": FLAG,
    "schedule.steps": whole(1, 10**6),
    "schedule.start": NOISE,
    "schedule.end": NOISE,
    "sampling.steps": whole(1, 10**6),
    "sampling.keep": wholes(0, some=False),
    "sampling.clip": FLAG,
    "branch_loss": real(0),
    "optim.name": TEXT,
    "optim.lr": real(0),
    "optim.schedule": TEXT,
    "optim.rates": Rule(_are_rates, "a list of pairs (expression, factor above 0)"),
    "optim.period": COUNT_OR_NONE,
    "optim.warmup": COUNT_OR_NONE,
    "optim.steps": whole(0, STEPS),
    "optim.weight_decay": real(0),
    "optim.clip": real(0),
    "optim.frozen": TEXT,
    "optim.accumulate": COUNT,
    "optim.average": RATE,
    "devices.map": TEXT,
    "devices.fsdp": COUNT,
    "every.log": COUNT,
    "every.evaluate": COUNT,
    "every.save": COUNT,
    "evaluate.val_images": COUNT,
    "evaluate.examples": COUNT_OR_NONE,
    "evaluate.baselines": FLAG,
    "keep": COUNT,
    "tensorboard": FLAG,
    "pretrained.allow_random": FLAG,
    "dtype": DTYPE,
    "dropout": RATE,
    "drop_path": RATE,
    "model.w2": either(real(0), "learned"),
    "model.share_tabs": FLAG,
    "guidance.select": Rule(_are_lists, "a list of ViT blocks, whole numbers, for each view"),
    "guidance.noise_width": COUNT_OR_NONE,
    "guidance.reduce": wholes(1),
    "guidance.width": COUNT,
    "difference.width": either(COUNT, None),
    "difference.positions": COUNT,
    "difference.compare": wholes(0, some=False),
    "normalise": among(*pixels.MEAN_STD),
    "difference.form": TEXT,
    "difference.mix": TEXT,
    "norm": TEXT,
    "net.embedding": TEXT,
    "tabs": COUNT_OR_NONE,
    "positive": FLAG,
    "absolute": FLAG,
    "layer_norm": FLAG,
    "scramble": FLAG,
    "block": either(COUNT, None),
    "swin.depths": wholes(1),
    "swin.heads": wholes(1),
    "swin.window": COUNT,
    "swin.scale": Rule(is_number, "a finite number"),
    "mlp": COUNT,
    "image_size": whole(1, LARGEST),
    "patch": COUNT,
    "vit.width": COUNT,
    "vit.depth": COUNT,
    "vit.heads": COUNT,
    "blocks": wholes(1),
    "resnet.width": COUNT,
    "classes": COUNT_OR_NONE,
    "net.width": COUNT,
    "net.scale_width": COUNT,
    "net.hidden": COUNT,
    "net.inner": COUNT,
    "net.multipliers": wholes(1),
    "net.res_blocks": COUNT,
    "net.attn_res": wholes(1, some=False),
    "net.groups": COUNT,
    "net.zero_final": FLAG,
}


def check(config: dict, section: str = "") -> None:
    """Refuses a value that its key cannot have; keys that are not in RULES pass.

    Args:
      section: the path of what `config` holds; "" for a whole configuration.

    Raises:
      ConfigError: one line with the key, its value and the rule.
    """
    for key, value in flat(config).items():
        path = f"{section}.{key}".lstrip(".")
        rule = _rule_of(path)
        if rule and not rule.holds(value):
            raise ConfigError(f"config.{path} {value!r}: must be {rule.asks}")
        if re.match(r"pretrained\.", path) and rule is None and not isinstance(value, str):
            raise ConfigError(f"config.{path} {value!r}: must be text, a file or a run; '' is none")


def _rule_of(path: str) -> Rule | None:
    names = path.split(".")
    ends = (".".join(names[start:]) for start in range(len(names)))
    return next((RULES[end] for end in ends if end in RULES), None)
