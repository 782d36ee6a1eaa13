"""Ways to get views of an image: by diffusion, none at all, or read from a cache."""

from functools import partial

import jax
import jax.numpy as jnp

from diffv2iqa_jax import losses, pixels, rng
from diffv2iqa_jax.diffusion import sampling as chains
from diffv2iqa_jax.diffusion import schedule as schedules
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.types import Restorer, Views, Weights


def diffusion(
    *,
    net: dict,
    schedule: dict,
    prediction: str,
    residual: bool,
    loss: str,
    levels: str,
    sampling: dict,
    views_dtype: str,
    seed: int,
    dtype: str,
) -> Restorer:
    """SR3's conditional diffusion, the condition being the distorted image.

    Args:
      net: settings of `models.unet.UNet`.
      schedule: arguments of `diffusion.schedule.make`, for training.
      prediction: what the net puts out: "eps" (SR3), "x0" or "v".
      residual: the net's "x0" is what to add to the distorted image, not the whole image.
      loss: on the net's output, one of `losses.LOSSES` (SR3: "l1").
      levels: draw the training step "per_batch" (SR3) or "per_image".
      sampling: steps, spacing (`schedule.spaced`), sampler, keep, clip (`sampling.sample`).
      views_dtype: what views are rounded to, so that cached ones equal computed ones.
      seed: of the chain's noise; the noise of an image depends on it and on its pixels alone.

    Raises:
      ValueError: settings that do not fit together.
    """
    unet = UNet(**net, dtype=dtype)
    trained, chain = _check_diffusion(unet, schedule, prediction, residual, loss, levels, sampling)
    if views_dtype not in pixels.STORED:
        raise ValueError(f"views_dtype {views_dtype!r}: known are {list(pixels.STORED)}")

    def init(key, batch):
        x = pixels.to_float(batch["image"])
        return Weights(unet.init(key, x, x, jnp.ones(x.shape[0]))["params"], {})

    def apply(params, condition, y, level_B, **kwargs):
        out = unet.apply({"params": params}, condition, y, level_B, **kwargs)
        return condition + out if residual else out

    def loss_of(weights, batch, key):
        y0, condition = (pixels.to_float(batch[k]) for k in ("reference", "image"))
        names = ("step", "level", "eps")
        keys = {name: rng.per_image(rng.stream_of(key, name), batch["draw"]) for name in names}
        count = y0.shape[0]
        # One step for the whole batch must be the same on every device: no image's number in it.
        shared = jax.random.randint(rng.stream_of(key, "step"), (), 1, len(trained) + 1)
        own_B = 1 + jnp.floor(rng.uniform(keys["step"]) * len(trained)).astype(jnp.int32)
        step_B = jnp.full(count, shared) if levels == "per_batch" else own_B
        level_B = chains.continuous_level(trained, step_B, rng.uniform(keys["level"]))
        eps = rng.normal(keys["eps"], y0.shape[1:])
        y = chains.diffuse(y0, eps, level_B)
        dropout = {"dropout": rng.dropout(key, batch)}
        out = apply(weights.params, condition, y, level_B, train=True, rngs=dropout)
        error = out - chains.target(prediction, y0, eps, level_B)
        return jnp.mean(losses.LOSSES[loss](error), axis=(1, 2, 3)), weights.stats

    def views(weights, batch):
        image = pixels.to_float(batch["image"])
        h, w = image.shape[1:3]
        condition = _pad(image, unet.multiple)
        key_B = rng.per_image(rng.stream(seed, "views"), batch["content"])
        noise = lambda t: rng.normal(
            jax.vmap(jax.random.fold_in, (0, None))(key_B, t), condition.shape[1:]
        )
        y0, kept_BKHWC = chains.sample(
            partial(apply, weights.params, condition),
            chain,
            noise(len(chain)),
            noise,
            keep=tuple(sampling["keep"]),
            sampler=sampling["sampler"],
            prediction=prediction,
            clip=sampling["clip"],
        )
        made = jnp.concatenate([y0[:, None], kept_BKHWC], axis=1)[:, :, :h, :w]
        made = pixels.to_float(pixels.store(made, views_dtype))
        return Views(jnp.concatenate([image[:, None], made], axis=1))

    return Restorer(init, loss_of, views)


def _check_diffusion(unet, schedule, prediction, residual, loss, levels, sampling):
    unet.check()
    if levels not in ("per_batch", "per_image"):
        raise ValueError(f"levels {levels!r}: known are ['per_batch', 'per_image']")
    if loss not in losses.LOSSES:
        raise ValueError(f"loss {loss!r}: known are {sorted(losses.LOSSES)}")
    if residual and prediction != "x0":
        raise ValueError(f"residual with prediction {prediction!r}: only 'x0' can be a residual")
    needed = {"steps", "spacing", "sampler", "keep", "clip"}
    if set(sampling) != needed:
        raise ValueError(f"sampling {sorted(sampling)}: must have exactly {sorted(needed)}")
    trained = schedules.make(**schedule)
    chain = schedules.spaced(schedule, sampling["steps"], sampling["spacing"])
    chosen = {k: sampling[k] for k in ("keep", "sampler")}
    chains.check(steps=len(chain), prediction=prediction, **chosen)
    return trained, chain


def _pad(image_BHWC: jax.Array, multiple: int) -> jax.Array:
    """Extends the right and lower sides to a multiple, by reflection where it reaches."""
    sides = image_BHWC.shape[1:3]
    short = [-side % multiple for side in sides]
    mode = "reflect" if all(n < s for n, s in zip(short, sides, strict=True)) else "edge"
    return jnp.pad(image_BHWC, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)), mode=mode)


def none() -> Restorer:
    """No restoration: the distorted image is the only view (MANIQA)."""

    def loss(weights, batch, key):
        raise ValueError("restorer kind 'none' has nothing to train")

    views = lambda weights, batch: Views(pixels.to_float(batch["image"])[:, None])
    return Restorer(lambda key, batch: Weights({}, {}), loss, views)


def cached(inner: Restorer) -> Restorer:
    """Takes the views from the batch where it carries them, else makes them."""

    def views(weights, batch):
        if "views" not in batch:
            return inner.views(weights, batch)
        image = pixels.to_float(batch["image"])[:, None]
        return Views(jnp.concatenate([image, pixels.to_float(batch["views"])], axis=1))

    return inner._replace(views=views)


RESTORERS = {"diffusion": diffusion, "none": none}


def make(kind: str, **settings) -> Restorer:
    """The restorer of this kind with its settings."""
    if kind not in RESTORERS:
        raise ValueError(f"restorer kind {kind!r}: known are {sorted(RESTORERS)}")
    return RESTORERS[kind](**settings)
