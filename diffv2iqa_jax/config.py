"""Configurations: where they lie, rows of changes, differences, and one-line refusals."""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import ConfigError, one_line, reason

if TYPE_CHECKING:  # a report reads configurations where ml_collections is not installed
    from ml_collections import ConfigDict

# Keys that change no result, so that a run may go on with others: how it is spread and watched.
FREE = (
    r"(stages\.[^.]+\.)?(devices\.\w+|every\.\w+|keep|tensorboard|optim\.remat|"
    r"pretrained\.allow_random)"
)
PACKAGED = "diffv2iqa_jax.configs"


def load(text: str) -> "ConfigDict":
    """What `get_config` returns, of "NAME", "NAME:ROW", "FILE.py" or "FILE.py:ROW".

    Args:
      text: NAME is a packaged configuration, whatever the current folder; FILE.py is a path. ROW
        goes to `get_config`.

    Raises:
      ConfigError: there is no such configuration or row, or the file does not make one; one line
        that names the file and the line in it.
    """
    from ml_collections import ConfigDict

    name, colon, row = text.partition(":")
    path = _locate(name)
    try:
        module = _imported(path)
        if not hasattr(module, "get_config"):
            raise ConfigError(f"--config {name}: has no function get_config that returns it")
        if colon and not inspect.signature(module.get_config).parameters:
            raise ConfigError(f"--config {text}: {name} has no rows; leave out ':{row}'")
        config = module.get_config(row) if colon else module.get_config()
    except ConfigError as error:  # a row or a key that is not there
        if str(error).startswith("--config"):
            raise
        raise ConfigError(f"--config {text}: {error}") from error
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise ConfigError(f"--config {text}: {_why(error, path)}") from error
    if not isinstance(config, ConfigDict | dict):
        kind = type(config).__name__
        raise ConfigError(f"--config {text}: get_config returns {kind}, no ConfigDict")
    return _unshared(ConfigDict(config))


def _unshared(config: "ConfigDict") -> "ConfigDict":
    """The same settings, where each section and list is an object of its own.

    ConfigDict keeps a dictionary that stands in two places as one, so an override of a key in
    one place would change the other. A FieldReference is shared on purpose, and stays so.
    """
    from ml_collections import ConfigDict

    own = ConfigDict()
    for key, value in config.items(preserve_field_references=True):
        if isinstance(value, ConfigDict):
            value = _unshared(value)
        own[key] = list(value) if isinstance(value, list) else value
    return own


def names() -> list[str]:
    """Names of the packaged configurations."""
    return sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(PACKAGED).__path__))


def _locate(name: str) -> str:
    """The file of a configuration, given by its name or its path."""
    if name in names():
        return importlib.util.find_spec(f"{PACKAGED}.{name}").origin
    if os.path.isfile(name) and not name.endswith(".py"):
        raise ConfigError(f"--config {name}: is no Python file; name FILE.py or one of {names()}")
    if os.path.isfile(name):
        return name
    if os.path.isdir(name):
        raise ConfigError(f"--config {name}: is a folder; name a file in it or one of {names()}")
    stem = os.path.basename(name).removesuffix(".py")
    if name == stem:
        raise ConfigError(f"--config {name}: no such configuration{near(name, names())}")
    packaged = f"; the packaged one is --config {stem}" if stem in names() else ""
    raise ConfigError(f"--config {name}: no such file{packaged or f'; packaged are {names()}'}")


def _imported(path: str) -> ModuleType:
    """The module that a file makes, run anew."""
    name = f"config_file_{os.path.basename(path).removesuffix('.py')}"
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, os.path.abspath(path)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in it look their module up
    spec.loader.exec_module(module)
    return module


