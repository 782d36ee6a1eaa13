"""Converts a published checkpoint: python -m diffv2iqa_jax.convert KIND SOURCE DEST.

Writes DEST.safetensors and its card DEST.json, which `weights.files.load` reads. Prints a line for
each tensor: its name, its shape, and our name of it or "dropped". Exit codes: 0 done, 2 the file
cannot be converted.
"""

import argparse
import pathlib
import re
import sys
import zipfile
from typing import Any

import numpy as np

from diffv2iqa_jax import storage
from diffv2iqa_jax.errors import one_line
from diffv2iqa_jax.weights import files, published, resize


def read(path: str) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors, .npz or PyTorch file by name.

    Raises:
      ValueError: the file is missing or damaged, of another type, or holds more than tensors.
    """
    readers = {".safetensors": files.read_safetensors, ".npz": _read_npz}
    readers |= dict.fromkeys((".pth", ".pt", ".bin", ".ckpt"), _read_torch)
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: unknown type; known are {', '.join(readers)}")
    if not pathlib.Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    return readers[suffix](path)


def _read_npz(path: str) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:
            saved = np.load(file, allow_pickle=False)
            tensors = {name: saved[name] for name in getattr(saved, "files", [])}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as .npz ({error})") from None
    no_arrays = [name for name, x in tensors.items() if getattr(x, "dtype", None) is None]
    if no_arrays or not tensors:
        why = ", ".join(no_arrays[:3]) or "it is empty"
        raise ValueError(f"{path}: not a .npz of arrays ({why})")
    return tensors


def _read_torch(path: str) -> dict[str, np.ndarray]:
    """Reads by PyTorch's loader for plain tensors, which runs no code of the file."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path}: reading it needs PyTorch (pip install 'diffv2iqa_jax[torch]');"
            f" .safetensors and .npz files do not ({error})"
        ) from None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch has a dozen ways to refuse a file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path}: not a file of plain tensors ({reason[0]})") from None
    while isinstance(saved, dict) and (inner := {"state_dict", "model", "params"} & set(saved)):
        saved = saved[min(inner)]
    if not isinstance(saved, dict) or not all(isinstance(x, torch.Tensor) for x in saved.values()):
        raise ValueError(f"{path}: not a dict of tensors by name")
    plain = {}
    for name, x in saved.items():
        x = x.detach()
        # NumPy has no bfloat16.
        plain[name] = (x.float() if x.is_floating_point() else x).numpy()
    return plain


def convert(
    kind: str, source: str, dest: str, *, stages: int | None = None, **settings: Any
) -> list[tuple[str, tuple[int, ...], str]]:
    """Converts the file `source` to `dest`.

    Args:
      kind: one of `published.KINDS`.
      stages: of a ResNet, how many stages to keep; the later ones and the classes are left out.
      settings: what the tensors do not tell, see `published.convert`.

    Returns:
      For each tensor its name, its shape, and our name of it or "dropped".

    Raises:
      ValueError: the file cannot be converted; nothing is written then.
    """
    files.card_of(dest)  # refuses a bad name before the work
    storage.check_place(dest)
    tensors, left_out = read(source), []
    if stages is not None:
        if kind != "resnet50" or not 1 <= stages <= 4:
            raise ValueError(f"--stages {stages}: 1 to 4, and only for resnet50")
        later = [name for name in tensors if re.match(rf"layer[{stages + 1}-9]\.|fc\.", name)]
        left_out = [(name, tensors.pop(name).shape, "dropped") for name in later]
    weights, card, report = published.convert(kind, tensors, **settings)
    card["source"] = {"file": pathlib.Path(source).name, "sha256": files.sha256_of_file(source)}
    files.save(dest, weights, card)
    return report + left_out


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="convert", description=__doc__.partition("\n")[0])
    out.add_argument("kind", choices=sorted(published.KINDS))
    out.add_argument("source", help=".safetensors, .npz, or .pth where PyTorch is installed")
    out.add_argument("dest", help="what to write: DEST.safetensors, with DEST.json beside it")
    options = {
        "scale": (float, "MANIQA's residual scale: 0.8 (KADID, KonIQ; default) or 0.13 (PIPAL)"),
        "w2": (float, "weight of the difference branch in a release checkpoint; default 5"),
        "heads": (int, "attention heads of a ViT; default: heads 64 wide"),
        "groups": (int, "of a U-Net's norms, if it is not a published one"),
        "image_size": (int, "pixels to resize a ViT for; of a U-Net, those it was built for"),
        "stages": (int, "of a ResNet: leave out the later ones, and its classes"),
        "patch": (int, "patch size to resize a ViT for"),
    }
    for name, (value_type, text) in options.items():
        out.add_argument(f"--{name}", type=value_type, help=text)
    text = "how its patches are resized: bilinear (FlexiViT; default) or bicubic (timm)"
    out.add_argument("--patch_filter", choices=list(resize.FILTERS), help=text)
    out.add_argument("--normalise", choices=list(published.NORMALISE), help="what its input needs")
    return out


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; errors are one line on stderr."""
    given = vars(parser().parse_args(argv))
    arguments = {name: value for name, value in given.items() if value is not None}
    try:
        report = convert(**arguments)
    except (ValueError, OSError, MemoryError) as error:
        line = one_line(error) or "there is not enough memory"
        print(f"convert: {line}", file=sys.stderr)
        return 2
    for name, shape, ours in report:
        print(f"{name} {shape} -> {ours}")
    dropped = sum(ours == "dropped" for *_, ours in report)
    print(f"{arguments['dest']}: {len(report) - dropped} tensors, {dropped} dropped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
