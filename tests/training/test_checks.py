"""What a configuration is refused for before anything compiles, and what that must not import."""

import pathlib
import subprocess
import sys

import pytest

from diffv2iqa_jax import config as configs
from diffv2iqa_jax.configs import restore, small
from diffv2iqa_jax.data.sets import catalog, registry
from diffv2iqa_jax.errors import ConfigError
from diffv2iqa_jax.pp import ops_numpy, ops_tf
from diffv2iqa_jax.training import checks

ROOT = pathlib.Path(__file__).parents[2]


def changed(key: str, value) -> dict:
    """The smallest complete configuration with one key of another value."""
    section, _, last = key.rpartition(".")
    config = configs.plain(restore.get_config())
    config[section][last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.batch", 0, "must be a whole number, at least 1"),
        ("data.size", 0, "must be a whole number, from 1 to 16384"),
        ("every.save", 0.5, "must be a whole number, at least 1"),
        ("optim.accumulate", "2", "must be a whole number, at least 1"),
        ("optim.remat", "block", "known are"),
        ("optim.frozen", "(", r"'\(': is no regular expression \(missing \)"),
        ("optim.rates", [["(", 2.0]], r"'\(': is no regular expression \(missing \)"),
        ("optim.rates", [["/vit/", "fast"]], "must be a list of pairs"),
        ("data.pp_train", "crop({siz})", "only {size} stands for a number"),
        ("data.pp_test", 3, "only {size} stands for a number"),
        ("data.pp_test", "shrink(0)", "shrink takes whole numbers from 1; got 0"),
        ("data.pp_test", "grit(8)", "no such op; known are .*'grid'.*'shrink'"),
        ("data.name", "tid2031", "no such set; did you mean 'tid2013'"),
        ("data.parts", "all of it", "known are .*'official'"),
        ("restorer.schedule", "linear", "'linear': must be a section"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_key(key, value, message):
    section = key if key != "data.name" else "data"
    with pytest.raises(ConfigError, match=f"config.{section}.*{message}"):
        checks.check(changed(key, value))


@pytest.mark.parametrize("section", ["data", "optim", "every", "restorer", "pretrained"])
def test_a_section_that_is_a_value_is_refused(section):
    config = configs.plain(restore.get_config()) | {section: 3}
    with pytest.raises(ConfigError, match=f"config.{section} 3: must be a section"):
        checks.check(config)


def test_a_loss_that_is_no_text_is_refused():
    config = configs.plain(small.get_config("paper")) | {"loss": {"name": "l1"}}
    with pytest.raises(ConfigError, match="config.loss .*: known are"):
        checks.check(config)


@pytest.mark.parametrize("section", checks.SECTIONS)
def test_a_section_without_one_of_its_keys_is_refused(section):
    for key in checks.SECTIONS[section]:
        config = configs.plain(small.get_config("paper"))
        del config[section][key]
        with pytest.raises(ConfigError, match=rf"config.{section}: \['{key}'\] must be set"):
            checks.check(config)


def test_operations_and_their_settings_are_those_of_training():
    assert ops_numpy.OPS.keys() == ops_tf.OPS.keys()
    for name in ops_tf.OPS:
        for settings in ("()", "(8)", "(8, 2)", "(0)", "(-1)", "(0.5)", "(1.5)", "('8')", "(True)"):
            refusals = []
            for build in (ops_tf.parse, lambda text: checks.spec.build(text, ops_numpy.OPS)):
                try:
                    build(name + settings)
                    refusals.append(None)
                except ValueError as error:
                    refusals.append(str(error))
            assert refusals[0] == refusals[1]


@pytest.mark.parametrize("name", catalog.BUILTIN)
def test_a_built_in_set_lies_where_its_builder_puts_it(name, tmp_path):
    place = registry.make(name, str(tmp_path)).data_path
    assert str(place) == str(catalog.place(name, str(tmp_path)))


def test_checks_import_no_tensorflow_and_start_no_device():
    code = f"""
import sys, jax
from diffv2iqa_jax import config
from diffv2iqa_jax.training import checks
for name in {["restore", "diffv2iqa", "small:synthetic", "vcrnet"]}:
    settings = config.plain(config.load(name))
    if settings["data"]["name"] == "pristine":
        settings["data"]["folder"] = {str(ROOT / "configs")!r}
    checks.check(settings)
assert not {{"tensorflow", "tensorflow_datasets", "clu", "orbax"}} & set(sys.modules)
import jax._src.xla_bridge
assert not jax._src.xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
