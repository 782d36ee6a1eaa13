import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffv2iqa_jax.training import optim, state

PARAMS = {"w": jnp.array([1.0, -2.0])}
GRADS = {"w": jnp.array([0.5, 0.5])}
SETTINGS = {"lr": 0.1, "schedule": "constant", "period": 0, "warmup": 0, "steps": 10}


def step(name, *, grads=GRADS, weight_decay=0.0, clip=None):
    tx, _ = optim.make(name=name, weight_decay=weight_decay, clip=clip, **SETTINGS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    return np.asarray(optax.apply_updates(PARAMS, updates)["w"])


def rates(**changes):
    rate = optim.learning_rate(**SETTINGS | changes)
    return np.array([rate(jnp.int32(i)) for i in range(11)])


def test_a_constant_rate_stays():
    np.testing.assert_allclose(rates(), 0.1, rtol=1e-6)


def test_a_cosine_falls_to_zero_over_the_run():
    want = 0.05 * (1 + np.cos(np.pi * np.arange(11) / 10))
    np.testing.assert_allclose(rates(schedule="cosine"), want, atol=1e-8)


def test_a_wave_comes_back_to_the_full_rate_every_period():
    """MANIQA's: cosine annealing over 50 steps that goes on, where one step was meant an epoch."""
    want = 0.05 * (1 + np.cos(np.pi * np.arange(11) / 2))
    np.testing.assert_allclose(rates(schedule="wave", period=4), want, atol=1e-7)


def test_stairs_fall_to_a_tenth_every_period():
    want = [0.1] * 4 + [0.01] * 4 + [0.001] * 3
    np.testing.assert_allclose(rates(schedule="stairs", period=4), want, rtol=1e-5)


def test_a_warm_up_rises_linearly_and_leaves_the_rest_to_the_schedule():
    want = np.concatenate([0.025 * np.arange(4), 0.05 * (1 + np.cos(np.pi * np.arange(7) / 6))])
    np.testing.assert_allclose(rates(schedule="cosine", warmup=4), want, atol=1e-8)
    np.testing.assert_allclose(rates(warmup=10)[[0, 5, 10]], [0, 0.05, 0.1], atol=1e-8)


def test_sgd_is_the_gradient_and_coupled_l2_adds_the_weights_to_it():
    np.testing.assert_allclose(step("sgd"), [0.95, -2.05], rtol=1e-6)
    np.testing.assert_allclose(step("sgd", weight_decay=0.1), [0.94, -2.03], rtol=1e-6)


def test_adams_decay_enters_the_moments_and_adamws_does_not():
    """Adam's first step is lr * sign(gradient): a decay that enters it shows in the sign alone."""
    np.testing.assert_allclose(step("adam"), [0.9, -2.1], atol=1e-5)
    np.testing.assert_allclose(step("adam", weight_decay=1.0), [0.9, -1.9], atol=1e-5)
    np.testing.assert_allclose(step("adamw", weight_decay=1.0), [0.8, -1.9], atol=1e-5)


def test_clipping_bounds_the_norm_of_the_gradient():
    moved = step("sgd", grads={"w": jnp.array([30.0, 40.0])}, clip=1.0) - PARAMS["w"]
    np.testing.assert_allclose(moved, [-0.06, -0.08], rtol=1e-5)
    np.testing.assert_allclose(step("sgd", clip=1.0), step("sgd"), rtol=1e-6)


def test_parameters_with_a_rate_of_their_own_move_that_much_further():
    params = {name: jnp.array([1.0]) for name in ("net/a/w", "net/b/w", "net/c/w")}
    grads = {name: jnp.array([0.5]) for name in params}
    settings = {"name": "adam", "weight_decay": 0.0, "clip": 0.0, **SETTINGS}
    tx, _ = optim.make(**settings, rates=(("/a/", 5.0), ("/(a|b)/", 0.1)))
    updates, _ = tx.update(grads, tx.init(params), params)
    moved = [float(updates[name][0]) for name in params]
    np.testing.assert_allclose(moved, [-0.5, -0.01, -0.1], rtol=1e-4)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((("/a/", 2.0), ("/x/", 2.0)), r"rates '/x/': matches nothing trained; .* \['net'\]"),
        ((("/a/", 0.0),), "rates '/a/': 0.0 must be above 0"),
    ],
)
def test_rates_of_nothing_and_of_zero_are_refused(rates, message):
    state.check_rates((("/a/", 2.0),), ["net/a/w"])
    with pytest.raises(ValueError, match=message):
        state.check_rates(rates, ["net/a/w"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "lion"}, "optim.name 'lion': known are .*adamw"),
        ({"schedule": "step"}, "optim.schedule 'step': known are .*cosine"),
        ({"schedule": "wave"}, "optim.period 0: 'wave' and 'stairs' need one"),
        ({"period": 5}, "optim.period 5: .* others take 0"),
        ({"warmup": 11}, r"optim.warmup 11: must lie in \[0, 10\]"),
        ({"warmup": -1}, "optim.warmup -1"),
    ],
)
def test_unknown_names_and_too_long_a_warm_up_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        optim.make(**{"name": "sgd", "weight_decay": 0.0, "clip": None, **SETTINGS, **changes})
