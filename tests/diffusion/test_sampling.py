from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax.diffusion import sampling, schedule
from tests import tiny, traces

SHAPE = (2, 8, 8, 3)
both = pytest.mark.parametrize("sampler", sampling.SAMPLERS)
every = pytest.mark.parametrize("prediction", sampling.PREDICTIONS)


def oracle(y0_BHWC, prediction="eps"):
    """A net that knows the answer."""

    def net(y_BHWC, level_B):
        a = level_B[:, None, None, None]
        eps_BHWC = (y_BHWC - a * y0_BHWC) / jnp.sqrt(1 - a**2)
        return sampling.target(prediction, y0_BHWC, eps_BHWC, level_B)

    return net


def noise(t, shape=SHAPE, seed=1):
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), t), shape)


@partial(jax.jit, static_argnames=("steps", "keep", "sampler", "prediction", "clip"))
def restore(y0_BHWC, *, steps, keep=(), sampler="ddpm", prediction="eps", clip=True):
    draw = partial(noise, shape=y0_BHWC.shape)
    return sampling.sample(
        oracle(y0_BHWC, prediction),
        schedule.make("cosine", steps),
        draw(steps),
        draw,
        keep=keep,
        sampler=sampler,
        prediction=prediction,
        clip=clip,
    )


@pytest.mark.parametrize("steps", [1, 2, 50])
@every
@both
def test_a_perfect_denoiser_restores_the_image(sampler, prediction, steps):
    y0 = 0.9 * tiny.images(0, *SHAPE)
    restored, kept = restore(y0, steps=steps, sampler=sampler, prediction=prediction)
    np.testing.assert_allclose(restored, y0, atol=1e-4)
    assert kept.shape == (2, 0, 8, 8, 3)


@both
def test_kept_states_carry_the_noise_of_the_step_below(sampler):
    keep = (1, 5, 10, 20)
    _, kept = restore(jnp.zeros((4, 64, 64, 3)), steps=25, keep=keep, sampler=sampler)
    level = schedule.make("cosine", 25).level[list(keep)]
    np.testing.assert_allclose(kept.std(axis=(0, 2, 3, 4)), np.sqrt(1 - level**2), rtol=0.02)


@both
def test_kept_states_come_in_the_order_asked_for_and_change_nothing(sampler):
    y0 = 0.9 * tiny.images(0, *SHAPE)
    some = partial(restore, y0, steps=5, sampler=sampler)
    restored, rising = some(keep=(1, 3))
    _, falling = some(keep=(3, 1))
    np.testing.assert_array_equal(rising, falling[:, ::-1])
    np.testing.assert_array_equal(restored, some()[0])
    assert np.std(rising[:, 1] - y0) > np.std(rising[:, 0] - y0) > 0.01


def test_the_chain_is_never_stored():
    steps = 7

    def chain(y0, keep):
        return restore(y0, steps=steps, keep=keep)

    state = int(np.prod(SHAPE))
    assert max(traces.sizes(partial(chain, keep=()), jnp.zeros(SHAPE))) == state
    kept = traces.sizes(partial(chain, keep=(1, 2, 4)), jnp.zeros(SHAPE))
    assert max(kept) == 3 * state < steps * state


def test_the_noise_of_ddpm_is_that_of_its_step_and_none_at_the_last():
    cosine, y0 = schedule.make("cosine", 4), jnp.zeros(SHAPE)
    noises = [jnp.full(SHAPE, x) for x in (1e12, 10.0, 100.0, 1000.0)]

    def run(keep):
        return sampling.sample(
            lambda y, level: jnp.zeros_like(y),
            cosine,
            y0,
            lambda t: jnp.stack(noises)[t],
            keep=keep,
            prediction="x0",
        )

    restored, kept = run((1, 2, 3))
    b = schedule.buffers(cosine)
    std, onward = np.sqrt(b["posterior_variance"]), b["posterior_mean_coef2"]
    y, want = 0.0, {}
    for t in (3, 2, 1):  # a net that sees a grey image: only noise is passed on
        y = onward[t] * y + std[t] * 10.0**t
        want[t] = y
    np.testing.assert_allclose(kept[0, :, 0, 0, 0], [want[t] for t in (1, 2, 3)], rtol=1e-5)
    np.testing.assert_allclose(restored, onward[0] * y * np.ones(SHAPE), rtol=1e-5, atol=1e-7)


