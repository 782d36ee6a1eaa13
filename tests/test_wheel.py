"""What is installed: every module, the configurations, what they need, and nothing beside."""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = ("diffv2iqa_jax", "configs", "pyproject.toml", "README.md", "LICENSE")


def test_every_folder_of_modules_is_a_package_that_is_installed():
    folders = {path.parent for path in (ROOT / "diffv2iqa_jax").rglob("*.py")}
    names = [".".join(folder.relative_to(ROOT).parts) for folder in folders]
    assert sorted(names) == PROJECT["tool"]["setuptools"]["packages"]
    assert all((folder / "__init__.py").exists() for folder in folders)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """A wheel of the working tree, built aside as pip does, without a network."""
    asked = PROJECT["build-system"]["requires"][0].partition(">=")[2]
    if int(metadata.version("setuptools").partition(".")[0]) < int(asked):
        pytest.skip(f"needs setuptools>={asked}: pip install -e '.[test]' brings it")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_a_wheel_holds_modules_configurations_and_data_and_nothing_beside(wheel):
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "diffv2iqa_jax").rglob("*.py")}
    files |= {f"diffv2iqa_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    files |= {"diffv2iqa_jax/data/splits.json", "diffv2iqa_jax/configs/README.md"}
    files |= {f"diffv2iqa_jax/weights/starter.{kind}" for kind in ("json", "safetensors")}
    assert held == files


@pytest.mark.slow
def test_an_installed_wheel_finds_its_configurations_from_any_folder(wheel, tmp_path, apart):
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    settings = {"cwd": empty, "capture_output": True, "text": True}
    settings["env"] = apart | {"PYTHONPATH": str(site), "XLA_FLAGS": ""}
    code = "import diffv2iqa_jax.configs.restore as c; print(c.__file__)"
    imported = subprocess.run([sys.executable, "-c", code], check=True, **settings).stdout.strip()
    assert imported == os.path.join(site, "diffv2iqa_jax", "configs", "restore.py")
    flags = ("--config", "quickstart", "--workdir", "run", "--dry_run", "--jit_cache=")
    command = [sys.executable, "-m", "diffv2iqa_jax.main", *flags]
    for stage in ("restore", "quality"):
        command.append(f"--config.stages.{stage}.data.folder={empty}")
    done = subprocess.run(command, **settings)
    assert done.returncode == 0, done.stderr
    assert "1000 steps x 16 images" in done.stdout and "4300 steps x 16 images" in done.stdout
    assert not any(empty.iterdir())