def _why(error: BaseException, path: str) -> str:
    """What is wrong with a configuration's file, in one line that says where."""
    if isinstance(error, SyntaxError):
        line = f", line {error.lineno}" if error.lineno else ""
        return f"{error.filename or path}{line}: is no Python ({error.msg}); correct it"
    frames = traceback.extract_tb(error.__traceback__)
    frames = [f for f in frames if not f.filename.startswith("<") and f.filename != __file__]
    text = " ".join(str(error).split())
    if isinstance(error, ImportError):  # perhaps in a file that this one builds on
        if isinstance(error, ModuleNotFoundError) and error.name:
            text = f"imports {error.name!r}, which is not there"
        text += "; install or correct it"
    else:  # perhaps in a library: say which line of this file leads there
        frames = [f for f in frames if f.filename == os.path.abspath(path)] or frames
        text = f"raises {type(error).__name__}{text and f' ({text})'}; correct it"
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else path
    return f"{where}: {text}"


def override(config: "ConfigDict | dict", changes: dict[str, Any]) -> "ConfigDict | dict":
    """Sets dotted keys; None removes one. A key that is not there is an error."""
    for key, value in changes.items():
        node, last = holder(config, key)
        del node[last]
        if value is not None:
            node[last] = value
    return config


def holder(config: "ConfigDict | dict", key: str) -> tuple[Any, str]:
    """The section that holds a dotted key, and the key's name in it.

    Raises:
      ConfigError: there is no such key; names the nearest.
    """
    *path, last = key.split(".")
    node = config
    for name in path:
        node = node[name] if _has(node, name) else _lost(key, name, node)
    return (node, last) if _has(node, last) else _lost(key, last, node)


def pick(rows: dict[str, Any], name: str) -> Any:
    """The row of a configuration's table. Raises ConfigError: names the nearest."""
    if name not in rows:
        raise ConfigError(f"row {name!r}: no such row{near(name, rows)}")
    return rows[name]


