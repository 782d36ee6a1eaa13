"""Ways to get views of an image: by diffusion, an autoencoder, none at all, or from a cache."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.diffusion import sampling as chains
from diffv2iqa_jax.diffusion import schedule as schedules
from diffv2iqa_jax.models.unet import UNet
from diffv2iqa_jax.models.vcr import Restoration
from diffv2iqa_jax.tasks import losses
from diffv2iqa_jax.types import Batch, Params, Restorer, Views, Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
    """SR3's conditional diffusion, the condition being the distorted image.

    Attributes:
      net: settings of `models.unet.UNet`. With embedding "step" (DDPM) it trains on whole steps;
        when it samples it gets the trained step whose level is nearest.
      conditional: show the net the distorted image; without it y_0 is any image at all.
      schedule: arguments of `diffusion.schedule.make`, for training.
      prediction: what the net puts out: "eps" (SR3), "x0" or "v".
      residual: the net's "x0" is what to add to the distorted image, not the whole image.
      loss: on the net's output, one of `losses.LOSSES` (SR3: "l1").
      levels: draw the training step "per_batch" (SR3) or "per_image".
      sampling: steps, spacing (`schedule.spaced`), sampler, keep, clip (`sampling.sample`).
      views_dtype: dtype that views are rounded to, so cached and recomputed views are equal.
      seed: of the chain's noise; the noise of an image depends on it and on its pixels alone.
      dtype: of the net's computation.
    """

    net: dict
    conditional: bool
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
        _check_choices(self)
        if self.residual and self.prediction != "x0":
            raise ValueError(f"residual with prediction {self.prediction!r}: only 'x0' can be one")
        if self.residual and not self.conditional:
            raise ValueError("residual without conditional: there is no image to add to")
        needed = {"steps", "spacing", "sampler", "keep", "clip"}
        if set(self.sampling) != needed:
            raise ValueError(f"sampling {sorted(self.sampling)}: must be exactly {sorted(needed)}")
        schedules.make(**self.schedule)
        chosen = {k: self.sampling[k] for k in ("keep", "sampler")}
        chains.check(steps=len(self.chain()), prediction=self.prediction, **chosen)

    def init(self, key: jax.Array, batch: Batch) -> Weights:
        x = pixels.to_float(batch["image"])
        condition = x if self.conditional else None
        return Weights(self.unet.init(key, condition, x, jnp.ones(x.shape[0]))["params"], {})

    def apply(
        self, params: Params, image: jax.Array, y: jax.Array, level_B: jax.Array, **kwargs: Any
    ) -> jax.Array:
        """The net's output for states y at these levels; `residual` is added."""
        condition = image if self.conditional else None
        time_B = self._steps(level_B) if self._takes_steps else level_B
        out = self.unet.apply({"params": params}, condition, y, time_B, **kwargs)
        return image + out if self.residual else out

    @property
    def _takes_steps(self) -> bool:
        return self.unet.embedding == "step"

    def _steps(self, level_B: jax.Array) -> jax.Array:
        """The trained steps, from 0, whose levels are nearest to these."""
        level_T = jnp.asarray(schedules.make(**self.schedule).level[1:], jnp.float32)
        return jnp.argmin(jnp.abs(level_T[None] - level_B[:, None]), axis=1)

    def loss_of(self, weights: Weights, batch: Batch, key: jax.Array) -> tuple[jax.Array, Params]:
        y0, condition = (pixels.to_float(batch[k]) for k in ("reference", "image"))

        def keys_of(name: str) -> jax.Array:
            return rng.per_image(rng.stream_of(key, name), batch["draw"])

        trained = schedules.make(**self.schedule)
        if self.levels == "per_batch":  # the same on every device: no image's number in it
            step = jax.random.randint(rng.stream_of(key, "step"), (), 1, len(trained) + 1)
            step_B = jnp.full(y0.shape[0], step)
        else:
            share_B = rng.uniform(keys_of("step"))
            step_B = 1 + jnp.floor(share_B * len(trained)).astype(jnp.int32)
        between_B = jnp.ones(len(y0)) if self._takes_steps else rng.uniform(keys_of("level"))
        level_B = chains.continuous_level(trained, step_B, between_B)
        eps = rng.normal(keys_of("eps"), y0.shape[1:])
        y = chains.diffuse(y0, eps, level_B)
        drop_key_B = keys_of("dropout")
        out = self.apply(weights.params, condition, y, level_B, drop_key_B=drop_key_B)
        error = out - chains.target(self.prediction, y0, eps, level_B)
        return jnp.mean(losses.LOSSES[self.loss](error), axis=(1, 2, 3)), weights.stats

    def views(self, weights: Weights, batch: Batch) -> Views:
        image = pixels.to_float(batch["image"])
        h, w = image.shape[1:3]
        condition = _pad(image, self.unet.multiple)
        chain = self.chain()
        noise = _noise(self.seed, batch["content"], condition.shape[1:])
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
        restored = jnp.concatenate([y0[:, None], kept_BKHWC], axis=1)[:, :, :h, :w]
        return _views(image, restored, self.views_dtype)


CHOICES = {
    "loss": tuple(losses.LOSSES),
    "levels": ("per_batch", "per_image"),
    "prediction": chains.PREDICTIONS,
    "views_dtype": pixels.STORED,
}


def _check_choices(settings: "Diffusion | Autoencoder") -> None:
    """Refuses a setting whose value is none of CHOICES; a kind need not have all of them."""
    for name, known in CHOICES.items():
        value = getattr(settings, name, known[0])
        if value not in known:
            raise ValueError(f"{name} {value!r}: known are {list(known)}")


