"""The design, held: import layers, ceilings, who sees a config, what is never used."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "diffv2iqa_jax"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
LAYERS = [
    "types rng config losses metrics pixels fullref markup images crops tiles inputs maps "
    "diffusion.schedule training.sharding training.logs training.resize training.renames "
    "data.splits data.scenes data.degrade data.example data.catalog data.codecs data.photos "
    "data.onhost",
    "training.state training.optim diffusion.sampling models.layers models.unet models.vit "
    "table data.pp data.labels data.layout data.archives data.sets data.colours data.shelf "
    "baselines charts evaluate significance rating",
    "models.resnet models.swin models.efficientnet training.steps training.checkpoint "
    "training.pretrained data.builder data.readers data.optics pages",
    "ablation restored tables models.guidance models.difference models.vcr data.pipeline data.own "
    "data.distort",
    "models.iqa restorers comparison data.prepare data.pristine parts",
    "tasks published views report",
    "plan bench convert gmad judge",
    "starts objective export",
    "train scorer ridge",
    "main score monotone",
    "bench_score",
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
CONFIG_READERS = {"config", "main", "plan", "starts"}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path):
    """Modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffv2iqa_jax"):
            base = node.module.removeprefix("diffv2iqa_jax").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in LAYER else base


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    name = name_of(path)
    assert name in LAYER, f"{name} has no layer yet"
    for used in imports(path):
        if used:  # the package itself holds the version only
            assert LAYER[used] < LAYER[name], f"{name} may not import {used}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and (name_of(path), node.name) != ("train", "run"):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_programs_see_the_config_and_only_data_sees_tensorflow(path):
    text, name = path.read_text(), name_of(path)
    if "ml_collections" in text:
        assert name in CONFIG_READERS
    if "import tensorflow" in text:
        assert name.startswith("data.")


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
        "tasks",
        "restorers",
        "bench",
        "training.steps",
        "training.checkpoint",
        "report",
        "scorer",
    ]
    code = "import sys\n" + "\n".join(f"import diffv2iqa_jax.{n}" for n in names)
    code += "\nassert not {'tensorflow', 'clu', 'ml_collections'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
