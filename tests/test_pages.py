"""Every command, block of code, file and link in the pages is real: run, or parsed by its command.

A page is any .md file of the repository. Commands go through the parsers of the commands
themselves, and a configuration through its file and the overrides; Python is run; shell
scripts are run with a `python` that only writes down what it is asked for.
"""

import argparse
import copy
import functools
import importlib
import importlib.metadata
import itertools
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from PIL import Image

import diffv2iqa_jax
from diffv2iqa_jax import config as configs
from diffv2iqa_jax import main, preflight
from diffv2iqa_jax.scoring import program, scorer
from diffv2iqa_jax.training import chain
from tests import pictures

ROOT = pathlib.Path(__file__).parents[1]
SKIPPED = {".venv", "build", "dist", "runs", "node_modules"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.md")
    if not any(p in SKIPPED or p.startswith(".") for p in path.relative_to(ROOT).parts)
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
UNIX = {"find", "cat", "tail"}
OURS = re.compile(
    r"(?:[A-Z]+=\S+ )*"
    r"(?:python -m diffv2iqa_jax\.|(?:python|bash) launch/\w|sbatch -|kubectl |docker )"
)
PLACE = re.compile(r"(?:configs|diffv2iqa_jax|launch|tests)/[\w./-]*\w")
RUNNERS = {"python", "python3", ".venv/bin/python"}
FILES = {("kubectl", "apply"): "-f", ("docker", "build"): "--file"}  # which option names one
INSTALLERS = {"pip", ".venv/bin/pip"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """The page without its blocks."""
    return FENCE.sub("", text_of(page))


def spans(page: str) -> list[str]:
    """What stands between backticks, also over the end of a line."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


def blocks(page: str, *languages: str) -> list[str]:
    return [code for _, name, code in FENCE.findall(text_of(page)) if name in languages]


def words_of(line: str) -> list[list[str]]:
    """The words of each command of a line: joined by && or ; or a pipe, in parentheses or not."""
    line = re.sub(r" >{1,2} \S+$", "", line.strip())
    parts = re.split(r" && | \| |; ", line)
    return [shlex.split(part.strip("() "), comments=True) for part in parts]


def commands(page: str) -> list[list[str]]:
    """Every command of a page's blocks as its words."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines for words in words_of(line) if words]


def mentions(page: str) -> list[list[str]]:
    """Every command in a page's text as its words; arguments may be left out there."""
    return [words for span in spans(page) if OURS.match(span) for words in words_of(span)]


EVERY = [(page, words) for page in PAGES for words in commands(page)]
MENTIONED = [(page, words) for page in PAGES for words in mentions(page)]


class Parsed(BaseException):
    """A command has read its arguments; nothing below it catches this."""


def parse_by_argparse(module, argv: list[str], monkeypatch) -> None:
    """Lets a command read its arguments, and stops it there."""

    def parse(parser, args=None, namespace=None):
        real(parser, args, namespace)
        raise Parsed

    real = argparse.ArgumentParser.parse_args
    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(Parsed):
            module.main(argv)


class Refused(BaseException):
    """What argparse says; nothing below it catches this."""


@pytest.fixture(autouse=True)
def refusals_are_raised(monkeypatch):
    def refuse(parser, message):
        raise Refused(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)


def parse_by_main(argv: list[str], monkeypatch) -> dict:
    """The configuration that the flags of `main` make, checked as `main` checks it."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", lock_config=True, flag_values=values)
    values["config"].parser = main.ConfigParser()
    for flag in flags.FLAGS.flags_by_module_dict()[main.__name__]:
        if flag.name not in values:
            values[flag.name] = copy.deepcopy(flag)
    monkeypatch.setattr(sys, "argv", ["main", *argv])
    rest = values(sys.argv)
    assert rest == ["main"], f"{rest[1:]}: no flags of main"
    assert values.workdir, "--workdir is missing"
    assert not values.on or values.mode == "evaluate"
    config = configs.plain(values.config)
    chain.check(config)
    return config


def check_python(argv: list[str], monkeypatch, tmp_path) -> None:
    if argv[:2] == ["-m", "venv"]:
        return
    if argv[0].startswith("launch/"):
        assert (ROOT / argv[0]).is_file(), f"{argv[0]}: no such file"
        parse_launcher(pathlib.Path(argv[0]).stem, argv[1:], monkeypatch)
        return
    if pathlib.Path(argv[0]).name == program.LOADER:  # `export` has written it
        return
    assert argv[0] == "-m", f"{argv}: no rule for it"
    name, argv = argv[1], argv[2:]
    if name == "pytest":
        missing = [word for word in argv if "/" in word and not (ROOT / word).exists()]
        assert not missing, f"{missing}: no such file"
        return
    module = importlib.import_module(name)
    source = pathlib.Path(module.__file__).read_text()
    assert 'if __name__ == "__main__":' in source, f"{name} is no command"
    monkeypatch.chdir(tmp_path)
    fill_in(argv, tmp_path)
    if module is main:
        parse_by_main(argv, monkeypatch)
    elif hasattr(module, "parse"):  # it checks more than argparse does
        module.parse(argv)
    else:
        parse_by_argparse(module, argv, monkeypatch)


def fill_in(argv: list[str], folder: pathlib.Path) -> None:
    """Makes the folders that stand in CAPITALS, with a photo in each."""
    for name in re.findall(r"\b[A-Z][A-Z0-9]+\b", " ".join(argv)):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(pictures.picture(40, 48)).save(folder / name / "photo.png")


def launcher_of(name: str):
    """A module of launch/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.py")
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    return launcher


def parse_launcher(name: str, argv: list[str], monkeypatch) -> None:
    """What a launcher starts must be a command of `main`, too."""
    launcher = launcher_of(name)
    if argv == ["--help"]:
        return
    if name == "local":
        parse_by_main(launcher.parse(argv).more, monkeypatch)
        return
    o, prefixes = launcher.parse(argv)
    chain = launcher.chains(o, prefixes)[0].commands
    parse_by_main(chain[0][3:], monkeypatch)


def check_script(script: str, argv: list[str], settings: dict, tmp_path, monkeypatch) -> None:
    """Runs a script whose `python` writes down its arguments, and checks each of those."""
    assert (ROOT / script).is_file(), f"{script}: no such file"
    if script == "launch/tpu_vm.sh":
        check_tpu_vm(argv, settings, monkeypatch)
        return
    log, folder = tmp_path / "log", tmp_path / "bin"
    folder.mkdir()
    recorder = folder / "python"
    recorder.write_text(f'#!/bin/sh\n{{ printf "%s\\037" "$@"; echo; }} >> {log}\n')
    recorder.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **settings, "PATH": path}
    out = [str(tmp_path / argv[0]), *argv[1:]]
    subprocess.run(["bash", str(ROOT / script), *out], check=True, env=env, cwd=ROOT)
    asked = [line.split("\037")[:-1] for line in log.read_text().splitlines()]
    assert len(asked) > 3
    for words in asked:
        check_python(words, monkeypatch, tmp_path)


def check_tpu_vm(argv: list[str], settings: dict, monkeypatch) -> None:
    """Lets the script say what it would do; the flags it passes on are of what it runs."""
    example = {"NAME": "n", "ZONE": "z", "TYPE": "v6e-16"}  # a block exports them on another line
    env = {**os.environ, **example, **settings, "DRY_RUN": "1"}
    script = ["bash", str(ROOT / "launch" / "tpu_vm.sh"), *(argv or ["status"])]
    done = subprocess.run(script, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "gcloud" in done.stdout, done.stderr
    if argv[:1] == ["preflight"]:
        preflight.parse(argv[1:])
    elif argv[:1] in (["run"], ["train"]):
        parse_by_main(argv[1:], monkeypatch)


def check_sbatch(argv: list[str], monkeypatch) -> None:
    options = list(itertools.takewhile(lambda word: word.startswith("-"), argv))
    assert all(re.fullmatch("--(nodes|gres|time)=.+", word) for word in options), options
    script, *flags_of_main = argv[len(options) :]
    assert script == "launch/slurm.sbatch"
    parse_by_main(flags_of_main, monkeypatch)


def check_file(argv: list[str], option: str) -> None:
    """A command of a program that is not here: the file that it names is."""
    assert (ROOT / argv[argv.index(option) + 1]).is_file(), argv


def check_pip(argv: list[str]) -> None:
    assert argv[0] == "install", f"pip {argv}: no rule for it"
    for wanted in (word for word in argv[1:] if not word.startswith("-")):
        name, extras = re.fullmatch(r"([\w.]+)(?:\[(.+)\])?(?:<[\d.]+)?", wanted).groups()
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        if name == ".":
            offered = settings["optional-dependencies"]
        else:
            offered = importlib.metadata.metadata(name).get_all("Provides-Extra")
            assert any(line.startswith(f"{name}>=") for line in settings["dependencies"])
        assert set(extras.split(",") if extras else ()) <= set(offered), wanted


def check(command: list[str], monkeypatch, tmp_path) -> None:
    """Refuses a command that would not even start."""
    settings = dict(itertools.takewhile(bool, (assignment(word) for word in command)))
    name, *argv = command[len(settings) :]
    if name in RUNNERS:
        check_python(argv, monkeypatch, tmp_path)
    elif name in INSTALLERS:
        check_pip(argv)
    elif name == "sbatch":
        check_sbatch(argv, monkeypatch)
    elif (name, *argv[:1]) in FILES:
        check_file(argv, FILES[name, argv[0]])
    elif name == "export":
        assert all(assignment(word) for word in argv), argv
    elif name == "bash":
        check_script(argv[0], argv[1:], settings, tmp_path, monkeypatch)
    else:
        assert name in UNIX and shutil.which(name), f"{name}: no rule for it"


def assignment(word: str) -> tuple[str, str] | None:
    name, sign, value = word.partition("=")
    return (name, value) if sign and re.fullmatch("[A-Z0-9_]+", name) else None


def names_of(cases: list) -> list[str]:
    return [f"{page}: {' '.join(words)[:90]}" for page, words in cases]


@pytest.mark.parametrize(("page", "words"), EVERY, ids=names_of(EVERY))
def test_a_command_is_understood(page, words, monkeypatch, tmp_path):
    check(words, monkeypatch, tmp_path)


@pytest.mark.parametrize(("page", "words"), MENTIONED, ids=names_of(MENTIONED))
def test_a_command_in_the_text_is_understood(page, words, monkeypatch, tmp_path):
    try:
        check(words, monkeypatch, tmp_path)
    except (Refused, AssertionError) as refused:
        if not re.search("arguments are required|--workdir is missing", str(refused)):
            raise


WRONG = {
    "python -m diffv2iqa_jax.score photos/ --map maps/": "no such option",
    "python -m diffv2iqa_jax.nothing photos/": "No module named",
    "python -m diffv2iqa_jax.pixels photos/": "is no command",
    "python -m diffv2iqa_jax.report": "arguments are required",
    "python -m diffv2iqa_jax.convert vit a.npz b.safetensors": "invalid choice",
    "python -m diffv2iqa_jax.bench unet_backward": "known are",
    "python -m diffv2iqa_jax.main --config restore": "--workdir is missing",
    "python -m diffv2iqa_jax.main --config quickest --workdir w": "no such configuration",
    "python -m diffv2iqa_jax.main --config small:none --workdir w": "no such row",
    "python -m diffv2iqa_jax.main --config sr3 --workdir w --config.data.sise=3": "no such key",
    "python -m diffv2iqa_jax.main --config sr3 --workdir w --config.data.size=large": "invalid",
    "python -m diffv2iqa_jax.main --config sr3 --workdir w --config.optim.name=no": "known are",
    "python -m diffv2iqa_jax.main --config sr3 --workdir w --dry": "Unknown command line flag",
    "python -m diffv2iqa_jax.main --config sr3 --workdir w --mode test": "one of",
    "python -m diffv2iqa_jax.main --config sr3 --workdir w again": "no flags of main",
    "python launch/splits.py --config sr3 --workdir w --preset classic": "invalid choice",
    "python launch/nothing.py": "launch/nothing.py",
    "python -m pytest tests/nothing": "tests/nothing",
    "python launch/local.py --processes 2 -- --config quickest --workdir w": "no such config",
    "python -m diffv2iqa_jax.preflight --config sr3 --workdir w --device 2": "unrecognized",
    "bash launch/nothing.sh w": "launch/nothing.sh",
    "bash launch/tpu_vm.sh trai --config sr3 --workdir w": "its head lists the commands",
    "bash launch/tpu_vm.sh train --config sr3": "--workdir is missing",
    "sbatch --node=4 launch/slurm.sbatch --config sr3 --workdir w": "--node=4",
    "sbatch launch/slurm.sbatch --config sr3 --workdirs w": "Unknown command line flag",
    "kubectl apply -f launch/jobsets.yaml": "jobsets.yaml",
    "pip install jax[gpu]": "jax[gpu]",
    "pip install -e .[tests]": ".[tests]",
    "rm -r runs": "no rule for it",
}


@pytest.mark.parametrize(("line", "why"), WRONG.items(), ids=WRONG)
def test_a_wrong_command_is_refused(line, why, monkeypatch, tmp_path):
    """What the test above would miss if it were too lenient."""
    with pytest.raises(BaseException, match=re.escape(why)):
        check(shlex.split(line), monkeypatch, tmp_path)


@pytest.fixture
def small_pictures(tmp_path, monkeypatch):
    """A folder with the files that blocks of Python name."""
    Image.fromarray(pictures.picture(40, 48)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The pages load the same weights: what is compiled for one serves the others.
load_once = functools.cache(scorer.load)
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_blocks_of_python_run_one_after_the_other(page, small_pictures, monkeypatch, capsys):
    monkeypatch.setattr(scorer, "load", load_once)
    names = {}
    for code in blocks(page, "python"):
        (small_pictures / "block.py").write_text(code)
        names = runpy.run_path("block.py", init_globals=names)
        if "get_config" in names:
            chain.check(configs.plain(names["get_config"]()))
        elif "print(" in code:
            assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_kind_that_is_checked(page):
    kinds = {name for _, name, _ in FENCE.findall(text_of(page))}
    assert kinds <= {"bash", "python", "bibtex"}, kinds
    assert text_of(page).count("```") == 2 * len(FENCE.findall(text_of(page)))


def anchors(page: pathlib.Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_pictures_of_a_reasonable_size(page):
    for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(page)):
        path = (ROOT / page).parent / link
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 10 and picture.width >= 800
        assert path.stat().st_size < 600_000


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    for span in spans(page):
        if PLACE.fullmatch(span.partition(":")[0]):
            assert (ROOT / span.partition(":")[0]).exists(), span


def known_keys() -> set[str]:
    """Dotted keys of every packaged configuration, sections too, without the stage's prefix."""
    keys = set()
    for name in configs.names():
        config = configs.plain(configs.load(name))
        for settings in [config, *config.get("stages", {}).values()]:
            for key in configs.flat(settings):
                parts = key.split(".")
                keys |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return keys


KEYS = known_keys()


@pytest.mark.parametrize("page", PAGES)
def test_keys_that_are_named_exist(page):
    for span in spans(page):
        for key in re.findall(r"--config\.([\w.]+)(?==)", span):
            assert key in KEYS or key == "a.b", span


@pytest.fixture(scope="module")
def options():
    """Options of every command, those of `main` too."""
    seen = {f"--{flag.name}" for flag in flags.FLAGS.flags_by_module_dict()[main.__name__]}
    add = argparse.ArgumentParser.add_argument

    def note(parser, *names, **settings):
        seen.update(names)
        return add(parser, *names, **settings)

    def stop(*args, **kwargs):
        raise Parsed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(argparse._ActionsContainer, "add_argument", note)
        for method in ("parse_args", "parse_known_args"):
            patched.setattr(argparse.ArgumentParser, method, stop)
        for name in sorted(
            {command[2] for _, command in EVERY + MENTIONED if command[1:2] == ["-m"]}
        ):
            if name.startswith("diffv2iqa_jax.") and name != main.__name__:
                with pytest.raises(Parsed):
                    importlib.import_module(name).main([])
        for name in ("splits", "local"):
            with pytest.raises(Parsed):
                launcher_of(name).main([])
    return seen


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_exist(page, options):
    for span in spans(page):
        if re.match(r"--[a-z]", span) and not span.startswith("--config."):
            assert re.split(r"[ =]", span)[0] in options, span


def test_rows_that_are_named_exist():
    """The table of files in configs/README.md: each row can be loaded."""
    table = re.findall(r"^\| (\w+)\.py \|.*\|(.*)\|$", text_of("configs/README.md"), re.M)
    assert {name for name, _ in table} == set(configs.names())
    for name, cell in table:
        for row in SPAN.findall(cell):
            assert configs.load(f"{name}:{row}")


def test_the_readme_is_short():
    assert len(text_of("README.md").split()) < 900


def test_ci_finds_its_command_in_the_readme():
    block = re.search(r"^<!-- test -->\n```bash\n(.+)\n```$", text_of("README.md"), re.M)
    assert "pytest" in block[1] and "\n" not in block[1]
    assert diffv2iqa_jax.__name__ in text_of("README.md")
