"""The design, held: import layers, ceilings, who sees a config, what is never used."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "diffv2iqa_jax"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
CONFIG_READERS = {"config", "main"}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and (name_of(path), node.name) != (
            "training.loop",
            "run",
        ):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_programs_see_the_config_and_only_data_sees_tensorflow(path):
    text, name = path.read_text(), name_of(path)
    if "ml_collections" in text:
        assert name in CONFIG_READERS
    if "import tensorflow" in text:
        assert name.startswith(("data.", "pp.ops_tf"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_what_it_reads(path):
    banned = {"pickle", "dill", "shelve", "marshal"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not banned & {a.name.split(".")[0] for a in node.names}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert node.value.value is False


def test_models_diffusion_and_bench_import_without_tensorflow():
    names = [
        "tasks.stages",
        "tasks.restorers",
        "bench",
        "training.steps",
        "training.checkpoint",
        "report",
        "scoring.scorer",
    ]
    code = "import sys\n" + "\n".join(f"import diffv2iqa_jax.{n}" for n in names)
    code += "\nassert not {'tensorflow', 'clu', 'ml_collections'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
