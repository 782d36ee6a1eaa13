"""The smallest settings at which everything is there, and random things to feed them."""

import jax
import jax.numpy as jnp
import numpy as np

from diffv2iqa_jax.models.layers import BATCH_AXES

SIZE = 16  # side of the images in pixels


def restorer(*, net: dict | None = None, sampling: dict | None = None, **changes) -> dict:
    """Settings of `restorers.make`: a diffusion with a U-Net of two levels."""
    net = {
        "inner": 8,
        "multipliers": (1, 2),
        "res_blocks": 1,
        "attn_res": (),
        "image_size": SIZE,
        "groups": 4,
        "dropout": 0.0,
        **(net or {}),
    }
    sampling = {
        "steps": 4,
        "spacing": "tabulate",
        "sampler": "ddpm",
        "keep": (1, 2),
        "clip": True,
        **(sampling or {}),
    }
    return {
        "kind": "diffusion",
        "net": net,
        "conditional": True,
        "schedule": {"name": "cosine", "steps": 100},
        "prediction": "eps",
        "residual": False,
        "loss": "l1",
        "levels": "per_image",
        "sampling": sampling,
        "views_dtype": "float32",
        "seed": 0,
        "dtype": "float32",
        **changes,
    }


def vit(**changes) -> dict:
    """Settings of a vision transformer with 16 tokens."""
    small = {"image_size": SIZE, "patch": 4, "width": 16, "depth": 1, "heads": 2, "mlp": 32}
    return small | changes


def resnet(**changes) -> dict:
    """Settings of a residual network of one stage, with 4 x 4 positions."""
    return {"blocks": (1,), "width": 8, "norm": "group"} | changes


def guidance(**changes) -> dict:
    """Settings of the guidance branch for four views."""
    return {
        "select": ((0,), (0,), (0,), (0,)),
        "noise_width": 4,
        "dropout": 0.0,
        "reduce": (16,),
        "width": 8,
        "tabs": 1,
        "tab": {"dropout": 0.0},
        "swin": {"depths": (1,), "heads": (2,), "mlp": 16, "dropout": 0.0, "drop_path": 0.0},
        "vit": vit(),
        **changes,
    }


def difference(**changes) -> dict:
    """Settings of the difference branch."""
    return {
        "resnet": resnet(),
        "tab": {"dropout": 0.0},
        "width": 8,
        "dropout": 0.0,
        **changes,
    }


def model(**changes) -> dict:
    """Settings of the quality model with both branches."""
    return {"branches": {"guidance": guidance(), "difference": difference()}, **changes}


def batch(seed: int = 0, count: int = 8, *, size: int = SIZE, views: int = 0) -> dict:
    """A training batch of random images; `views` others of each, as if stored."""
    g = np.random.default_rng(seed)

    def pixels(*lead):
        return g.integers(0, 256, (*lead, size, size, 3), np.uint8)

    number = np.arange(count) + seed * count
    out = {
        "image": pixels(count),
        "reference": pixels(count),
        "mos": g.random(count, np.float32),
        "id": number.astype(np.int32),
        "content": g.integers(0, 2**32, count, np.uint32),
        "draw": number.astype(np.uint32),
        "mask": np.ones(count, np.float32),
    }
    return out | ({"views": pixels(count, views)} if views else {})


def random(shapes, seed: int = 0):
    """Numbers for a tree of shapes, as training might leave them; nothing is compiled."""
    g = np.random.default_rng(seed)

    def leaf(path, x):
        z = g.standard_normal(x.shape, np.float32)
        if path[-1].key in ("scale", "var"):
            return jnp.array(1 + 0.1 * np.abs(z))
        return jnp.array(z / np.prod(x.shape[:-1]) ** 0.5 if len(x.shape) > 1 else 0.1 * z)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def variables(module, *args, seed: int = 0):
    """Random variables of a linen module for these arguments."""
    return random(jax.eval_shape(module.init, jax.random.key(0), *args), seed)


def images(seed: int, *shape: int) -> jax.Array:
    """Values in [-1, 1] of that shape."""
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


def over_devices(fn):
    """Maps a function of one device's batch over a leading axis of devices, as a step is."""
    data, fsdp = BATCH_AXES
    alone = jax.vmap(fn, axis_name=fsdp, axis_size=1, in_axes=None, out_axes=None)
    return jax.vmap(alone, axis_name=data)
