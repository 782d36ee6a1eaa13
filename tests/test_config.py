"""Configurations: where they lie, rows, differences, refusals that name the key and the nearest."""

import importlib
import itertools
import json
import os
import subprocess
import sys

import pytest
from ml_collections import ConfigDict, FieldReference

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
    with pytest.raises(ConfigError, match=r"config.a.b.c: no such key; 'text' is a value"):
        configs.override(c, {"a.b.c": 1})


def test_differences_name_every_key_that_is_not_the_same():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert configs.differences(old, {"a": {"b": 1, "c": (1, 2)}, "d": None}) == []
    changed = configs.differences(old, {"a": {"b": 2, "c": [1, 2]}, "e": {}})
    assert changed == ["a.b (1 -> 2)", "d (None -> absent)", "e (absent -> {})"]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, object], ids=["nan", "inf", "set", "type"]
)
def test_a_value_that_json_does_not_have_is_refused_with_its_key(value):
    with pytest.raises(ConfigError, match=r"config.a.b .*: must be a finite number, text"):
        configs.plain({"a": {"b": value}, "c": 1})


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
    with pytest.raises(ConfigError, match="config.net 3: must be a section"):
        configs.call(make, "net", 3)


def test_a_workdir_belongs_to_one_configuration(tmp_path):
    work = str(tmp_path / "run")
    configs.claim(work, {"a": {"b": 1}})
    configs.claim(work, {"a": {"b": 1}})
    with pytest.raises(ConfigError, match=r"differs in a.b \(1 -> 2\)"):
        configs.claim(work, {"a": {"b": 2}})
    with open(os.path.join(work, "config.json")) as file:
        assert json.load(file) == {"a": {"b": 1}}


def test_a_run_goes_on_with_keys_that_change_no_result(tmp_path):
    work = str(tmp_path / "run")
    before = {"devices": {"map": "jit", "fsdp": 1}, "every": {"log": 1}, "keep": 3, "seed": 0}
    before |= {"optim": {"lr": 1.0}, "pretrained": {"vit": ""}}  # from before some keys were there
    after = {"devices": {"map": "pmap", "fsdp": 2}, "every": {"log": 9}, "keep": 1, "seed": 0}
    after |= {
        "optim": {"lr": 1.0, "remat": "blocks"},
        "pretrained": {"vit": "", "allow_random": True},
    }
    for wrap in (lambda c: c, lambda c: {"stages": {"one": c}}):
        folder = work + str(len(wrap({})))
        configs.claim(folder, wrap(before))
        configs.claim(folder, wrap(after))
        with open(os.path.join(folder, "config.json")) as file:
            assert json.load(file) == wrap(after)  # what it goes on with
        with pytest.raises(ConfigError, match=r"differs in \S*seed \(0 -> 1\)"):
            configs.claim(folder, wrap(after | {"seed": 1}))


def test_a_foreign_or_unwritable_workdir_is_refused_untouched(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is no run of ours"):
        configs.claim(str(tmp_path), {})
    assert os.listdir(tmp_path) == ["letter.txt"]
    with pytest.raises(ConfigError, match="is no folder; name another"):
        configs.claim(str(tmp_path / "letter.txt" / "run"), {})


OWN = """
from diffv2iqa_jax.config import override
from diffv2iqa_jax.configs import maniqa

def get_config(row="ours"):
    return override(maniqa.get_config(row), {"data.name": "koniq10k"})
"""


def test_names_rows_and_paths_work_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "small").mkdir()  # a folder of that name does not hide the packaged one
    assert configs.load("small:starter").data.size == 272
    assert configs.load("quickstart").stages.quality.restorer.run == "restore"
    for path in ("mine.py", "./mine.py", str(tmp_path / "mine.py")):
        assert configs.load(path).data.name == "koniq10k"
        assert configs.load(f"{path}:published").optim.schedule == "wave"


def test_the_path_of_a_packaged_file_gives_what_its_name_gives():
    path = os.path.join(os.path.dirname(__file__), "..", "configs", "small.py")
    for row in ("", ":paper"):
        assert configs.load(path + row).to_dict() == configs.load(f"small{row}").to_dict()


