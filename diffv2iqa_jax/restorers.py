"""Ways to get views of an image: by diffusion, none at all, or read from a cache."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from diffv2iqa_jax import losses, pixels, rng
from diffv2iqa_jax.diffusion import sampling as chains
from diffv2iqa_jax.diffusion import schedule as schedules
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.types import Batch, Params, Restorer, Views, Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
    """SR3's conditional diffusion, the condition being the distorted image.

    Attributes:
      net: settings of `models.unet.UNet`.
      schedule: arguments of `diffusion.schedule.make`, for training.
      prediction: what the net puts out: "eps" (SR3), "x0" or "v".
      residual: the net's "x0" is what to add to the distorted image, not the whole image.
      loss: on the net's output, one of `losses.LOSSES` (SR3: "l1").
      levels: draw the training step "per_batch" (SR3) or "per_image".
      sampling: steps, spacing (`schedule.spaced`), sampler, keep, clip (`sampling.sample`).
      views_dtype: what views are rounded to, so that cached ones equal computed ones.
      seed: of the chain's noise; the noise of an image depends on it and on its pixels alone.
      dtype: of the net's computation.
    """

    net: dict
    schedule: dict
    prediction: str
    residual: bool
    loss: str
    levels: str
    sampling: dict
    views_dtype: str
    seed: int
    dtype: str

    @property
    def unet(self) -> UNet:
        return UNet(**self.net, dtype=self.dtype)

    def chain(self) -> schedules.Schedule:
        """The schedule to sample with."""
        steps, spacing = self.sampling["steps"], self.sampling["spacing"]
        return schedules.spaced(self.schedule, steps, spacing)

    def check(self) -> None:
        """Raises ValueError for settings that do not fit together."""
        self.unet.check()
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: known are {list(known)}")
        if self.residual and self.prediction != "x0":
            raise ValueError(f"residual with prediction {self.prediction!r}: only 'x0' can be one")
        needed = {"steps", "spacing", "sampler", "keep", "clip"}
        if set(self.sampling) != needed:
            raise ValueError(f"sampling {sorted(self.sampling)}: must be exactly {sorted(needed)}")
        schedules.make(**self.schedule)
        chosen = {k: self.sampling[k] for k in ("keep", "sampler")}
        chains.check(steps=len(self.chain()), prediction=self.prediction, **chosen)

    def init(self, key: jax.Array, batch: Batch) -> Weights:
        x = pixels.to_float(batch["image"])
        return Weights(self.unet.init(key, x, x, jnp.ones(x.shape[0]))["params"], {})

    def apply(self, params: Params, condition, y, level_B, **kwargs) -> jax.Array:
        out = self.unet.apply({"params": params}, condition, y, level_B, **kwargs)
        return condition + out if self.residual else out

    def loss_of(self, weights: Weights, batch: Batch, key: jax.Array):
        y0, condition = (pixels.to_float(batch[k]) for k in ("reference", "image"))
        keys_of = lambda name: rng.per_image(rng.stream_of(key, name), batch["draw"])
        trained = schedules.make(**self.schedule)
        if self.levels == "per_batch":  # the same on every device: no image's number in it
            step = jax.random.randint(rng.stream_of(key, "step"), (), 1, len(trained) + 1)
            step_B = jnp.full(y0.shape[0], step)
        else:
            share_B = rng.uniform(keys_of("step"))
            step_B = 1 + jnp.floor(share_B * len(trained)).astype(jnp.int32)
        level_B = chains.continuous_level(trained, step_B, rng.uniform(keys_of("level")))
        eps = rng.normal(keys_of("eps"), y0.shape[1:])
        y = chains.diffuse(y0, eps, level_B)
        dropout = {"dropout": rng.dropout(key, batch)}
        out = self.apply(weights.params, condition, y, level_B, train=True, rngs=dropout)
        error = out - chains.target(self.prediction, y0, eps, level_B)
        return jnp.mean(losses.LOSSES[self.loss](error), axis=(1, 2, 3)), weights.stats

    def views(self, weights: Weights, batch: Batch) -> Views:
        image = pixels.to_float(batch["image"])
        h, w = image.shape[1:3]
        condition = _pad(image, self.unet.multiple)
        chain = self.chain()
        key_B = rng.per_image(rng.stream(self.seed, "views"), batch["content"])
        keys_at = lambda t: jax.vmap(jax.random.fold_in, (0, None))(key_B, t)
        noise = lambda t: rng.normal(keys_at(t), condition.shape[1:])
        y0, kept_BKHWC = chains.sample(
            partial(self.apply, weights.params, condition),
            chain,
            noise(len(chain)),
            noise,
            keep=tuple(self.sampling["keep"]),
            sampler=self.sampling["sampler"],
            prediction=self.prediction,
            clip=self.sampling["clip"],
        )
        made = jnp.concatenate([y0[:, None], kept_BKHWC], axis=1)[:, :, :h, :w]
        made = pixels.to_float(pixels.store(made, self.views_dtype))
        return Views(jnp.concatenate([image[:, None], made], axis=1))


CHOICES = {
    "loss": tuple(losses.LOSSES),
    "levels": ("per_batch", "per_image"),
    "prediction": chains.PREDICTIONS,
    "views_dtype": pixels.STORED,
}


def diffusion(**settings) -> Restorer:
    """The restorer of these settings (see `Diffusion`), checked."""
    made = Diffusion(**settings)
    made.check()
    return Restorer(made.init, made.loss_of, made.views)


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
