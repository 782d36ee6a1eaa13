"""The parts of a run's data, what is refused of them, and what they say beside every number."""

import numpy as np
import pytest

from diffv2iqa_jax.data import rated as module
from diffv2iqa_jax.data.sets import store
from diffv2iqa_jax.data.sets.catalog import Row, Set
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import checks
from tests import runs, twins


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set csv/scenes: 10 scenes of 3 photos, with parts that tear none; csv/torn, whose do."""
    root = tmp_path_factory.mktemp("data")
    spec = Set("scenes", 30, 0, 0, 30, True, "")
    rows = []
    for i in range(30):
        # The last photo shows what the first one does.
        path = twins.picture(root / "raw" / f"p{i:02d}.png", i % 29, (12, 10))
        part = "test" if i >= 24 else "train"
        rows.append(Row(path.name, path, None, float(i), f"s{i // 3}", part=part))
    store.build("csv/scenes", str(root), spec, rows, complete=False, lacking=2)
    torn = [r._replace(part=("train", "test")[i % 2]) for i, r in enumerate(rows)]
    store.build("csv/torn", str(root), spec, torn, complete=True, lacking=0)
    store.build("pool/scenes", str(root), spec, [r._replace(native=None) for r in rows])
    return root


def data(folder, on=None, **changes):
    config = runs.stage1(folder, **{"data.name": "csv/scenes"} | changes)
    return module.Rated(config["data"], 100, on)


RESOLVED = {"seed": 4}


def test_parts_hold_each_image_once_and_batches_have_no_reference(folder):
    d = data(folder)
    assert sorted([*d.train_ids, *d.val_ids, *d.test_ids]) == [*range(30)]
    assert (len(d.train_ids), len(d.val_ids), len(d.test_ids)) == (18, 6, 6)
    batch = next(d.train(0))
    assert "reference" not in batch and batch["image"].shape == (8, 16, 16, 3)  # small: reflected
    np.testing.assert_allclose(batch["mos"], d.table["native"][batch["id"]] / 30, atol=1e-6)


def test_the_protocol_says_what_a_reader_must_know(folder):
    facts = data(folder).protocol(RESOLVED)["protocol"]
    assert facts["parts"] == "reference" and facts["split"] == 0 and facts["seed"] == 4
    assert facts["scale"] == [0, 30] and facts["higher_is_better"] and facts["references"] == 2
    assert len(facts["split_sha256"]) == len(facts["names_sha256"]) == 64
    assert facts["split_is_committed"] is False and data(folder).span == 30
    assert "incomplete data set: 2 images lacking" in facts["warnings"]


def test_a_twin_in_another_part_is_counted(folder, caplog):
    d = data(folder, **{"data.parts": "official", "data.fractions": (0.8, 0.0, 0.2)})
    warnings = d.protocol(RESOLVED)["protocol"]["warnings"]
    assert "1 images have an exact twin in another part" in warnings
    assert "first p29.png" in caplog.text


def test_a_split_that_tears_references_is_refused_but_for_legacy_ones(folder):
    changes = {"data.name": "csv/torn", "data.parts": "official"}
    with pytest.raises(ConfigError, match="10 references are in two parts, first s0"):
        data(folder, **changes)
    legacy = data(folder, **changes | {"data.parts": "legacy_release"})
    warnings = legacy.protocol(RESOLVED)["protocol"]["warnings"]
    assert "legacy-release split: for comparison with published numbers" in warnings
    assert any("references are on both sides" in w for w in warnings)
    maniqa = data(folder, **changes | {"data.parts": "legacy_maniqa"})
    warnings = maniqa.protocol(RESOLVED)["protocol"]["warnings"]
    assert not any("references are on both sides" in w for w in warnings)


def test_a_restorer_that_knows_the_test_part_is_mentioned(folder):
    d = data(folder)
    same = {"name": "csv/scenes", "parts": "reference", "split": 0, "fractions": [0.6, 0.2, 0.2]}

    def told(d, learned):
        return any(
            "restorer learned" in w
            for w in d.protocol(RESOLVED | {"restorer_from": {"data": learned}})["protocol"][
                "warnings"
            ]
        )

    assert not told(d, same) and not told(d, same | {"name": "csv/other"})
    assert told(d, same | {"split": 1}) and told(data(folder, on="csv/scenes"), same)


def test_all_of_another_set_is_the_test_part(folder):
    d = data(folder, on="csv/torn")
    assert len(d.test_ids) == 30 and not len(d.val_ids)
    facts = d.protocol(RESOLVED)["protocol"]
    assert facts["name"] == "csv/torn" and facts["parts"] == "everything is test"
    assert not data(folder, on="pool/scenes").rated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.name": "tid2013"}, "prepare tid2013 --source YOUR_DOWNLOAD"),
        ({"data.name": "tid2031"}, "did you mean 'tid2013'"),
        ({"data.parts": "offical"}, "'offical': known are"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(folder, changes, message):
    config = runs.stage1(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        checks.check(config)
        checks.check_prepared(config)
    with pytest.raises(ConfigError, match="prepare csv --name no"):
        checks.check_prepared(runs.stage1(folder), "csv/no")
    with pytest.raises(ConfigError, match="^--on builtin/smal: .*did you mean 'builtin/small'"):
        checks.check_prepared(runs.stage1(folder), "builtin/smal")


def test_a_set_without_parts_has_no_official_split(folder):
    with pytest.raises(ConfigError, match="no such split"):
        data(folder, **{"data.name": "builtin/tiny", "data.parts": "official"})
