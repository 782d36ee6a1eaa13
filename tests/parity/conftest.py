import jax
import pytest

from tests.parity import golden


@pytest.fixture(autouse=True)
def full_size_nets():
    """In full precision: TF32 products break a tolerance of 1e-4. Optimised: they run for long."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    with jax.default_matmul_precision("highest"):
        yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True)
def say_how_close(request):
    """With -s: the largest error of each test beside what is allowed."""
    yield
    for test, (error, use) in golden.MEASURED.items():
        print(f"\n{test.rpartition('/')[2]}: error {error:.1e}, allowed {use:.0e}")
    golden.MEASURED.clear()
