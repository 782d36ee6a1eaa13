"""Converts published weights to ours, strictly, and reads and writes our files of weights.

Our file is FILE.safetensors, whose tensors are named params/... and stats/..., with a card
beside it, FILE.json. The card says what net the weights are for, its settings, how to normalise
its input, and the SHA-256 of FILE.safetensors. `load` refuses a file that its card does not fit.
"""

import hashlib
import json
import os
import pathlib
import re
import struct
from typing import NamedTuple

import flax
import numpy as np
import safetensors
import safetensors.numpy

from diffv2iqa_jax import storage
from diffv2iqa_jax.types import Weights
from diffv2iqa_jax.weights import renames

FORMAT = 1
MAX_HEADER = 100_000_000  # bytes: no net has enough names for a longer one


class Renamed(NamedTuple):
    """Tensors in our layout by our flat names, and what became of each published tensor.

    Attributes:
      tensors: "params/..." or "stats/..." -> float32 array.
      report: of each, (published name, published shape, our name or "dropped").
      unknown: published names that no rule matches.
    """

    tensors: dict[str, np.ndarray]
    report: list[tuple[str, tuple[int, ...], str]]
    unknown: list[str]


def rename(kind: str, tensors: dict[str, np.ndarray]) -> Renamed:
    """Gives published tensors our names and layouts, by the tables of `renames`.

    Raises:
      ValueError: the kind is unknown, or two tensors would have the same name.
    """
    if kind not in renames.RULES:
        raise ValueError(f"kind {kind!r}: known are {sorted(renames.RULES)}")
    renamed, report, unknown = {}, [], []
    prepared = renames.PREPARE.get(kind, dict)(_without_prefix(tensors))
    for name, value in prepared.items():
        our_name, layout = target(kind, name)
        report.append((name, value.shape, our_name or "dropped"))
        if our_name is None and layout is None:
            unknown.append(name)
        elif our_name in renamed:
            raise ValueError(f"kind {kind!r}: two tensors would be {our_name}, one is {name}")
        elif our_name:
            array = renames.LAYOUTS[layout](value)
            renamed[our_name] = np.asarray(array, np.float32, order="C")
    return Renamed(renamed, report, unknown)


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in renames.PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def target(kind: str, name: str) -> tuple[str | None, str | None]:
    """Returns a published tensor's name among ours and its layout.

    (None, "drop") is a tensor that we leave out, (None, None) one that no rule matches.
    """
    layer, _, leaf = name.rpartition(".")
    for pattern, template, rule in renames.RULES[kind]:
        if rule in renames.LAYOUTS and (match := _match(pattern, name)):
            return f"params/{match.expand(template)}", rule
        leaves = renames.LEAVES.get(rule, {})
        if leaf in leaves and (match := _match(pattern, layer)):
            if leaves[leaf] is None:
                return None, "drop"
            collection, our_leaf, layout = leaves[leaf]
            return f"{collection}/{match.expand(template)}/{our_leaf}", layout
    if any(_match(pattern, name) for pattern in renames.DROPPED.get(kind, [])):
        return None, "drop"
    return None, None


def _match(pattern: str, name: str) -> re.Match | None:
    """Matches all of a name; a dot of the pattern is a dot."""
    return re.fullmatch(pattern.replace(".", r"\."), name)


def fit(kind: str, renamed: Renamed, like: Weights) -> Weights:
    """Returns the renamed tensors as a tree, if they are exactly those of `like`.

    Args:
      like: the weights of the net they are for: arrays, or shapes from `jax.eval_shape`.

    Raises:
      ValueError: lists the first ten of each: unknown, missing, mis-shaped, not finite.
    """
    wanted = {name: tuple(x.shape) for name, x in flatten(like).items()}
    spare = renames.SPARE.get(kind, "")
    tensors = {
        name: x
        for name, x in renamed.tensors.items()
        if name in wanted or not re.fullmatch(spare, name.partition("/")[2])
    }
    misshaped = [
        f"{name} {x.shape} where {wanted[name]} belongs"
        for name, x in tensors.items()
        if name in wanted and x.shape != wanted[name]
    ]
    complaint = _complaint(
        {
            "unknown": [*renamed.unknown, *(name for name in tensors if name not in wanted)],
            "missing": [name for name in wanted if name not in tensors],
            "mis-shaped": misshaped,
            "not finite": [name for name, x in tensors.items() if not np.isfinite(x).all()],
        }
    )
    if complaint:
        raise ValueError(f"not a checkpoint of kind {kind!r}: {complaint}")
    return unflatten(tensors)


def _complaint(faults: dict[str, list[str]]) -> str:
    """What is wrong -> one line that counts and names it; "" if nothing is."""
    return "; ".join(_count_and_list(what, names) for what, names in faults.items() if names)


def _count_and_list(what: str, names: list[str], count: int = 10) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{len(names)} {what}: {', '.join(names[:count])}{more}"


def flatten(weights: Weights) -> dict:
    """The leaves by their names "params/..." and "stats/..."."""
    tree = {"params": weights.params, "stats": weights.stats}
    return flax.traverse_util.flatten_dict(tree, sep="/")


