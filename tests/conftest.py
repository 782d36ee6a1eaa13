"""JAX for every test: four simulated devices, no silent broadcasting, compilations kept."""

import os
import pathlib

# Before JAX is imported anywhere: it reads both when it starts its backend.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tiny nets run in no time and compile for seconds.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "diffv2iqa_jax-tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


# Marks count for more than -W error on the command line; lines of an ini file count for less.
EXCUSED = (
    # Two runs at a time may meet in the cache; a lost entry is compiled again.
    "ignore:Error (reading|writing) persistent compilation",
    # Where one array of a checkpoint cannot be read, Orbax leaves its reads of the others behind.
    "ignore:.*<coroutine object _read:pytest.PytestUnraisableExceptionWarning",
)


# The longest files, so that no process is left alone with one at the end.
FIRST = ("test_train", "test_main", "test_configs")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in FIRST)
    for item in items:
        for line in EXCUSED:
            item.add_marker(pytest.mark.filterwarnings(line))
