import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffv2iqa_jax.training.state import TrainState, merge, partition
from diffv2iqa_jax.types import Weights

PARAMS = {"body": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "head": {"bias": jnp.ones(1)}}
NAMES = {"body/kernel", "body/bias", "head/bias"}


@pytest.mark.parametrize(
    ("frozen", "held"),
    [("", set()), ("^body", {"body/kernel", "body/bias"}), ("bias$", {"body/bias", "head/bias"})],
)
def test_a_partition_loses_nothing(frozen, held):
    trainable, fixed = partition(PARAMS, frozen)
    assert set(fixed) == held and set(trainable) == NAMES - held
    jax.tree.map(np.testing.assert_array_equal, merge(trainable, fixed), PARAMS)


@pytest.mark.parametrize(("frozen", "matched"), [("vit", 0), (".", 3)])
def test_freezing_nothing_or_everything_is_refused(frozen, matched):
    with pytest.raises(ValueError, match=rf"matches {matched} of 3 .*body"):
        partition(PARAMS, frozen)


def test_frozen_parameters_have_no_optimiser_state_and_no_average():
    state = TrainState.create(Weights(PARAMS, {}), optax.adam(1e-3), "body")
    assert set(state.trainable) == set(state.average) == {"head/bias"}
    moments = state.opt_state[0]
    assert set(moments.mu) == set(moments.nu) == {"head/bias"}
    assert state.step == 0 and state.step.dtype == jnp.int32


def test_what_predicts_is_the_average():
    state = TrainState.create(Weights(PARAMS, {"s": jnp.ones(1)}), optax.sgd(1e-3), "body")
    state = state.replace(trainable={"head/bias": jnp.zeros(1)})
    jax.tree.map(np.testing.assert_array_equal, state.weights().params, PARAMS)
    assert set(state.weights().stats) == {"s"}