def unflatten(tensors: dict) -> Weights:
    """The inverse of `flatten`."""
    tree = flax.traverse_util.unflatten_dict(tensors, sep="/")
    return Weights(tree.get("params", {}), tree.get("stats", {}))


def place(weights: Weights, at: str, source: Weights) -> Weights:
    """Replaces the subtree `at` of `weights` by `source`, to start a net from it.

    Args:
      at: names joined by "/", such as "quality/guidance/vit"; "" is the whole.
      source: may hold more than the subtree, such as a backbone's last blocks and its head.

    Raises:
      ValueError: there is no such subtree, or the source lacks some of it or has other shapes.
    """
    leaves, source_leaves = flatten(weights), flatten(source)
    source_name = {
        name: name.replace(f"/{at}/", "/", 1) if at else name
        for name in leaves
        if not at or name.partition("/")[2].startswith(f"{at}/")
    }
    if not source_name:
        raise ValueError(f"{at!r}: these weights have no such part")
    missing = [theirs for theirs in source_name.values() if theirs not in source_leaves]
    misshaped = [
        f"{ours} {leaves[ours].shape} from {source_leaves[theirs].shape}"
        for ours, theirs in source_name.items()
        if theirs in source_leaves and leaves[ours].shape != source_leaves[theirs].shape
    ]
    complaint = _complaint({"missing": missing, "mis-shaped": misshaped})
    if complaint:
        raise ValueError(f"weights for {at!r} do not fit: {complaint}")
    return unflatten(leaves | {ours: source_leaves[theirs] for ours, theirs in source_name.items()})


def save(path: str | os.PathLike, weights: Weights, card: dict, *, dtype: str = "float32") -> None:
    """Writes `path` and its card, each complete or not at all.

    Args:
      card: JSON values, to which `save` adds the shapes, the SHA-256 and the format's version.
      dtype: dtype of all tensors in the file.
    """
    path, card_path = pathlib.Path(path), card_of(path)
    tensors = {k: np.asarray(v, dtype, order="C") for k, v in flatten(weights).items()}
    data = safetensors.numpy.save(tensors)
    card = card | {
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "shapes": {name: list(x.shape) for name, x in tensors.items()},
    }
    # A line for each key, so that a card can be read.
    lines = (f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in card.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    storage.write(path, data)
    storage.write(card_path, text)


def card_of(path: str | os.PathLike) -> pathlib.Path:
    """The path of a file's card. Raises ValueError unless the file is a .safetensors."""
    if pathlib.Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: our weights are kept in files named .safetensors")
    return pathlib.Path(path).with_suffix(".json")


def load(path: str | os.PathLike) -> tuple[Weights, dict]:
    """Reads what `save` wrote: (weights, card).

    Raises:
      ValueError: a file is missing or damaged, or the card is another file's.
    """
    if storage.is_remote(path):
        raise ValueError(
            f"{path}: files of weights are read from local disks; copy it and its card"
        )
    if not os.path.isfile(path) or not card_of(path).is_file():
        raise ValueError(f"{path}: needs both the file and its card {card_of(path).name}")
    try:
        card = json.loads(card_of(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{card_of(path)}: not JSON ({error})") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f"{card_of(path)}: not a card of format {FORMAT}")
    check_header(path)
    if (sha256 := sha256_of_file(path)) != card.get("sha256"):
        raise ValueError(f"{path}: its SHA-256 {sha256} is not the card's {card.get('sha256')}")
    tensors = read_safetensors(path)
    if {name: list(x.shape) for name, x in tensors.items()} != card.get("shapes"):
        raise ValueError(f"{path}: its shapes are not the card's")
    return unflatten(tensors), card


def sha256_of_file(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_weights(weights: Weights) -> str:
    """SHA-256 of every array with its name, dtype and shape, sorted by name."""
    sha256 = hashlib.sha256()
    for name, x in sorted(flatten(weights).items()):
        sha256.update(f"{name} {x.dtype} {x.shape}\n".encode())
        sha256.update(np.ascontiguousarray(x))
    return sha256.hexdigest()


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads all tensors of a safetensors file of any origin.

    Raises:
      ValueError: the file is damaged or holds types that we do not read.
    """
    check_header(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None


def check_header(path: str | os.PathLike) -> None:
    """Checks a file before it is opened as safetensors.

    Raises:
      ValueError: it is no safetensors, its header is too long, or it is cut short or extended.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > MAX_HEADER:
            raise ValueError(f"{path}: not safetensors: a header of {length} bytes")
        if 8 + length > size:
            raise ValueError(f"{path}: cut short: {size} bytes, its header alone needs more")
        try:
            header = json.loads(file.read(length))
            ends = [x["data_offsets"][1] for k, x in header.items() if k != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            raise ValueError(f"{path}: not safetensors: its header is not one") from None
    if max(ends, default=0) + 8 + length != size:
        raise ValueError(f"{path}: cut short or extended: {size} bytes are not what it announces")
