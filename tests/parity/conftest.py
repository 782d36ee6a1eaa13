import jax
import pytest


@pytest.fixture(autouse=True)
def full_size_nets():
    """In full precision: TF32 products break a tolerance of 1e-4. Optimised: they run for long."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    with jax.default_matmul_precision("highest"):
        yield
    jax.config.update("jax_disable_most_optimizations", before)