def test_ddim_is_a_function_of_its_start():
    args = (oracle(jnp.zeros(SHAPE)), schedule.make("cosine", 4), noise(9))
    one, two = (
        sampling.sample(*args, partial(noise, seed=s), keep=(1,), sampler="ddim") for s in (1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)


def ddim_by_hand(net, cosine, y, prediction, rederived):
    """Song et al. 2021, eq. 12 with sigma 0, in float64; `rederived`: eps of the clipped y_0."""
    a = np.cumprod(1 - schedule.buffers(cosine)["betas"])
    for t in range(len(a) - 1, -1, -1):
        level, spread = np.sqrt(a[t]), np.sqrt(1 - a[t])
        out = net(y, level)
        y0, eps = {
            "eps": ((y - spread * out) / level, out),
            "x0": (out, (y - level * out) / spread),
            "v": (level * y - spread * out, level * out + spread * y),
        }[prediction]
        y0 = np.clip(y0, -1, 1)
        eps = (y - level * y0) / spread if rederived else eps
        before = a[t - 1] if t else 1.0
        y = np.sqrt(before) * y0 + np.sqrt(1 - before) * eps
    return y


@every
def test_ddim_goes_on_with_the_noise_of_the_clipped_estimate_or_with_the_nets(prediction):
    """Both choices of diffusers, use_clipped_model_output True and False, where much is clipped."""
    wave, start = np.linspace(-2, 2, int(np.prod(SHAPE))).reshape(SHAPE), np.asarray(noise(3))
    cosine, got = schedule.make("cosine", 8), {}
    for sampler in ("ddim", "ddim_net_eps"):
        got[sampler], _ = sampling.sample(
            lambda y, level_B: 0.4 * jnp.sin(3 * y) + jnp.asarray(wave, jnp.float32),
            *(cosine, jnp.asarray(start), noise),
            sampler=sampler,
            prediction=prediction,
        )
        want = ddim_by_hand(
            lambda y, level: 0.4 * np.sin(3 * y) + wave,
            *(cosine, start.astype(np.float64), prediction, sampler == "ddim"),
        )
        np.testing.assert_allclose(got[sampler], want, atol=1e-4)
    assert np.abs(got["ddim"] - got["ddim_net_eps"]).max() > 0.05


def test_estimates_are_clipped_only_if_asked():
    y0 = 3 * tiny.images(0, *SHAPE)
    np.testing.assert_allclose(restore(y0, steps=5, clip=False)[0], y0, atol=1e-4)
    np.testing.assert_allclose(restore(y0, steps=5)[0], np.clip(y0, -1, 1), atol=1e-6)


@every
def test_the_target_of_a_noisy_image_leads_back_to_the_image(prediction):
    cosine = schedule.make("cosine", 6)
    y0, eps = tiny.images(0, *SHAPE), noise(0)
    rows = sampling.tables(cosine)
    for i, t in enumerate(reversed(range(6))):
        level_B = jnp.full(SHAPE[0], cosine.level[t + 1])
        y = sampling.diffuse(y0, eps, level_B)
        out = sampling.target(prediction, y0, eps, level_B)
        row = {name: column[i] for name, column in rows.items()}
        assert row["t"] == t
        # The noisiest of these levels is 0.03: there the image is 1/30 of the state.
        np.testing.assert_allclose(sampling.estimate(prediction, out, y, row), y0, atol=1e-4)


def test_the_continuous_level_lies_between_its_neighbours():
    cosine = schedule.make("cosine", 50)
    step = jnp.arange(1, 51)

    def between(share):
        return np.asarray(sampling.continuous_level(cosine, step, jnp.full(50, share, jnp.float32)))

    np.testing.assert_allclose(between(0.0), cosine.level[:-1], rtol=1e-6)
    assert np.all(between(0.5) < cosine.level[:-1]) and np.all(between(0.5) > cosine.level[1:])
    np.testing.assert_allclose(between(1.0), cosine.level[1:], rtol=1e-5)


def test_diffusing_keeps_the_variance():
    eps, y0 = noise(1, (2, 64, 64, 3)), noise(2, (2, 64, 64, 3))
    y = sampling.diffuse(y0, eps, jnp.array([0.3, 1.0]))
    np.testing.assert_allclose(y[0].std(), 1, rtol=0.02)
    np.testing.assert_array_equal(y[1], y0[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keep": (0,)}, r"keep \(0,\): .*\[1, 4\]"),
        ({"keep": (5,)}, r"keep \(5,\): .*\[1, 4\]"),
        ({"keep": (2, 2)}, "must differ"),
        ({"sampler": "euler"}, r"'euler': known are \['ddpm', 'ddim', 'ddim_net_eps'\]"),
        ({"prediction": "score"}, r"'score': known are \['eps', 'x0', 'v'\]"),
    ],
)
def test_what_no_chain_has_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        restore(jnp.zeros(SHAPE), steps=5, **changed)
