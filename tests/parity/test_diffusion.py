"""SR3's tables, its reverse chain and its training loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffv2iqa_jax import pixels
from diffv2iqa_jax.diffusion import sampling
from diffv2iqa_jax.diffusion import schedule as schedules
from diffv2iqa_jax.tasks import losses
from diffv2iqa_jax.weights import published
from tests.parity.golden import Golden, close, near, to_nchw, to_nhwc

RANGES = {"cfg": (1e-6, 1e-2), "def": (1e-4, 2e-2)}


@pytest.fixture(scope="module")
def net():
    """(condition, state, level) -> eps, of the converted small U-Net; images are (B, C, H, W)."""
    hints = {"groups": 8, "image_size": 32}
    weights, card, _ = published.convert("sr3", Golden("sr3_unet_small").tensors(), **hints)
    apply = jax.jit(published.module(card).apply)
    return lambda *inputs: apply({"params": weights.params}, *inputs)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_schedules(name):
    golden = Golden("sr3_schedules_n2000")
    seen = 0
    for label, (start, end) in RANGES.items():
        tabulated = schedules.make(name, 2000, start, end)
        exact = {"betas_f64": tabulated.beta_T, "sqrt_alphas_cumprod_prev_f64": tabulated.level}
        rounded = {k: x.astype(np.float32) for k, x in schedules.buffers(tabulated).items()}
        for rtol, tables in ((1e-12, exact), (1e-6, rounded)):
            for table, got in tables.items():
                seen += check_table(golden, f"{name}.{label}.{table}", got, rtol)
    assert seen >= 4


def check_table(golden, name: str, got: np.ndarray, rtol: float) -> bool:
    """Compares with the stored table, or with the samples stored of it, if there are any."""
    if name in golden.arrays:
        np.testing.assert_allclose(got, golden[name], rtol=rtol)
    elif f"{name}.samples" in golden.arrays:
        want = golden[f"{name}.samples"]
        at = np.arange(len(want)) * (len(got) - 1) // (len(want) - 1)
        np.testing.assert_allclose(got[at], want, rtol=rtol)
    else:
        return False
    return True


@pytest.mark.parametrize("name", ["sr3_trajectory_T8_strong"])
def test_a_whole_reverse_chain(name, net):
    golden = Golden(name)
    about = golden.about["schedule"]
    start, end = about["linear_start"], about["linear_end"]
    schedule = schedules.make(about["schedule"], about["n_timestep"], start, end)
    steps = len(schedule)
    check_tables(golden, schedule)

    noises, condition = jnp.asarray(np.moveaxis(golden["noises"], 2, -1)), golden.image("cond")
    y0, kept_BKHWC = sampling.sample(
        lambda y, level: net(condition, y, level),
        schedule,
        noises[0],
        lambda t: noises[steps - t],
        keep=tuple(range(steps - 1, 0, -1)),
    )
    states = np.concatenate([np.moveaxis(kept_BKHWC, 1, 0), np.asarray(y0)[None]])
    near(np.moveaxis(states, -1, 2), golden["y"], 1e-4)

    # What the net said of each state on the way.
    before = np.concatenate([noises[:1], states[:-1]])
    for i, y in enumerate(before):
        eps = net(condition, y, jnp.full(len(y), golden["noise_level_fed"][i]))
        close(to_nchw(eps), golden["eps_pred"][i], 1e-4)
        row = {k: v[i] for k, v in sampling.tables(schedule).items()}
        x0 = jnp.clip(sampling.estimate("eps", eps, y, row), -1, 1)
        np.testing.assert_allclose(to_nchw(x0), golden["x_recon_clipped"][i], atol=1e-4)
        mean = row["mean_y0"] * x0 + row["mean_y"] * y
        np.testing.assert_allclose(to_nchw(mean), golden["posterior_mean"][i], atol=1e-4)


def check_tables(golden, schedule):
    np.testing.assert_allclose(schedule.level, golden["sqrt_alphas_cumprod_prev_f64"], rtol=1e-12)
    for buffer, got in schedules.buffers(schedule).items():
        np.testing.assert_allclose(got.astype(np.float32), golden[f"buf.{buffer}"], rtol=1e-6)
    level = sampling.tables(schedule)["level"]
    np.testing.assert_allclose(level, golden["noise_level_fed"], rtol=1e-6)


def test_the_training_loss(net):
    golden = Golden("sr3_train_loss")
    about = golden.about["schedule"]
    start, end = about["linear_start"], about["linear_end"]
    schedule = schedules.make(about["schedule"], about["n_timestep"], start, end)
    hr, sr, eps = (golden.image(n) for n in ("hr", "sr", "noise"))
    step_B = jnp.full(len(hr), int(golden["t"]))
    level_B = sampling.continuous_level(schedule, step_B, jnp.asarray(golden["u"], jnp.float32))
    np.testing.assert_allclose(level_B, golden["continuous_level"][:, 0], rtol=1e-6)

    y = sampling.diffuse(hr, eps, level_B)
    want = to_nhwc(golden["unet_input"])
    np.testing.assert_allclose(np.concatenate([sr, y], axis=-1), want, atol=1e-5)
    out = net(sr, y, level_B)
    close(to_nchw(out), golden["unet_out"], 1e-4)
    error = out - sampling.target("eps", hr, eps, level_B)
    for loss, name in (("l1", "loss_l1_div_bchw"), ("mse", "loss_l2_div_bchw")):
        got = jnp.mean(losses.LOSSES[loss](error))
        near(got, golden[name], 1e-5, relative=True)


def test_images_are_rounded_as_sr3_writes_them():
    golden = Golden("sr3_metrics")
    got = pixels.to_uint8(jnp.asarray(np.moveaxis(golden["tensor"], 0, -1)))
    np.testing.assert_array_equal(got, golden["tensor2img"])
