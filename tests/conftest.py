"""JAX for every test: four simulated devices, no silent broadcasting, compilations kept."""

import os
import pathlib

# Before JAX is imported anywhere: it reads both when it starts its backend.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tiny nets run in no time and compile for seconds.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "diffv2iqa_jax-tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_configure(config):
    # Two runs at a time may meet in the cache; a lost entry is compiled again.
    for verb in ("reading", "writing"):
        config.addinivalue_line("filterwarnings", f"ignore:Error {verb} persistent compilation")