def test_a_dict_is_as_good_as_a_config_dict(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    return {'a': {'b': (1, 2)}}\n")
    assert configs.load(str(tmp_path / "mine.py")).a.b == (1, 2)


def parts(node, path: str = "config"):
    """Every section and list below a node, and every reference to a field, with its path."""
    if isinstance(node, ConfigDict | dict | list | FieldReference):
        yield path, node
    if isinstance(node, ConfigDict):
        pairs = node.items(preserve_field_references=True)
    else:
        pairs = node.items() if isinstance(node, dict) else ()
    pairs = [*enumerate(node)] if isinstance(node, list | tuple) else pairs
    for key, value in pairs:
        yield from parts(value, f"{path}.{key}")


def shared(*nodes) -> list[tuple[str, str]]:
    """Paths of what stands in two places."""
    first, twice = {}, []
    for path, node in itertools.chain(*map(parts, nodes)):
        before = first.setdefault(id(node), path)
        twice += [(before, path)] if before != path else []
    return twice


def rows(name: str) -> list[str]:
    """What a packaged configuration may be called: itself, and with each of its rows."""
    module = importlib.import_module(f"{configs.PACKAGED}.{name}")
    named = [*getattr(module, "ROWS", ()), *(["branches"] if hasattr(module, "branches") else [])]
    return [name, *(f"{name}:{row}" for row in named)]


@pytest.mark.parametrize("name", configs.names())
def test_no_section_stands_in_two_places(name):
    """Else an override of one key changes another, or one configuration the next."""
    module = importlib.import_module(f"{configs.PACKAGED}.{name}")
    for text in rows(name):
        row = text.partition(":")[2]
        made = [module.get_config(row) if row else module.get_config() for _ in range(2)]
        assert shared(made[0]) == [] and shared(*made) == []
        assert shared(configs.load(text), configs.load(text)) == []


SHARING = """
from ml_collections import ConfigDict

def get_config():
    tab, kept = dict(dropout=0.1, sizes=[1, 2]), [3]
    c = ConfigDict(dict(one=dict(tab=tab), two=dict(tab=tab, deep=(1, 2)), kept=kept, again=kept))
    c.three = c.one
    c.lr = 0.1
    c.other_lr = c.get_ref("lr")
    return c
"""


def test_a_file_of_the_user_shares_no_section_but_what_it_refers_to_on_purpose(tmp_path):
    (tmp_path / "mine.py").write_text(SHARING)
    c = configs.load(str(tmp_path / "mine.py"))
    assert shared(c) == [("config.lr", "config.other_lr")]
    c.one.tab.dropout, c.kept[0] = 0.5, 9
    assert c.two.tab.dropout == c.three.tab.dropout == 0.1 and c.again == [3]
    c.lr = 0.2
    assert c.other_lr == 0.2 and c.two.deep == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qickstart", "no such configuration; did you mean 'quickstart'"),
        ("nothing", "no such configuration; known are .*'maniqa'"),
        ("", "no such configuration"),
        ("small.py", "no such file; the packaged one is --config small"),
        ("configs/qickstart.py", "no such file; packaged are .*'maniqa'"),
        ("small:startr", "row 'startr': no such row; did you mean 'starter'"),
        ("small:", "row '': no such row"),
        ("quickstart:row", "quickstart has no rows; leave out ':row'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^--config {text}: {message}"):
        configs.load(text)


BROKEN = {
    "import torchvisionn\n": "mine.py, line 1: imports .torchvisionn., which is not there",
    "from diffv2iqa_jax.configs import nope\n": "mine.py, line 1: cannot import name .nope.",
    "\ndef get_config(:\n": r"mine.py, line 2: is no Python \(invalid syntax\)",
    "\0": "mine.py.*null bytes",
    "x = 1\n": "has no function get_config",
    "def get_config():\n    pass\n": "get_config returns NoneType",
    "def get_config():\n    return 1 / 0\n": "mine.py, line 2: raises ZeroDivisionError",
    "import json\n\nSETTINGS = json.loads('{')\n": "mine.py, line 3: raises JSONDecodeError",
    "def get_config(row='a'):\n    return {'a': 1}[row]\n": "get_config returns int",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_makes_no_configuration_is_one_line_that_says_where(text, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=BROKEN[text]) as refusal:
        configs.load(str(tmp_path / "mine.py"))
    assert "\n" not in str(refusal.value)


def test_a_missing_module_is_named_with_the_file_that_imports_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab_base.py").write_text("\nimport torchvisionn\n")
    (tmp_path / "mine.py").write_text("import lab_base\n")
    with pytest.raises(ConfigError, match="lab_base.py, line 2: imports 'torchvisionn'"):
        configs.load(str(tmp_path / "mine.py"))


def test_loading_every_packaged_configuration_imports_no_array_library(tmp_path):
    code = "import sys\nfrom diffv2iqa_jax import config\n"
    code += "assert 'restore' in config.names()\n"
    code += "for name in config.names(): config.load(name)\n"
    code += "assert not {'numpy', 'jax', 'flax', 'tensorflow'} & set(sys.modules)"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    env = os.environ | {"PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env)
