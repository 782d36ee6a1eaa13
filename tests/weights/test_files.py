import json
import os
import pickle
import struct

import numpy as np
import pytest

from diffv2iqa_jax.types import Weights
from diffv2iqa_jax.weights import files

WEIGHTS = Weights(
    {"a": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, "slope": np.float32(0.25)},
    {"bn": {"mean": np.zeros(3, np.float32)}},
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.safetensors"
    files.save(path, WEIGHTS, {"kind": "tiny", "settings": {"width": 3}})
    return path


def test_what_is_saved_is_loaded(path):
    weights, card = files.load(path)
    assert card["kind"] == "tiny" and card["settings"] == {"width": 3}
    got, want = files.flatten(weights), files.flatten(WEIGHTS)
    assert set(got) == set(want) == {"params/a/kernel", "params/slope", "stats/bn/mean"}
    for name, x in want.items():
        np.testing.assert_array_equal(got[name], x)
        assert got[name].shape == np.shape(x)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def cut_in_its_header(path):
    path.write_bytes(path.read_bytes()[:20])


def huge_header(path):
    path.write_bytes(struct.pack("<Q", 200_000_000) + b"{" * 100)


def pickled(path):
    path.write_bytes(pickle.dumps({"a": 1}))


def empty(path):
    path.write_bytes(b"")


def no_card(path):
    path.with_suffix(".json").unlink()


def card_of_other_shapes(path):
    card = json.loads(path.with_suffix(".json").read_text())
    card["shapes"]["params/a/kernel"] = [3, 2]
    path.with_suffix(".json").write_text(json.dumps(card))


def card_of_the_future(path):
    path.with_suffix(".json").write_text('{"format": 2}')


def broken_card(path):
    path.with_suffix(".json").write_text('{"format": 1')


@pytest.mark.parametrize(
    "damage, words",
    [
        (flipped, "SHA-256"),
        (cut, "cut short"),
        (cut_in_its_header, "cut short"),
        (huge_header, "a header of 200000000 bytes"),
        (pickled, "net.safetensors: not safetensors|cut short"),
        (empty, "cut short"),
        (no_card, "needs both the file and its card net.json"),
        (card_of_other_shapes, "its shapes are not the card's"),
        (card_of_the_future, "not a card of format 1"),
        (broken_card, "not JSON"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_damaged_file_is_refused(path, damage, words):
    damage(path)
    with pytest.raises(ValueError, match=words):
        files.load(path)


def test_nothing_half_written_remains(path, monkeypatch):
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.save(path, WEIGHTS, {"kind": "other"})
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_name_that_is_not_safetensors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="named .safetensors"):
        files.save(tmp_path / "net.json", WEIGHTS, {})


def vit_like(depth: int) -> Weights:
    return Weights({f"blocks_{i}": {"norm1": {"scale": np.zeros(4)}} for i in range(depth)}, {})


def test_one_error_lists_the_first_ten_of_each_fault():
    tensors = {f"blocks.{i}.norm1.weight": np.zeros(4) for i in range(12, 20)}
    tensors |= {f"blocks.{i}.norm1.weight": np.zeros(5) for i in range(30, 42)}
    tensors |= {f"strange.{i}": np.zeros(1) for i in range(12)}
    tensors["blocks.12.norm1.weight"] = np.full(4, np.nan)
    with pytest.raises(ValueError) as error:
        files.fit("vit_timm", files.rename("vit_timm", tensors), vit_like(42))
    text = str(error.value)
    assert "12 unknown: strange.0, strange.1" in text and "strange.9 and 2 more" in text
    assert "22 missing: params/blocks_0/norm1/scale" in text and "and 12 more" in text
    assert "12 mis-shaped: params/blocks_30/norm1/scale (5,) where (4,) belongs" in text
    assert "1 not finite: params/blocks_12/norm1/scale" in text
    assert "\n" not in text


def test_two_tensors_of_one_name_are_refused():
    tensors = {"downs.0.weight": np.zeros(1), "downs.0.conv.weight": np.zeros(1)}
    with pytest.raises(ValueError, match="two tensors would be params/downs_0/conv/kernel"):
        files.rename("sr3", tensors)


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="'sr4': known are .*'sr3'"):
        files.rename("sr4", {})


def test_prefixes_and_buffers_of_generator_files_go_by_name():
    tensors = {"module.denoise_fn.final_conv.block.0.bias": np.zeros(2)}
    tensors |= {"module.betas": np.zeros(3), "module.posterior_mean_coef2": np.zeros(3)}
    renamed = files.rename("sr3", tensors)
    assert set(renamed.tensors) == {"params/final_conv/norm/bias"}
    assert not renamed.unknown
    assert [ours for *_, ours in renamed.report].count("dropped") == 2


def test_a_backbone_is_placed_in_a_larger_net():
    whole = Weights({"q": {"vit": vit_like(2).params, "head": np.ones(2)}}, {"q": {}})
    source = Weights({f"blocks_{i}": {"norm1": {"scale": np.full(4, i)}} for i in range(3)}, {})
    placed = files.place(whole, "q/vit", source)
    np.testing.assert_array_equal(placed.params["q"]["vit"]["blocks_1"]["norm1"]["scale"], 1)
    np.testing.assert_array_equal(placed.params["q"]["head"], 1)
    assert "blocks_2" not in placed.params["q"]["vit"]
    with pytest.raises(ValueError, match="1 missing: params/blocks_3/norm1/scale"):
        files.place(Weights({"vit": vit_like(4).params}, {}), "vit", source)
    with pytest.raises(ValueError, match="'vut': these weights have no such part"):
        files.place(whole, "vut", source)
