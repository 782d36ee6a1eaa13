"""Published weights -> ours, strictly; and the files that ours are kept in.

A file of ours is FILE.safetensors, whose tensors are named params/... and stats/..., with a card
beside it, FILE.json: what net it is for, in which settings, what its input must be normalised
by, and the SHA-256 of the weights' file. A file whose card does not fit is refused.
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

from diffv2iqa_jax.types import Weights
from diffv2iqa_jax.weights import renames

FORMAT = 1
MAX_HEADER = 100_000_000  # bytes: no net has names enough for more


class Renamed(NamedTuple):
    """Tensors in our layout by our flat names, and what became of each of theirs.

    Attributes:
      tensors: "params/..." or "stats/..." -> float32 array.
      report: (their name, shape, our name or "dropped").
      unknown: their names that no rule knows.
    """

    tensors: dict[str, np.ndarray]
    report: list[tuple[str, tuple[int, ...], str]]
    unknown: list[str]


def rename(kind: str, tensors: dict[str, np.ndarray]) -> Renamed:
    """Their names and layouts -> ours, by the tables of `renames`.

    Raises:
      ValueError: the kind is unknown, or two tensors have the same name of ours.
    """
    if kind not in renames.RULES:
        raise ValueError(f"kind {kind!r}: known are {sorted(renames.RULES)}")
    out, report, unknown = {}, [], []
    prepared = renames.PREPARE.get(kind, dict)(_without_prefix(tensors))
    for name, value in prepared.items():
        ours, layout = target(kind, name)
        report.append((name, value.shape, ours or "dropped"))
        if ours is None and layout is None:
            unknown.append(name)
        elif ours in out:
            raise ValueError(f"kind {kind!r}: two tensors would be {ours}, one is {name}")
        elif ours:
            out[ours] = np.asarray(renames.LAYOUTS[layout](value), np.float32, order="C")
    return Renamed(out, report, unknown)


def _without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in renames.PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def target(kind: str, name: str) -> tuple[str | None, str | None]:
    """Our name of a tensor and its layout; (None, "drop") drops it, (None, None) is unknown."""
    match = lambda pattern, text: re.fullmatch(pattern.replace(".", r"\."), text)
    layer, _, leaf = name.rpartition(".")
    for pattern, ours, rule in renames.RULES[kind]:
        if rule in renames.LAYOUTS and (found := match(pattern, name)):
            return f"params/{found.expand(ours)}", rule
        leaves = renames.LEAVES.get(rule, {})
        if leaf in leaves and (found := match(pattern, layer)):
            if leaves[leaf] is None:
                return None, "drop"
            collection, our_leaf, layout = leaves[leaf]
            return f"{collection}/{found.expand(ours)}/{our_leaf}", layout
    if any(match(pattern, name) for pattern in renames.DROPPED.get(kind, [])):
        return None, "drop"
    return None, None


def fit(kind: str, renamed: Renamed, like: Weights) -> Weights:
    """The renamed tensors as a tree, if they are exactly those of `like`.

    Args:
      like: arrays, or shapes as from `jax.eval_shape`, of the net that they are for.

    Raises:
      ValueError: lists the first ten of each: unknown, missing, mis-shaped, not finite.
    """
    want = {name: tuple(x.shape) for name, x in flatten(like).items()}
    spare = renames.SPARE.get(kind, "")
    have = {
        name: x
        for name, x in renamed.tensors.items()
        if name in want or not re.fullmatch(spare, name.partition("/")[2])
    }
    wrong = [
        f"{name} {x.shape} where {want[name]} belongs"
        for name, x in have.items()
        if name in want and x.shape != want[name]
    ]
    faults = {
        "unknown": [*renamed.unknown, *(name for name in have if name not in want)],
        "missing": [name for name in want if name not in have],
        "mis-shaped": wrong,
        "not finite": [name for name, x in have.items() if not np.isfinite(x).all()],
    }
    complaint = "; ".join(_first(what, names) for what, names in faults.items() if names)
    if complaint:
        raise ValueError(f"not a checkpoint of kind {kind!r}: {complaint}")
    return unflatten(have)


def _first(what: str, names: list[str], count: int = 10) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return f"{len(names)} {what}: {', '.join(names[:count])}{more}"


def flatten(weights: Weights) -> dict:
    """Leaves by their names "params/..." and "stats/..."."""
    tree = {"params": weights.params, "stats": weights.stats}
    return flax.traverse_util.flatten_dict(tree, sep="/")


def unflatten(tensors: dict) -> Weights:
    tree = flax.traverse_util.unflatten_dict(tensors, sep="/")
    return Weights(tree.get("params", {}), tree.get("stats", {}))


def place(weights: Weights, at: str, source: Weights) -> Weights:
    """`weights` with the part named `at` taken from converted ones, as a net's start.

    Args:
      at: names joined by "/", such as "quality/guidance/vit"; "" is the whole.
      source: may hold more than that part: a backbone's last blocks and its head.

    Raises:
      ValueError: there is no such part, or the source lacks some of it or has other shapes.
    """
    new, old = flatten(weights), flatten(source)
    inside = lambda name: not at or name.partition("/")[2].startswith(f"{at}/")
    names = {
        name: name if not at else name.replace(f"/{at}/", "/", 1) for name in new if inside(name)
    }
    if not names:
        raise ValueError(f"{at!r}: these weights have no such part")
    missing = [theirs for theirs in names.values() if theirs not in old]
    wrong = [
        f"{ours} {new[ours].shape} from {old[theirs].shape}"
        for ours, theirs in names.items()
        if theirs in old and new[ours].shape != old[theirs].shape
    ]
    faults = {"missing": missing, "mis-shaped": wrong}
    complaint = "; ".join(_first(what, found) for what, found in faults.items() if found)
    if complaint:
        raise ValueError(f"weights for {at!r} do not fit: {complaint}")
    return unflatten(new | {ours: old[theirs] for ours, theirs in names.items()})


def save(path: str | os.PathLike, weights: Weights, card: dict, *, dtype: str = "float32") -> None:
    """Writes `path` and its card, each complete or not at all.

    Args:
      card: JSON values; the shapes, the SHA-256 and the format's version are added to it.
      dtype: of all tensors in the file.
    """
    path, beside = pathlib.Path(path), card_of(path)
    tensors = {k: np.asarray(v, dtype, order="C") for k, v in flatten(weights).items()}
    data = safetensors.numpy.save(tensors)
    made = {
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "shapes": {name: list(x.shape) for name, x in tensors.items()},
    }
    lines = (f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in (card | made).items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    _replace(path, data)
    _replace(beside, text.encode())


def card_of(path: str | os.PathLike) -> pathlib.Path:
    """Where the card of a file lies. Raises ValueError for a file that is no .safetensors."""
    if pathlib.Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: our weights are kept in files named .safetensors")
    return pathlib.Path(path).with_suffix(".json")


def _replace(path: pathlib.Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> tuple[Weights, dict]:
    """Reads what `save` wrote: (weights, card).

    Raises:
      ValueError: either file is missing, damaged, or not of the other.
    """
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
    """All tensors of a safetensors file of any origin.

    Raises:
      ValueError: the file is damaged or holds types that we do not read.
    """
    check_header(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None


def check_header(path: str | os.PathLike) -> None:
    """Refuses a file before it is opened as safetensors: absurd header, or cut short."""
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
