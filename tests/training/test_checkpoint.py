"""Checkpoints: what is read back is what was written, or it is not used."""

import gc
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffv2iqa_jax.training import checkpoint
from diffv2iqa_jax.training.checkpoint import Checkpoints, checksums
from diffv2iqa_jax.training.state import TrainState
from diffv2iqa_jax.types import Weights

TX = optax.adam(1e-3)


def state(step: int) -> TrainState:
    """A state with a frozen part, statistics, and numbers that tell its step."""
    params = {
        "body": {"kernel": jnp.arange(600.0).reshape(20, 30) * step, "bias": jnp.ones(3)},
        "frozen": {"kernel": jnp.full((4, 4), 7.0)},
    }
    created = TrainState.create(
        Weights(params, {"bn": {"mean": jnp.ones(2) * step}}), TX, "^frozen"
    )
    return created.replace(step=jnp.asarray(step, jnp.int32))


def save(folder, *steps: int) -> None:
    checkpoints = Checkpoints(str(folder), keep=5)
    for step in steps:
        checkpoints.save(state(step), {"seed": step})
    checkpoints.close()


def restore(folder) -> TrainState | None:
    return Checkpoints(str(folder)).restore(state(0), "^frozen")


def same(a, b) -> bool:
    equal = jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)
    return all(jax.tree.leaves(equal))


def data_files(folder: pathlib.Path) -> list[pathlib.Path]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d"]
    return sorted(files, key=lambda p: p.stat().st_size)


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path, 1, 2)
    assert same(restore(tmp_path), state(2))
    weights, step = Checkpoints(str(tmp_path)).weights(state(0).weights())
    assert step == 2 and same(weights, state(2).weights())
    assert Checkpoints(str(tmp_path)).config() == {"seed": 2}


@pytest.mark.parametrize("saved", [None, 1, 2])
def test_a_run_that_goes_on_in_another_order_says_so(tmp_path, caplog, saved):
    save(tmp_path, 3)
    path = tmp_path / "checkpoints" / "3" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    assert meta.pop("order") == 2
    path.write_text(json.dumps(meta if saved is None else meta | {"order": saved}))
    assert same(restore(tmp_path), state(3))
    said = [r.getMessage() for r in caplog.records if "order of version 1" in r.getMessage()]
    assert len(said) == (saved != 2) and all("checkpoint 3" in line for line in said)


def test_an_empty_folder_has_none(tmp_path):
    assert restore(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileNotFoundError, match="train it first"):
        Checkpoints(str(tmp_path)).config()


def damage_flip(folder):
    file = data_files(folder / "weights")[-1]
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 4):
        content[place] ^= 0xFF
    file.write_bytes(bytes(content))


def damage_truncate(folder):
    file = data_files(folder / "train")[-1]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_digest(folder):
    """As if the array had changed: the file reads well, the numbers are others."""
    path = folder / "meta" / "metadata"
    meta = json.loads(path.read_text())
    name = next(k for k in meta["weights"] if "kernel" in k)
    meta["weights"][name] = meta["weights"][name][:-1] + "x"
    path.write_text(json.dumps(meta))


def damage_meta(folder):
    (folder / "meta" / "metadata").write_text("{")


@pytest.mark.parametrize(
    "damage", [damage_flip, damage_truncate, damage_digest, damage_meta], ids=lambda f: f.__name__
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, caplog, damage):
    save(tmp_path, 1, 2)
    damage(tmp_path / "checkpoints" / "2")
    assert same(restore(tmp_path), state(1))
    assert "checkpoint 2 is damaged" in caplog.text
    assert (tmp_path / "damaged" / "2").is_dir()  # nothing is deleted
    save(tmp_path, 2)  # and the step can be saved again
    assert same(restore(tmp_path), state(2))
    gc.collect()  # what Orbax left behind ends in this test, not in a later one


def test_a_checkpoint_of_another_model_is_an_error_not_a_fallback(tmp_path):
    save(tmp_path, 1)
    other = TrainState.create(Weights({"body": {"kernel": jnp.ones((2, 2))}}, {}), TX, "")
    with pytest.raises(ValueError, match="does not fit this configuration.*body"):
        Checkpoints(str(tmp_path)).restore(other, "")


def test_a_digest_sees_every_change_and_no_placement():
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    same_twice = checksums({"x": jnp.asarray(x)})
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    assert checksums({"x": jax.device_put(x, where)}) == same_twice
    bits = x.view(np.uint32)
    for place in range(x.size):
        changed = bits.copy()
        changed.flat[place] ^= np.uint32(1 << place % 32)
        assert checksums({"x": jnp.asarray(changed.view(np.float32))}) != same_twice
    assert checksums({"x": jnp.asarray(x[::-1])}) != same_twice  # nor a new order
    assert checksums({"x": jnp.asarray(x.reshape(6, 8))}) != same_twice


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint32"])
def test_host_and_device_have_the_same_digests(dtype):
    for shape in ((), (5,), (3, 4, 5)):
        x = np.random.default_rng(0).uniform(0, 9, shape).astype(jnp.dtype(dtype))
        on_device = jax.jit(checkpoint._checksum)(jnp.asarray(x))
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(checkpoint._checksum(x, np), on_device)


def test_what_is_not_finite_is_never_saved_and_never_read(tmp_path, monkeypatch):
    save(tmp_path, 1)
    broken = state(2)
    broken.average["body/bias"] = jnp.array([1.0, jnp.nan, 1.0])
    checkpoints = Checkpoints(str(tmp_path))
    with pytest.raises(FloatingPointError, match="step 2: 1 arrays, first .*bias.*is intact"):
        checkpoints.save(broken, {})
    checkpoints.close()
    assert checkpoints.steps() == [1]
    # As a run of an older version may have left one.
    monkeypatch.setattr(checkpoint, "not_finite", lambda tree: [])
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(broken, {})
    checkpoints.close()
    monkeypatch.undo()
    assert same(restore(tmp_path), state(1))
    assert (tmp_path / "damaged" / "2").exists()


def test_what_does_not_fit_on_the_disk_is_not_begun(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "MARGIN", 2**60)  # no disk has that
    checkpoints = Checkpoints(str(tmp_path))
    with pytest.raises(OSError, match="No space left on device, a checkpoint is not written"):
        checkpoints.save(state(2), {})
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1"]
