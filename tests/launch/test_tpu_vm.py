"""launch/tpu_vm.sh: with a cloud of folders, and before the parser of the real gcloud."""

import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import threading

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "tpu_vm.sh"
FLAGS = ("--config", "restore", "--workdir", "gs://bucket/a b")
# What `uv venv` makes: a python that notes how it was asked, and ends with the next of the codes.
TOOLS = {
    "python3": "#!/bin/sh\nexit 0\n",
    "uv": """#!/bin/bash
echo "uv $*" >> "$CLOUD/asked"
[ "$1" = venv ] || exit 0
mkdir -p venv/bin
cat > venv/bin/python <<'P'
#!/bin/bash
printf '%s\\n' "$*" >> "$CLOUD/asked"
while [ -f "$CLOUD/hold" ]; do sleep .1; done
codes="$CLOUD/codes-$(basename "$HOME")"
code=$(head -n 1 "$codes") && sed -i 1d "$codes"
exit "$code"
P
chmod +x venv/bin/python
""",
}


@pytest.fixture
def cloud(tmp_path):
    """Runs the script in a cloud of folders: (arguments, settings) -> the finished process."""
    (tmp_path / "tools").mkdir()
    for name, text in TOOLS.items():
        (tmp_path / "tools" / name).write_text(text)
        (tmp_path / "tools" / name).chmod(0o755)
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "tests" / "launch" / "gcloud", tmp_path / "bin")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    settings = {"NAME": "n", "ZONE": "z", "TYPE": "v6e-16", "POLL": "0.2", "CLOUD": str(tmp_path)}

    def run(*argv: str, **more: str) -> subprocess.CompletedProcess:
        env = {**os.environ, "PATH": path, **settings, **more}
        argv = ["bash", str(SCRIPT), *argv]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)

    return run


def codes(folder, *hosts: str) -> None:
    """What the runs on each host will end with."""
    for number, text in enumerate(hosts):
        (folder / f"codes-host{number}").write_text("\n".join(text.split()) + "\n")


def calls(folder) -> list[str]:
    """The commands that gcloud was asked for, without those that only look."""
    lines = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [line[4] for line in lines if line[4] != "describe"]


def test_step_by_step(cloud, tmp_path):
    assert cloud("wait").returncode == 1  # nothing was created
    assert cloud("create").returncode == 0
    assert cloud("run", *FLAGS).returncode == 255  # not there yet
    assert cloud("wait").returncode == 0
    assert cloud("install").returncode == 0
    with tarfile.open(tmp_path / "host1" / "source.tar") as source:
        assert {"pyproject.toml", "configs/restore.py"} <= set(source.getnames())
    assert (tmp_path / "host1" / "source" / "diffv2iqa_jax" / "main.py").is_file()
    (tmp_path / "hold").touch()
    codes(tmp_path, "75", "75")
    assert cloud("run", *FLAGS).returncode == 0  # it returns while the run goes on
    assert cloud("status").stdout.split()[1::2] == ["running", "running"]
    again = cloud("run", *FLAGS)
    assert again.returncode == 1 and "a run goes on" in again.stdout
    assert "stop it first" in cloud("install").stdout
    (tmp_path / "hold").unlink()
    while "running" in (shown := cloud("status").stdout):
        pass
    assert shown.split()[1::2] == ["75", "75"]
    asked = (tmp_path / "asked").read_text().splitlines()
    wanted = f"-m diffv2iqa_jax.main {' '.join(FLAGS)} --distributed"
    assert asked.count(wanted) == 2 and "uv pip install" in asked[1] and "[tpu,gs]" in asked[1]
    (tmp_path / "host1" / "run.log").write_text("a\nb\n")
    assert cloud("logs", "-n", "1").stdout.splitlines()[-1].endswith(": b")
    assert cloud("delete").returncode == 0 and not (tmp_path / "state").exists()