def _noise(seed: int, content_B: jax.Array, shape: tuple[int, ...]) -> Callable:
    """Number -> standard normal noise (B, *shape), a function of the seed and each content."""
    key_B = rng.per_image(rng.stream(seed, "views"), content_B)
    return lambda number: rng.normal(rng.within(key_B, number), shape)


def _views(image_BHWC: jax.Array, restored_BVHWC: jax.Array, dtype: str) -> Views:
    """The image, then its other views, rounded as they are stored."""
    rounded = pixels.to_float(pixels.store(restored_BVHWC, dtype))
    return Views(jnp.concatenate([image_BHWC[:, None], rounded], axis=1))


def _pad(image_BHWC: jax.Array, multiple: int) -> jax.Array:
    """Extends the right and lower sides to a multiple, by reflection where it reaches."""
    sides = image_BHWC.shape[1:3]
    short = [-side % multiple for side in sides]
    mode = "reflect" if all(n < s for n, s in zip(short, sides, strict=True)) else "edge"
    return jnp.pad(image_BHWC, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)), mode=mode)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """VCRNet's restoration: one pass, no chain. Its noisy states are y_0 with noise added.

    Attributes:
      net: settings of `models.vcr.Restoration`.
      loss: between the restored image and its reference, in [-1, 1], one of `losses.LOSSES`.
      noise: standard deviations in (0, 1) of the noise in each kept state, as a chain's state
        sqrt(1 - s^2) y_0 + s eps would carry it; () keeps none.
      views_dtype, seed, dtype: as in `Diffusion`.
    """

    net: dict
    loss: str
    noise: tuple[float, ...]
    views_dtype: str
    seed: int
    dtype: str

    @property
    def restoration(self) -> Restoration:
        return Restoration(**self.net, dtype=self.dtype)

    def check(self) -> None:
        _check_choices(self)
        if not all(0 < s < 1 for s in self.noise):
            raise ValueError(f"noise {tuple(self.noise)}: deviations must lie between 0 and 1")

    def init(self, key: jax.Array, batch: Batch) -> Weights:
        variables = self.restoration.init(key, _pad(pixels.to_float(batch["image"]), 16))
        return Weights(variables["params"], variables["batch_stats"])

    def restore(
        self, weights: Weights, image: jax.Array, **kwargs: Any
    ) -> tuple[jax.Array, Params]:
        """Restored image, and what changed of the statistics where they are mutable."""
        h, w = image.shape[1:3]
        x = pixels.normalise(_pad(image, 16), "imagenet")
        variables = {"params": weights.params, "batch_stats": weights.stats}
        out = self.restoration.apply(variables, x, **kwargs)
        (restored, _), changed = out if "mutable" in kwargs else (out, {})
        return pixels.denormalise(restored[:, :h, :w], "imagenet"), changed

    def loss_of(self, weights: Weights, batch: Batch, key: jax.Array) -> tuple[jax.Array, Params]:
        y0, image = (pixels.to_float(batch[k]) for k in ("reference", "image"))
        out, changed = self.restore(weights, image, train=True, mutable=["batch_stats"])
        error = losses.LOSSES[self.loss](out - y0)
        return jnp.mean(error, axis=(1, 2, 3)), changed.get("batch_stats", weights.stats)

    def views(self, weights: Weights, batch: Batch) -> Views:
        image = pixels.to_float(batch["image"])
        y0 = jnp.clip(self.restore(weights, image)[0], -1.0, 1.0)
        noise = _noise(self.seed, batch["content"], y0.shape[1:])
        restored = [y0]
        for place, deviation in enumerate(self.noise):
            level_B = jnp.full(len(y0), (1 - deviation**2) ** 0.5)
            restored.append(chains.diffuse(y0, noise(place), level_B))
        return _views(image, jnp.stack(restored, axis=1), self.views_dtype)


def none() -> Restorer:
    """No restoration: the distorted image is the only view (MANIQA)."""

    def init(key: jax.Array, batch: Batch) -> Weights:
        return Weights({}, {})

    def loss(weights: Weights, batch: Batch, key: jax.Array) -> tuple[jax.Array, Params]:
        raise ValueError("restorer kind 'none' has nothing to train")

    def views(weights: Weights, batch: Batch) -> Views:
        return Views(pixels.to_float(batch["image"])[:, None])

    return Restorer(init, loss, views)


def cached(inner: Restorer) -> Restorer:
    """Takes the views from a batch that carries them; makes the others."""

    def views(weights: Weights, batch: Batch) -> Views:
        if "views" not in batch:
            return inner.views(weights, batch)
        image = pixels.to_float(batch["image"])[:, None]
        return Views(jnp.concatenate([image, pixels.to_float(batch["views"])], axis=1))

    return inner._replace(views=views)


FIELDS = {"diffusion": Diffusion, "autoencoder": Autoencoder}  # the kinds with settings


def _checked(kind: str, **settings: Any) -> Restorer:
    restorer = FIELDS[kind](**settings)
    restorer.check()
    return Restorer(restorer.init, restorer.loss_of, restorer.views)


RESTORERS = {**{kind: partial(_checked, kind) for kind in FIELDS}, "none": none}


def count(kind: str, **settings: Any) -> int:
    """How many views of an image there are, the image itself among them."""
    if kind == "none":
        return 1
    return 2 + len(settings["sampling"]["keep"] if kind == "diffusion" else settings["noise"])


def make(kind: str, **settings: Any) -> Restorer:
    """The restorer of this kind with its settings."""
    if kind not in RESTORERS:
        raise ValueError(f"restorer kind {kind!r}: known are {sorted(RESTORERS)}")
    return RESTORERS[kind](**settings)
