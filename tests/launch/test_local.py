"""launch/local.py: several processes of one run on this host, one exit code."""

import importlib.util
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "local.py"
spec = importlib.util.spec_from_file_location("launch_local", SCRIPT)
local = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local)


@pytest.mark.parametrize(
    ("codes", "says_most"),
    [
        ([0, 0], 0),
        ([75, 75], 75),
        ([75, 71], 75),
        ([71, 2], 2),
        ([70, 71], 70),
        ([1, 71], 1),
        ([-9, 71], 137),
        ([2, 1], 2),
    ],
)
def test_a_refusal_says_more_than_what_it_made_of_the_others(codes, says_most):
    assert local.telling(codes) == says_most


def test_each_process_gets_its_number_and_its_lines_begin_with_it(capfd):
    code = "import sys; print(*sys.argv[1:]); sys.exit(2 * (sys.argv[-1] == '1'))"
    assert local.run([sys.executable, "-c", code, "--config=c"], 2) == 2
    first, second = sorted(capfd.readouterr().out.splitlines())
    assert first.startswith("0: --config=c --coordinator localhost:")
    assert first.endswith("--num_processes 2 --process_id 0")
    assert second == "1: " + first[3:-1] + "1"


def test_a_signal_goes_to_every_process(tmp_path):
    """The command line itself, around a module that waits for the signal."""
    package = tmp_path / "diffv2iqa_jax"
    package.mkdir()
    (package / "__init__.py").touch()
    waits = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(75))\n"
    (package / "main.py").write_text(waits + "print('waits', flush=True)\nsignal.pause()\n")
    argv = [sys.executable, str(SCRIPT), "--processes", "2", "--", "--config", "c"]
    child = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert sorted(child.stdout.readline() for _ in range(2)) == ["0: waits\n", "1: waits\n"]
    time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=20)[0] == "" and child.returncode == 75


def test_no_process_at_all_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        local.main(["--processes", "0", "--", "--config", "c"])
    assert left.value.code == 2 and "at least 1" in capsys.readouterr().err
