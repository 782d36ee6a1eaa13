"""Fixtures: numbers of the original PyTorch nets, and the weights and inputs they belong to.

A fixture NAME is tests/golden/NAME.json (names, shapes and seeds) and NAME.npz (numbers). The
weights are not stored: a tensor is drawn from the CRC-32 of its name and the fixture's seed.
"""

import hashlib
import json
import math
import os
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "golden"


def synthetic(name: str, shape, seed: int, gain: float = 1.0) -> np.ndarray:
    """The tensor `name` of a state dict: float32, drawn and scaled in float64."""
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) ^ seed))
    z = draw.standard_normal(tuple(shape))
    *_, owner, leaf = ["", *name.split(".")]
    if leaf == "running_mean":
        z = 0.1 * z
    elif leaf == "running_var":
        z = 1.0 + 0.1 * abs(z)
    elif len(shape) > 1:
        z = z / math.sqrt(math.prod(shape[1:]))
    elif (owner, leaf) in (("relu", "weight"), ("prelu", "weight")):
        z = 0.25 + 0.05 * z
    else:
        z = 0.02 * z if leaf == "bias" else 1.0 + 0.1 * z
    return z.astype(np.float32) * np.float32(gain)


class Golden:
    """One fixture: golden["out"] is an array, golden.tensors() the state dict."""

    def __init__(self, name: str):
        self.about = json.loads((FOLDER / f"{name}.json").read_text())
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tensors(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The state dict in PyTorch's layout, after checking it; `prefix` goes before names."""
        out, digest = {}, hashlib.sha256()
        for entry in self.about["state_dict"]:
            name, shape = entry["name"], entry["shape"]
            if entry["rule"] == "synth":
                value = synthetic(name, shape, self.about["weight_seed"], entry.get("gain", 1.0))
                digest.update(value.tobytes())
            else:  # counters, tables: a converter must drop them
                value = np.zeros(shape, entry["dtype"])
            out[prefix + name] = value
        assert (
            digest.hexdigest() == self.about["sha256_of_synth_tensors_in_order_little_endian_f32"]
        )
        return out

    def image(self, name: str = "x") -> np.ndarray:
        """An input: the stored array, or drawn again; (B, C, H, W) -> (B, H, W, C)."""
        return to_nhwc(
            self.arrays[name] if name in self.arrays else drawn(**self.about["inputs"][name])
        )

    def check(self, name: str, got: np.ndarray, use: float) -> float:
        """Compares a tensor in PyTorch's layout with the stored statistics of it.

        Returns the largest error in standard deviations of the reference.
        """
        got = np.asarray(got, np.float64)
        mean, std, l2 = self[f"{name}.mean_std_l2"]
        assert math.prod(self[f"{name}.shape"]) == got.size, (name, got.shape)
        flat, samples = got.ravel(), self[f"{name}.samples"].ravel()
        count = len(samples)
        at = np.arange(count) * (flat.size - 1) // max(count - 1, 1)
        std = float(std)
        worst = max(
            abs(flat[at] - samples).max(),
            abs(flat[:8] - self[f"{name}.first8"].ravel()[: flat.size]).max(),
            abs(flat.mean() - mean),
            abs(flat.std() - std),
            abs(np.linalg.norm(flat) - l2) / math.sqrt(flat.size),
        )
        return within(worst / std, use, f"{name}: of a standard deviation")


def drawn(seed: int, shape, distribution: str, scale: float = 1.0) -> np.ndarray:
    draw = np.random.Generator(np.random.PCG64(seed))
    normal = distribution == "standard_normal"
    x = draw.standard_normal(shape) if normal else draw.uniform(-1, 1, shape)
    return x.astype(np.float32) * np.float32(scale)


def to_nhwc(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def to_nchw(x) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


MEASURED: dict[str, tuple[float, float]] = {}  # test -> its largest error, what was allowed


def within(error: float, use: float, what: str) -> float:
    """Asserts error <= use and remembers how close it was."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    if use and error / use >= MEASURED.get(test, (0.0, 1.0))[0] / MEASURED.get(test, (0, 1.0))[1]:
        MEASURED[test] = (float(error), use)
    assert error <= use, f"{error:.2e} {what}, allowed is {use:.0e}"
    return error


def close(got, want: np.ndarray, use: float) -> float:
    """Asserts max |got - want| <= use * std(want); returns the error in these deviations."""
    got = np.asarray(got, np.float64).reshape(want.shape)
    return within(abs(got - want).max() / want.std(), use, "of a standard deviation")


def near(got, want, use: float, *, relative: bool = False) -> float:
    """Asserts max |got - want| <= use, or <= use * |want|; shapes may differ by ones."""
    got, want = np.asarray(got, np.float64).ravel(), np.asarray(want, np.float64).ravel()
    size = abs(want) if relative else 1.0
    return within((abs(got - want) / size).max(), use, "relative" if relative else "absolute")
