import collections

import numpy as np
import pytest

from diffv2iqa_jax.data import evaluation, reading
from diffv2iqa_jax.data.sets import builtin, registry, store
from diffv2iqa_jax.distortions import degrade
from diffv2iqa_jax.evaluation import full_reference


def test_labels_are_the_quality_of_the_stored_pixels(tiny):
    table = tiny.table
    assert ((table["mos"] >= 0) & (table["mos"] <= 1)).all() and table["mos"].std() > 0.1
    for batch in evaluation.whole(tiny, np.arange(0, 96, 7), batch=5):
        for i in np.flatnonzero(batch["mask"]):
            image, reference = batch["image"][i], batch["reference"][i]
            quality = full_reference.haarpsi(reference, image, subsample=False)
            assert batch["mos"][i] == pytest.approx(quality, abs=1e-6)
            assert batch["content"][i] == store.content(image)


def test_mild_distortions_are_rated_better_than_severe_ones(tiny):
    mos, level = tiny.table["mos"], tiny.table["level"]
    means = [mos[level == k].mean() for k in degrade.LEVELS]
    assert (np.diff(means) < 0).all() and means[0] - means[4] > 0.3


def test_rows_are_numbered_and_named_once(tiny):
    table = tiny.table
    np.testing.assert_array_equal(table["id"], np.arange(96))
    assert len(set(table["name"])) == 96
    assert collections.Counter(table["type"]) == dict.fromkeys(degrade.TYPES, 6)
    assert table["content"].dtype == np.uint32


def test_crops_of_one_photo_are_one_group(tiny):
    photos = tiny.table["group"][64:]  # after four scenes
    assert set(photos) == {"photo_astronaut"} and len(set(tiny.table["group"])) == 5


def test_types_and_levels_are_balanced():
    # Five references in a row give each type every level once.
    config = builtin.BuiltinConfig(name="x", size=16, scenes=5, photos=0, every_level=False)
    pairs = collections.Counter((r["type"], r["level"]) for r in builtin.records(config))
    assert set(pairs.values()) == {1} and len(pairs) == 5 * len(degrade.TYPES)


def test_every_level_of_every_type():
    config = builtin.BuiltinConfig(name="x", size=16, scenes=1, photos=0, every_level=True)
    pairs = {(r["type"], r["level"]) for r in builtin.records(config)}
    assert pairs == {(t, k) for t in degrade.TYPES for k in degrade.LEVELS}


def test_a_set_is_built_once(data, tmp_path):
    assert registry.found("builtin/tiny", str(data))
    assert not registry.found("builtin/tiny", str(tmp_path))
    assert registry.prepare("builtin/tiny", str(data))["images"] == 96
    with pytest.raises(FileNotFoundError, match="prepare it first"):
        reading.load("builtin/tiny", str(tmp_path))
    assert not list(tmp_path.iterdir())  # looking leaves nothing behind


def test_a_build_that_breaks_leaves_nothing_that_looks_built(tmp_path, monkeypatch):
    def broken(config):
        yield from list(good(config))[:3]
        raise RuntimeError("power cut")

    good = builtin.records
    monkeypatch.setattr(builtin, "records", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        registry.prepare("builtin/tiny", str(tmp_path))
    assert not registry.found("builtin/tiny", str(tmp_path))
    monkeypatch.setattr(builtin, "records", good)
    assert registry.prepare("builtin/tiny", str(tmp_path))["images"] == 96


def test_of_two_builds_at_once_the_first_one_counts(tmp_path, monkeypatch):
    def overtaken(config):
        monkeypatch.setattr(builtin, "records", good)
        registry.prepare("builtin/tiny", str(tmp_path))  # the other process
        yield from good(config)

    good = builtin.records
    monkeypatch.setattr(builtin, "records", overtaken)
    assert registry.prepare("builtin/tiny", str(tmp_path))["images"] == 96
    assert len(reading.load("builtin/tiny", str(tmp_path)).table["id"]) == 96


@pytest.mark.parametrize("function", [registry.prepare, registry.found, reading.load])
def test_an_unknown_set_is_refused(function, tmp_path):
    with pytest.raises(
        ValueError, match="'builtin/huge': no such set; did you mean 'builtin/full'"
    ):
        function("builtin/huge", str(tmp_path))
