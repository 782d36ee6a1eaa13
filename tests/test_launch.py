"""launch/splits.py: the commands it prints, and that it runs them."""

import importlib.util
import pathlib
import shlex
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("launch_splits", ROOT / "launch" / "splits.py")
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)


def printed(capsys, *argv):
    assert launch.main(["--workdir", "w", *argv]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("config", [str(ROOT / "configs" / "diffv2iqa.py"), "diffv2iqa"])
def test_one_command_for_each_set_and_split(config, capsys):
    argv = ("--config", f"{config}:release", "--sets", "livec", "koniq10k@512", "--splits", "3")
    lines = printed(capsys, *argv, "--", "--config.restorer.run=r")
    assert len(lines) == 6 and len({tuple(line) for line in lines}) == 6
    assert len({line[line.index("--workdir") + 1] for line in lines}) == 6
    last = lines[-1]
    assert last[:3] == ["python", "-m", "diffv2iqa_jax.main"] and f"{config}:release" in last
    assert {"--config.data.name=koniq10k@512", "--config.data.split=2"} <= set(last)
    assert "--config.data.fractions=(0.6, 0.2, 0.2)" in last
    assert last[-1] == "--config.restorer.run=r"
    assert str(pathlib.Path("w", "koniq10k_512", "split-2")) in last


def test_every_stage_of_a_configuration_gets_the_same_data(capsys):
    (line,) = printed(capsys, "--config", "quickstart", "--sets", "csiq", "--splits", "1")
    for stage in ("restore", "quality"):
        assert f"--config.stages.{stage}.data.name=csiq" in line


@pytest.mark.parametrize("preset", launch.PRESETS)
def test_a_preset_learns_on_all_of_one_and_tests_on_all_of_others(preset, capsys):
    lines = printed(capsys, "--config", "diffv2iqa", "--preset", preset)
    tests = sum(map(len, launch.PRESETS[preset].values()))
    assert len(lines) == len(launch.PRESETS[preset]) + tests
    learned = None
    for line in lines:
        assert "--config.data.parts=all" in line
        if "--on" in line:
            on = line[line.index("--on") + 1]
            assert on in launch.PRESETS[preset][learned] and f"--config.data.name={learned}" in line
        else:
            learned = next(f for f in line if "data.name" in f).partition("=")[2]


def test_presets_name_sets_there_are():
    from diffv2iqa_jax.data.sets.catalog import SETS

    for preset in launch.PRESETS.values():
        for name, others in preset.items():
            assert name in SETS and set(others) <= SETS.keys() and name not in others


def test_chains_run_in_order_and_stop_where_a_command_fails(tmp_path, capsys):
    def note(text: str) -> list[str]:
        code = f"open(r'{tmp_path / 'out'}', 'a').write('{text}\\n')"
        return [sys.executable, "-c", code]

    fail = [sys.executable, "-c", "raise SystemExit(3)"]
    chains = [
        launch.Chain("a", [note("a1"), note("a2")]),
        launch.Chain("b", [note("b1"), fail, note("b3")]),
    ]
    assert launch.run(chains, 2, tmp_path / "logs") == [0, 3]
    lines = (tmp_path / "out").read_text().split()
    assert sorted(lines) == ["a1", "a2", "b1"] and lines.index("a1") < lines.index("a2")
    out = capsys.readouterr().out
    assert "exit code 3" in out and "0001.log" in out


def test_a_set_that_is_refused_is_not_tried_again_and_the_others_go_on(tmp_path, capsys):
    said = "import sys; print('error: no'); sys.exit({})"
    refuse, done = ([sys.executable, "-c", said.format(code)] for code in (2, 0))
    chains = [launch.Chain("bad", [refuse, done]), launch.Chain("good", [done])]
    chains += [launch.Chain("bad", [done]), launch.Chain("good", [done, done])]
    assert launch.run(chains, 1, tmp_path / "logs") == [2, 0, 2, 0]
    out = capsys.readouterr().out
    assert "exit code 2" in out and "bad: not started, as one was refused, see " in out
    assert not (tmp_path / "logs" / "0002.log").exists()


def test_a_set_that_is_not_prepared_is_refused_once_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    argv = ["--config", "maniqa", "--workdir", str(tmp_path / "w"), "--sets", "livec"]
    argv += ["--splits", "3", "--jobs", "1", "--", f"--config.data.folder={tmp_path}"]
    assert launch.main(argv) == 2
    out = capsys.readouterr().out
    assert out.count("exit code 2") == 1 and out.count("livec: not started") == 2
    assert "0 of 3 chains complete" in out and [*(tmp_path / "w").iterdir()] == [
        tmp_path / "w/logs"
    ]
    (log,) = (tmp_path / "w" / "logs").iterdir()
    assert "prepare it with python -m diffv2iqa_jax.data.prepare livec" in log.read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "nothing to do"),
        (["--sets", "x", "--jobs", "0"], "--splits and --jobs must be at least 1"),
        (["--sets", "x", "--config", "no.py"], "--config no.py: no such file"),
        (["--sets", "x", "--config", "restor"], "did you mean 'restore'?"),
        (["--sets", "x", "--config", "restore:bas"], "did you mean 'base'?"),
    ],
)
def test_bad_flags_run_nothing_and_say_why(argv, message, capsys):
    with pytest.raises(SystemExit) as left:
        launch.main(["--config", "restore", "--workdir", "w", *argv])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out
