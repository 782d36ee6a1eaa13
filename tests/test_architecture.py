"""The design, held: directions of imports, ceilings, who sees what, what is never used."""

import ast
import itertools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "diffv2iqa_jax"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
# A folder imports from floors below its own; a module in the root that none names is a command.
FLOORS = [
    "types errors",
    "storage tables",
    "config rng pixels",
    "pp diffusion",
    "models distortions evaluation",
    "data tasks weights reporting",
    "training",
    "scoring",
    "tools configs",
]
NEVER = [("scoring", "data"), ("models", "data"), ("training", "scoring")]
TENSORFLOW = ("data.", "pp.ops_tf")  # the only ones that import it
COMMANDS = len(FLOORS)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}


def name_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(name: str) -> str:
    """The folder of a module; of one in the root, itself."""
    return name.partition(".")[0]


def imports(path: pathlib.Path) -> set[str]:
    """What a file imports, wherever in it; of this package without its name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("diffv2iqa_jax.") for name in found}


def own(path: pathlib.Path) -> set[str]:
    """The other rooms of this package that a file imports from."""
    rooms = {p.stem for p in PACKAGE.iterdir()} - {"__init__", "__pycache__"}
    return {room(name) for name in imports(path) if room(name) in rooms} - {room(name_of(path))}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    here = FLOOR.get(room(name_of(path)), COMMANDS)
    for other in own(path):
        assert FLOOR.get(other, COMMANDS) < here, f"{name_of(path)} may not import {other}"
        assert (room(name_of(path)), other) not in NEVER


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_main_and_config_see_ml_collections_and_only_data_sees_tensorflow(path):
    name, others = name_of(path), {room(other) for other in imports(path)}
    if "ml_collections" in others:
        assert name in ("main", "config")
    if others & {"tensorflow", "tensorflow_datasets"}:
        assert name.startswith(TENSORFLOW)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_functions_are_annotated(path):
    module = ast.parse(path.read_text())
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for node in itertools.chain(module.body, *(c.body for c in classes)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            a = node.args
            every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
            bare = [x.arg for x in every if x and not x.annotation and x.arg not in ("self", "cls")]
            assert not bare, f"{node.name}: {bare} have no annotation"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_what_it_reads(path):
    banned = {"pickle", "dill", "shelve", "marshal"}
    assert not banned & {room(name) for name in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert node.value.value is False


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_whatever_makes_a_key_names_the_generator(path):
    """JAX_DEFAULT_PRNG_IMPL=rbg, as on TPUs, would make scores depend on their batch."""
    for node in ast.walk(ast.parse(path.read_text())):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.endswith(("random.key", "random.PRNGKey", "random.wrap_key_data")):
            assert "impl" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)
    assert not imports(path) & {"jax.random.key", "jax.random.PRNGKey"}


def test_floors_name_every_folder_once():
    names = [name for floor in FLOORS for name in floor.split()]
    assert len(names) == len(set(names))
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders <= set(names) and set(itertools.chain(*NEVER)) <= set(names)
    assert all(re.fullmatch("[a-z_]+", name) for name in names)


@pytest.mark.parametrize(
    "rooms, without",
    [
        (("tasks", "models", "diffusion", "bench", "scoring"), "tensorflow clu ml_collections"),
        (("reporting", "report"), "jax tensorflow clu ml_collections"),
    ],
    ids=["scoring", "reporting"],
)
def test_what_scores_and_what_reports_import_no_more_than_they_need(rooms, without):
    names = [name_of(p) for p in MODULES if room(name_of(p)) in rooms]
    code = "import sys\n" + "\n".join(f"import diffv2iqa_jax.{n}" for n in names)
    code += f"\nassert not set({without.split()}) & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