@pytest.mark.slow
def test_train_starts_over_what_stopped_or_was_preempted_and_deletes_what_is_done(cloud, tmp_path):
    codes(tmp_path, "0 75 71 0", "0 75 137 0")  # the first is preempted before anybody looks
    (tmp_path / "preempt").touch()
    done = cloud("train", *FLAGS)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "state").exists()
    asked = calls(tmp_path)
    assert asked.count("create") == 2 and asked.count("delete") == 2 and asked[-1] == "delete"
    assert done.stderr.count("once more") == 3


@pytest.mark.parametrize("ended", [("2", "71"), ("71", "70")])
def test_train_leaves_what_failed_for_a_look_at_it(cloud, tmp_path, ended):
    codes(tmp_path, *ended)
    done = cloud("train", *FLAGS)
    assert done.returncode in (2, 70) and str(done.returncode) in ended
    assert "stays, and costs" in done.stderr and "delete" not in calls(tmp_path)


@pytest.mark.slow
def test_train_gives_up_at_last(cloud, tmp_path):
    codes(tmp_path, "75", "75")
    done = cloud("train", *FLAGS, RESTARTS="0")
    assert done.returncode == 75 and "not done after 0 more" in done.stderr


def test_train_started_again_waits_for_the_run_that_goes_on(cloud, tmp_path):
    codes(tmp_path, "0", "0")
    for command in ("create", "wait", "install"):
        assert cloud(command).returncode == 0
    (tmp_path / "hold").touch()
    assert cloud("run", *FLAGS).returncode == 0
    threading.Timer(1, (tmp_path / "hold").unlink).start()
    assert cloud("train", *FLAGS).returncode == 0
    assert calls(tmp_path).count("scp") == 1


EVERY = [["train", *FLAGS], ["preflight", *FLAGS], ["logs", "-f"], ["stop"]]


def dry(cloud, argv: list[str], **settings: str) -> list[list[str]]:
    """The commands that a dry run prints."""
    done = cloud(*argv, DRY_RUN="1", **settings)
    assert done.returncode == 0, done.stderr
    # As a shell reads them: shlex does not know its $'...'.
    words = ["bash", "-c", "".join(f"printf '%s\\0' {x}; echo; " for x in done.stdout.splitlines())]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [line.split("\0") for line in shown.split("\0\n")[:-1]]


def test_a_dry_run_asks_for_nothing_and_prints_commands_that_can_be_read(cloud, tmp_path):
    lines = [line for argv in EVERY for line in dry(cloud, argv, PROJECT="p")]
    assert not (tmp_path / "calls").exists()
    assert [line[3:5] for line in lines[:3]] == [
        ["queued-resources", "create"],
        ["queued-resources", "describe"],
        ["tpu-vm", "scp"],
    ]
    assert all(line[-2:] == ["--zone=z", "--project=p"] for line in lines)
    (create, *_) = dry(cloud, ["create"], TYPE="v5litepod-16", SPOT="0")
    assert "--runtime-version=v2-alpha-tpuv5-lite" in create and "--spot" not in create
    for line in lines:
        for word in line:
            if word.startswith("--command="):
                subprocess.run(["bash", "-n", "-c", word.removeprefix("--command=")], check=True)


@pytest.mark.parametrize("argv", EVERY, ids=lambda argv: argv[0])
def test_the_real_gcloud_understands_it(cloud, tmp_path, argv):
    """Without a network: exit code 1, as there is no account; 2 for what it cannot parse."""
    gcloud = shutil.which("gcloud")
    apart = ["unshare", "--map-root-user", "--net"]
    if not gcloud or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("needs gcloud, and a network namespace to keep it in")
    env = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    env["CLOUDSDK_CORE_CHECK_GCE_METADATA"] = "false"
    (first, *lines) = dry(cloud, argv)
    for line, code in [([*first, "--no-such-flag"], 2), (first, 1), *((x, 1) for x in lines)]:
        done = subprocess.run([*apart, *line], env=env, capture_output=True, text=True)
        assert done.returncode == code, done.stderr


def test_without_a_name_or_with_an_unknown_command_it_says_what_it_needs(cloud):
    assert "name of the slice" in cloud("create", NAME="").stderr
    assert "runtime version of v9-8" in cloud("create", TYPE="v9-8").stderr
    assert cloud("creat").returncode == 2
