"""The preflight: what it finds, that every process says so, that nothing stays."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from diffv2iqa_jax import config as configs
from diffv2iqa_jax import preflight
from diffv2iqa_jax.errors import ConfigError
from tests import runs
from tests.launch.slurm import free_ports

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ["processes", "versions", "configuration", "workdir", "disk", "data", "devices"]
NAMES += ["collective"]


@pytest.fixture
def config(tmp_path, data) -> str:
    return runs.two_stages(tmp_path / "two_stages.py", data)


def lines(text: str) -> dict[str, tuple[str, str]]:
    """Of each check that was printed: its mark and what it says."""
    found = re.findall(r"^(ok|FAILED) +(\w+) +(.+)$", text, re.M)
    return {name: (mark, says) for mark, name, says in found}


def together(config: str, *each: list[str]) -> list[tuple[int, str]]:
    """Runs one process for each list of further flags: exit codes and output."""
    (port,) = free_ports(1)
    base = [sys.executable, "-m", "diffv2iqa_jax.preflight", "--config", config]
    base += ["--coordinator", f"localhost:{port}", "--num_processes", str(len(each))]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "PYTHONWARNINGS": ""}
    how = dict(env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    children = [
        subprocess.Popen([*base, "--process_id", str(i), *more], **how)
        for i, more in enumerate(each)
    ]
    texts = [child.communicate(timeout=100)[0] for child in children]
    return [(child.returncode, text) for child, text in zip(children, texts, strict=True)]


def test_two_processes_that_can_work_say_so_and_leave_nothing(config, tmp_path):
    flags = ["--workdir", str(tmp_path / "run"), "--devices", "2"]
    (code, text), (other, silent) = together(config, flags, flags)
    assert (code, other) == (0, 0), text + silent
    assert [mark for mark, _ in lines(text).values()] == ["ok"] * len(NAMES)
    assert list(lines(text)) == NAMES and lines(silent) == {}
    assert "48 to train, 16 to test" in lines(text)["data"][1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_every_process_says_what_differs_between_them(config, tmp_path):
    rate = "--config.stages.restore.optim.lr=0.5"
    results = together(
        config, ["--workdir", str(tmp_path / "a")], ["--workdir", str(tmp_path / "b"), rate]
    )
    for index, (place, (code, text)) in enumerate(zip("ab", results, strict=True)):
        said = lines(text)
        assert code == 2, text
        assert [name for name, (mark, _) in said.items() if mark != "ok"] == [
            "configuration",
            "workdir",
        ]
        assert "restore.optim.lr" in said["configuration"][1]
        assert (
            f"{tmp_path / place}: what process {1 - index} wrote is not there for process {index};"
            in said["workdir"][1]
        )
        assert "collective" not in said  # it could hang
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("flags", "name", "message"),
    [
        (["--devices", "3"], "devices", "--devices 3: there are 4, 4 here"),
        (["--config.stages.quality.data.batch=6"], "devices", "must be a multiple of 4 devices"),
        (["--config.stages.restore.data.name=livec"], "data", "livec"),
        (["--workdir", "file/run"], "workdir", "file/run: cannot be written (Not a directory)"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(
    config, tmp_path, monkeypatch, capsys, flags, name, message
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").touch()
    assert preflight.main(["--config", config, "--workdir", "run", *flags]) == 2
    said = lines(capsys.readouterr().out)
    assert [key for key, (mark, _) in said.items() if mark != "ok"] == [name]
    assert message in said[name][1]
    assert not pathlib.Path("run").exists()


def test_a_disk_that_is_full_is_refused(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "LEAST_FREE", 2**60)
    assert preflight.main(["--config", config, "--workdir", str(tmp_path / "run")]) == 2
    assert "GiB free" in lines(capsys.readouterr().out)["disk"][1]


def test_overrides_are_read_as_main_reads_them():
    flags = ["--config", "restore", "--workdir", "w", "--config.data.batch=32"]
    flags += ["--config.data.folder=5", "--config.tensorboard=false"]
    flags += ["--config.data.fractions=(0.5, 0.25, 0.25)"]
    wanted = configs.plain(configs.load("restore"))
    wanted["tensorboard"] = False
    wanted["data"] |= {"batch": 32, "folder": "5", "fractions": [0.5, 0.25, 0.25]}
    assert json.dumps(preflight.settings(preflight.parse(flags))) == json.dumps(wanted)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.data.sise=3", "did you mean 'size'?"),
        ("--config.data.batch=many", "config.data.batch 'many'"),
    ],
)
def test_a_wrong_override_is_refused(flag, message, capsys):
    flags = ["--config", "restore", "--workdir", "w", flag]
    with pytest.raises(ConfigError, match=re.escape(message)):
        preflight.settings(preflight.parse(flags))
    assert preflight.main(flags) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_flag_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        preflight.main(["--config", "restore", "--workdir", "w", "--devises=3"])
    assert left.value.code == 2 and "--devises=3" in capsys.readouterr().err
