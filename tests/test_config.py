"""Configurations: rows, differences, refusals that name the key and the nearest one."""

import json
import os

import pytest
from ml_collections import ConfigDict

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.errors import ConfigError


def test_override_sets_removes_and_refuses():
    c = ConfigDict({"a": {"b": 1, "c": (1, 2)}, "d": 3})
    configs.override(c, {"a.b": "text", "a.c": None, "d": {"e": 1}})
    assert c.to_dict() == {"a": {"b": "text"}, "d": {"e": 1}}
    with pytest.raises(ConfigError, match=r"config.a.bb: no such key; did you mean 'b'"):
        configs.override(c, {"a.bb": 1})
    with pytest.raises(ConfigError, match=r"config.x.b: no such key"):
        configs.override(c, {"x.b": 1})


def test_differences_name_every_key_that_is_not_the_same():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert configs.differences(old, {"a": {"b": 1, "c": (1, 2)}, "d": None}) == []
    found = configs.differences(old, {"a": {"b": 2, "c": [1, 2]}, "e": {}})
    assert found == ["a.b (1 -> 2)", "d (None -> absent)", "e (absent -> {})"]


def test_call_refuses_what_the_function_does_not_read():
    def make(*, width: int, depth: int = 2):
        if width < 1:
            raise ValueError(f"width {width}: must be positive")
        return width * depth

    assert configs.call(make, "net", {"width": 3}) == 6
    with pytest.raises(ConfigError, match=r"config.net.widht: no such key; did you mean 'width'"):
        configs.call(make, "net", {"widht": 3})
    with pytest.raises(ConfigError, match=r"config.net: \['width'\] must be set"):
        configs.call(make, "net", {})
    with pytest.raises(ConfigError, match="config.net: width 0: must be positive"):
        configs.call(make, "net", {"width": 0})


def test_a_workdir_belongs_to_one_configuration(tmp_path):
    work = str(tmp_path / "run")
    configs.claim(work, {"a": {"b": 1}})
    configs.claim(work, {"a": {"b": 1}})
    with pytest.raises(ConfigError, match=r"differs in a.b \(1 -> 2\)"):
        configs.claim(work, {"a": {"b": 2}})
    with open(os.path.join(work, "config.json")) as file:
        assert json.load(file) == {"a": {"b": 1}}


def test_a_foreign_or_unwritable_workdir_is_refused_untouched(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is no run of ours"):
        configs.claim(str(tmp_path), {})
    assert os.listdir(tmp_path) == ["letter.txt"]
    with pytest.raises(ConfigError, match="cannot be written|no run of ours"):
        configs.claim(str(tmp_path / "letter.txt" / "run"), {})
