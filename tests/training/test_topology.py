"""The training step on chips that are not there: what is reported, and what is refused."""

import importlib.util
import re

import jax
import pytest

from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.training import sharding, topology
from tests import runs


def settings(**changes) -> dict:
    """A stage-1 configuration whose global batch is of 16 images."""
    return runs.stage1("nowhere", **{"data.batch": 16, **changes})


def exchanged(lines: list[str]) -> float:
    """MiB that one gradient exchange of float32 moves, as reported."""
    (line,) = [line for line in lines if "all-reduce of" in line]
    assert " f32 " in line and line.endswith("once")
    return float(re.search(r"([\d.]+) MiB", line)[1])


def test_the_report_names_memory_flops_and_one_exchange_of_the_gradients():
    lines = topology.report(settings(), jax.devices())
    parameters = jax.eval_shape(
        lambda: topology.setup.shapes(
            topology.setup.make_task(settings()), settings()["data"]["size"]
        )
    ).params
    size = sum(4 * x.size for x in jax.tree.leaves(parameters))
    assert exchanged(lines) == pytest.approx(size / 2**20, abs=0.011)
    assert lines[0].endswith(f"{len(jax.devices())} x cpu")
    memory = next(line for line in lines if line.startswith("memory"))
    assert all(float(number) > 0 for number in re.findall(r"([\d.]+) MiB", memory))
    assert float(re.search(r"FLOPs +([\d.]+)", lines[-1])[1]) > 0


def test_what_lies_in_a_loop_is_told_from_what_happens_once():
    hlo = """
%body (p: f32[4]) -> f32[4] {
  %a = (f32[2,3]{1,0}, bf16[5]{0}) all-reduce-start(%x, %y)
}
ENTRY %main {
  %b = f32[262144]{0} reduce-scatter(%z)
}
"""
    assert topology.collectives(hlo) == [
        "all-reduce of 1 bf16 array(s), 0.00 MiB, in a loop or branch",
        "all-reduce of 1 f32 array(s), 0.00 MiB, in a loop or branch",
        "reduce-scatter of 1 f32 array(s), 1.00 MiB, once",
    ]
    assert topology.collectives("ENTRY %main {\n}") == ["none"]


@pytest.mark.parametrize("name", ["v9:4x4", "v5e", "v5e:0x4", "v5e:4", "v5e:4x4;rm", ""])
def test_an_unknown_topology_is_refused(name):
    with pytest.raises(ConfigError, match="must be one of .* as in v5e:4x4") as refusal:
        topology.chips(name)
    assert "\n" not in str(refusal.value)


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"v5e:4x4: needs .* pip install 'diffv2iqa_jax\[tpu\]'"):
        topology.chips("v5e:4x4")


def test_pmap_and_a_batch_that_does_not_divide_are_refused():
    with pytest.raises(ConfigError, match="compiles for 'jit' alone"):
        topology.report(settings(**{"devices.map": "pmap"}), jax.devices())
    with pytest.raises(ConfigError, match="config.data.batch 6: must be a multiple"):
        topology.report(settings(**{"data.batch": 6}), jax.devices())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_chips_that_are_not_there_exchange_each_gradient_once_in_float32():
    chips = topology.chips("v5e:4x4")
    assert len(chips) == 16 and sharding.make("jit", devices=chips).size == 16
    config = settings(**{"restorer.dtype": "bfloat16"})
    here = exchanged(topology.report(settings(), jax.devices()))
    assert exchanged(topology.report(config, chips)) == pytest.approx(here, abs=0.011)
