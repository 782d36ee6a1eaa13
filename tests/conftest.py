"""JAX for every test: four simulated devices, no silent broadcasting, compilations kept."""

import fcntl
import json
import os
import pathlib
import shutil

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
    # Where one array of a checkpoint cannot be read, Orbax closes its event loop without cancelling
    # its reads of the others (asyncio_utils.run_sync in 0.11: asyncio.run, which would, is not safe
    # among threads). They end in TensorStore's threads, at any time, and find no loop.
    r"ignore:(?s).*(<coroutine object _read|Event loop is closed):"
    "pytest.PytestUnraisableExceptionWarning",
)


# The slowest files first, so that no process is left alone with one at the end. pytest-xdist would
# begin with the files of most tests instead, but for its option in pyproject.toml.
FIRST = ("test_processes", "test_slurm", "test_run", "test_main", "test_configs")
FIRST += ("test_pristine_run", "test_initialize", "test_memory")
FIRST += ("test_bfloat16", "test_release", "test_export", "test_scorer", "test_score", "test_bench")
FIRST += ("test_stages", "test_kadid", "test_real_weights", "test_predictor", "test_maniqa")


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(FIRST)))
    for item in items:
        for line in EXCUSED:
            item.add_marker(pytest.mark.filterwarnings(line))


def once(factory, name: str, make):
    """The path that one process of this test run makes something at, and all of them use."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, done = base / name, base / f"{name}.done"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            done.touch()
    return path


@pytest.fixture(scope="session")
def tiny(data):
    """That data set, opened: 96 pictures of 32x32 pixels, 6 references, 16 types."""
    from diffv2iqa_jax.data import reading

    return reading.load("builtin/tiny", str(data))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The folder of the tiny built-in data set."""
    from diffv2iqa_jax.data.sets import registry

    return once(tmp_path_factory, "built", lambda path: registry.prepare("builtin/tiny", str(path)))


@pytest.fixture(scope="session")
def restored(data, tmp_path_factory):
    """A finished stage-1 run."""
    from tests import runs

    def make(work):
        runs.run(runs.stage1(data), work, report=True)

    return once(tmp_path_factory, "stage1", make)


@pytest.fixture(scope="session")
def quality_run(data, restored, tmp_path_factory):
    """A finished stage-2 run on it."""
    from tests import runs

    def make(work):
        runs.run(runs.stage2(data, restored), work, report=True)

    return once(tmp_path_factory, "stage2", make)


@pytest.fixture(scope="session")
def by_crops(data, restored, quality_run, tmp_path_factory):
    """That run as if its restorer had seen each crop by itself, and evaluated so."""
    from diffv2iqa_jax import config
    from tests import runs

    def make(work):
        shutil.copytree(quality_run, work, ignore=shutil.ignore_patterns("views", "results.json"))
        changed = runs.stage2(data, restored, **{"restorer.cached": False})
        config.write_json(str(work / "config.json"), changed)
        for path in work.glob("checkpoints/*/meta/metadata"):
            meta = json.loads(path.read_text())
            assert meta["config"]["restorer_from"]["cached"] is True
            meta["config"]["restorer_from"]["cached"] = False
            path.write_text(json.dumps(meta))
        runs.run(changed, str(work), mode="evaluate")

    return once(tmp_path_factory, "crops", make)


@pytest.fixture(scope="session")
def loaded_by_crops(by_crops):
    """A scorer of that run."""
    from diffv2iqa_jax.scoring import scorer

    return scorer.load(by_crops, jit_cache=None)


@pytest.fixture(scope="session")
def packed(by_crops, tmp_path_factory):
    """That run's weights in one file, which a process of its own loads fastest."""
    from diffv2iqa_jax.scoring import predictor

    path = tmp_path_factory.mktemp("packed") / "tiny.safetensors"
    predictor.pack(predictor.load(str(by_crops)), str(path))
    return path


@pytest.fixture(scope="session")
def apart():
    """Environment of a process that compiles as the tests do."""
    compiling = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    return os.environ | compiling
