"""Views in shards: found and read one by one, whatever wrote them, and refused where damaged."""

import numpy as np
import pytest
import tensorflow as tf

from diffv2iqa_jax.data import stored_views
from diffv2iqa_jax.data.stored_views import StoredViews, Writer
from diffv2iqa_jax.errors import ConfigError

COUNT = 2
NAMES = np.array([f"p{i}" for i in range(40)])


def of(id):
    """Views of an image whose size is its own."""
    shape = (COUNT, 3 + id % 3, 4, 3)
    return np.random.default_rng(id).normal(size=shape).astype(np.float16)


def write(folder, ids, process=0):
    writer = Writer(str(folder), process)
    for id in ids:
        writer.add(id, of(id))
    writer.close()


def same(views, ids):
    for id in ids:
        np.testing.assert_array_equal(views.read(id, of(id).shape[1:]), of(id))


def shards(folder):
    return sorted(p.name for p in folder.glob("*.safetensors"))


def test_views_of_several_processes_are_read_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_views, "BYTES", 5 * of(0).nbytes)
    for number in range(3):
        write(tmp_path, range(number, 31, 3), number)
    views = StoredViews(str(tmp_path), "float16", COUNT)
    views.check(np.arange(31), NAMES)
    same(views, np.random.default_rng(1).permutation(31))
    assert len(shards(tmp_path)) > 6
    example = tf.function(views.tensor)(tf.constant(30), tf.constant(of(30).shape[1:]))
    np.testing.assert_array_equal(example, of(30))


def test_another_number_of_processes_adds_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_views, "BYTES", 3 * of(0).nbytes)
    write(tmp_path, range(0, 10, 2), 0)
    write(tmp_path, range(1, 6, 2), 1)
    first = shards(tmp_path)
    for number in range(3):
        own = np.arange(number, 20, 3)
        write(tmp_path, own[~np.isin(own, stored_views.index(str(tmp_path)).ids)], number)
    assert set(first) < set(shards(tmp_path))
    views = StoredViews(str(tmp_path), "float16", COUNT)
    np.testing.assert_array_equal(views.index.ids, np.arange(20))
    same(views, range(20))


def test_a_shard_is_written_after_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_views, "SECONDS", 0.0)
    writer = Writer(str(tmp_path), 0)
    writer.add(3, of(3))
    assert shards(tmp_path) == ["00000-00000003-00000003.safetensors"]
    writer.close()
    assert len(shards(tmp_path)) == 1


def test_a_shard_of_which_a_kill_left_a_part_does_not_count(tmp_path):
    write(tmp_path, [1])
    (shard,) = tmp_path.glob("*.safetensors")
    (tmp_path / f"{shard.name}.99.tmp").write_bytes(shard.read_bytes()[:-9])
    assert stored_views.index(str(tmp_path)).ids.tolist() == [1]


def test_a_long_header_is_read_whole(tmp_path, monkeypatch):
    write(tmp_path, range(40))
    monkeypatch.setattr(stored_views, "HEAD", 100)
    same(StoredViews(str(tmp_path), "float16", COUNT), range(40))


@pytest.mark.parametrize(
    "damage",
    [lambda x: x[:-1], lambda x: x + b"x", lambda x: x[:20], lambda x: b"", lambda x: b"\0" * 64],
    ids=["cut", "longer", "header cut", "empty", "zeros"],
)
def test_a_damaged_shard_is_named(tmp_path, damage):
    write(tmp_path, [1, 2])
    (shard,) = tmp_path.glob("*.safetensors")
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(ConfigError, match=f"^views {shard}: is no complete.*delete") as caught:
        stored_views.index(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_layout_before_shards_is_refused(tmp_path):
    (tmp_path / "00000007.views").write_bytes(b"")
    with pytest.raises(ConfigError, match="a file for each image, which is no longer read; delete"):
        stored_views.index(str(tmp_path))