def flat(config: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> {dotted key: value}; an empty dict is a value."""
    out = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def plain(config: "ConfigDict | dict") -> dict:
    """As JSON would give it back: dicts, lists, strings, numbers, booleans, None.

    Raises:
      ConfigError: a value that JSON does not have, such as NaN or a function; names its key.
    """
    config = config if isinstance(config, dict) else config.to_dict()
    try:
        return json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError):
        for key, value in flat(config).items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"config.{key} {value!r}: must be a finite number, text, a truth value, None, "
                    "or a list or dict of these"
                ) from error
        raise  # a key that is no text


def differences(old: dict, new: dict) -> list[str]:
    """One text for each dotted key whose value is not the same in both."""
    a, b = flat(plain(old)), flat(plain(new))
    absent = object()
    keys = sorted(k for k in a.keys() | b.keys() if a.get(k, absent) != b.get(k, absent))

    def shown(values: dict, key: str) -> str:
        return repr(values[key]) if key in values else "absent"

    return [f"{k} ({shown(a, k)} -> {shown(b, k)})" for k in keys]


@contextlib.contextmanager
def refusing(section: str) -> Iterator[None]:
    """Within it, what a function says against the values of a section names that section.

    Raises:
      ConfigError: in the place of a ValueError or TypeError.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise ConfigError(f"config.{section}: {one_line(error)}") from error


def call(fn: Callable, section: str, settings: dict, **given: Any) -> Any:
    """fn(**settings, **given), refusing a setting that fn does not read or does need.

    Raises:
      ConfigError: names the key with its section, and the nearest one there is.
    """
    if not _has(settings):
        raise ConfigError(f"config.{section} {settings!r}: must be a section")
    parameters = inspect.signature(fn).parameters
    known = {k for k in parameters if k not in given}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in settings:
            if key not in known:
                raise ConfigError(f"config.{section}.{key}: no such key{near(key, known)}")
    empty = inspect.Parameter.empty
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = {
        k for k in known if parameters[k].default is empty and parameters[k].kind not in kinds
    }
    missing = sorted(needed - set(settings))
    if missing:
        raise ConfigError(f"config.{section}: {missing} must be set; it has {sorted(settings)}")
    with refusing(section):
        return fn(**settings, **given)


def only(config: dict, section: str, keys: tuple[str, ...]) -> None:
    """Refuses a section that does not have exactly these keys."""
    if not _has(config):
        raise ConfigError(f"config.{section} {config!r}: must be a section with {sorted(keys)}")
    for key in config:
        if key not in keys:
            where = f"{section}.{key}".lstrip(".")
            raise ConfigError(f"config.{where}: no such key{near(key, keys)}")
    missing = sorted(set(keys) - set(config))
    if missing:
        raise ConfigError(f"config.{section or '(top)'}: {missing} must be set")


def claim(workdir: str, config: dict) -> None:
    """Makes the run's folder, or checks that it is this configuration's.

    Raises:
      ConfigError: the folder is another configuration's, holds other things, or cannot be
        written; nothing has been changed then.
    """
    check_workdir(workdir, config)
    path = os.path.join(workdir, "config.json")
    try:
        if not storage.exists(path) or json.loads(storage.read(path)) != plain(config):
            storage.make_folder(workdir)
            write_json(path, plain(config))
    except Exception as error:
        if not isinstance(error, OSError) and not storage.is_remote(workdir):
            raise
        raise ConfigError(no_access(f"workdir {workdir}", error)) from error


def check_workdir(workdir: str, config: dict) -> None:
    """Refuses a folder that `claim` would refuse; changes nothing.

    Raises:
      ConfigError: see `claim`.
    """
    path = os.path.join(workdir, "config.json")
    if not workdir.strip():
        raise ConfigError(f"--workdir {workdir!r}: must name the folder of this run")
    storage.check(workdir)
    try:
        there = storage.exists(path)
    except Exception as error:  # a client of a bucket raises classes of its own
        raise ConfigError(no_access(f"workdir {workdir}", error)) from error
    if there:
        try:
            old = dict(json.loads(storage.read(path)))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: not readable ({error}); use another workdir") from error
        changed = [
            text
            for text in differences(old, config)
            if not re.fullmatch(FREE, text.partition(" ")[0])
        ]
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise ConfigError(
                f"workdir {workdir}: holds a run of another configuration, which differs in "
                f"{', '.join(changed[:5])}{more}; use another workdir or that configuration"
            )
        return
    folder = storage.path(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"workdir {workdir}: is there and is no run of ours; name a new folder")
    if not storage.is_remote(workdir):
        _check_access(workdir)


def _check_access(workdir: str) -> None:
    """Refuses a folder that cannot be made: a file is in the way, or its owner does not let us."""
    place = Path(workdir).absolute()
    above = next(p for p in (place, *place.parents) if os.path.lexists(p))
    if not above.is_dir():
        raise ConfigError(f"workdir {workdir}: {above} is no folder; name another")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(no_access(f"workdir {workdir}", PermissionError(0, "Permission denied")))


def no_access(what: str, error: Exception) -> str:
    """One line for a folder that cannot be read or written, whatever its storage raised."""
    return f"{what}: cannot be written ({reason(error)}); give access to it or name another"


def write_json(path: str, value: Any) -> None:
    """Strict JSON (no NaN), complete or not there at all."""
    storage.write(path, json.dumps(value, indent=1, allow_nan=False))


def _has(node: Any, name: str | None = None) -> bool:
    """Whether this is a section; with a name, whether it has a key of that name."""
    return hasattr(node, "keys") and (name is None or name in node)


def _lost(key: str, name: str, node: Any) -> NoReturn:
    if not _has(node):
        raise ConfigError(f"config.{key}: no such key; {node!r} is a value, not a section")
    raise ConfigError(f"config.{key}: no such key{near(name, node)}")


def near(key: str, known: Iterable) -> str:
    """Ends a refusal: the nearest of the known names, or all of them."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {known}"
