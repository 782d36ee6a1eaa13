"""Configurations: rows of changes, differences, and one-line refusals."""

import difflib
import inspect
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffv2iqa_jax.errors import ConfigError

if TYPE_CHECKING:  # a report reads configurations where ml_collections is not installed
    from ml_collections import ConfigDict


def override(config: "ConfigDict | dict", changes: dict[str, Any]) -> "ConfigDict | dict":
    """Sets dotted keys; None removes one. A key that is not there is an error."""
    for key, value in changes.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part] if part in node else _lost(key, part, node)
        if last not in node:
            _lost(key, last, node)
        del node[last]
        if value is not None:
            node[last] = value
    return config


def pick(rows: dict[str, Any], name: str) -> Any:
    """The row of a configuration's table. Raises ConfigError: names the nearest."""
    if name not in rows:
        raise ConfigError(f"row {name!r}: no such row{_near(name, rows)}")
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
    """As JSON would give it back: dicts, lists, strings, numbers, booleans, None."""
    config = config if isinstance(config, dict) else config.to_dict()
    return json.loads(json.dumps(config))


def differences(old: dict, new: dict) -> list[str]:
    """One text for each dotted key whose value is not the same in both."""
    a, b = flat(plain(old)), flat(plain(new))
    gone = object()
    text = lambda d, k: repr(d[k]) if k in d else "absent"
    keys = sorted(k for k in a.keys() | b.keys() if a.get(k, gone) != b.get(k, gone))
    return [f"{k} ({text(a, k)} -> {text(b, k)})" for k in keys]


def call(fn: Callable, section: str, settings: dict, **given):
    """fn(**settings, **given), refusing a setting that fn does not read or does need.

    Raises:
      ConfigError: names the key with its section, and the nearest one there is.
    """
    parameters = inspect.signature(fn).parameters
    known = {k for k in parameters if k not in given}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in settings:
            if key not in known:
                raise ConfigError(f"config.{section}.{key}: no such key{_near(key, known)}")
    empty = inspect.Parameter.empty
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = {
        k for k in known if parameters[k].default is empty and parameters[k].kind not in kinds
    }
    missing = sorted(needed - set(settings))
    if missing:
        raise ConfigError(f"config.{section}: {missing} must be set; it has {sorted(settings)}")
    try:
        return fn(**settings, **given)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"config.{section}: {error}") from error


def only(config: dict, section: str, keys: tuple[str, ...]) -> None:
    """Refuses a section that does not have exactly these keys."""
    for key in config:
        if key not in keys:
            where = f"{section}.{key}".lstrip(".")
            raise ConfigError(f"config.{where}: no such key{_near(key, keys)}")
    missing = sorted(set(keys) - set(config))
    if missing:
        raise ConfigError(f"config.{section or '(top)'}: {missing} must be set")


def claim(workdir: str, config: dict) -> None:
    """Makes the run's folder, or checks that it is this configuration's.

    Raises:
      ConfigError: the folder is another configuration's, holds other things, or cannot be
        written; nothing has been changed then.
    """
    path = os.path.join(workdir, "config.json")
    if os.path.exists(path):
        try:
            with open(path) as file:
                old = json.load(file)
        except ValueError as error:
            raise ConfigError(f"{path}: not readable ({error}); use another workdir") from error
        changed = differences(old, config)
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise ConfigError(
                f"workdir {workdir}: holds a run of another configuration, which differs in "
                f"{', '.join(changed[:5])}{more}; use another workdir or that configuration"
            )
        return
    if os.path.exists(workdir) and (not os.path.isdir(workdir) or os.listdir(workdir)):
        raise ConfigError(f"workdir {workdir}: is there and is no run of ours; name a new folder")
    try:
        os.makedirs(workdir, exist_ok=True)
        write_json(path, plain(config))
    except OSError as error:
        raise ConfigError(f"workdir {workdir}: cannot be written ({error.strerror})") from error


def write_json(path: str, value) -> None:
    """Strict JSON (no NaN), complete or not there at all."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=1, allow_nan=False)
    os.replace(path + ".tmp", path)


def _lost(key: str, part: str, node):
    raise ConfigError(f"config.{key}: no such key{_near(part, node)}")


def _near(key: str, known) -> str:
    known = sorted(map(str, known))
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {known}"
