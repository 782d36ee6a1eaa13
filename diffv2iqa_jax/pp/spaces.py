"""Colour spaces by numbers: a curve for each channel, and a matrix to linear sRGB.

For what files say without a profile (PNG's cICP, gAMA and cHRM; AVIF's nclx), and for profiles of
that kind (matrix and curves) where samples have more than 8 bits: littlecms rounds to 8 first.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Curve = Callable[[np.ndarray], np.ndarray]
# CIE xy of red, green, blue and white, by the numbers of ITU-T H.273.
D65 = (0.3127, 0.3290)
PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65),  # BT.709, sRGB
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
D50_XYZ = np.array([0.9642, 1.0, 0.8249])  # as ICC profiles write it


class Space(NamedTuple):
    """Attributes:
    curves: share of the largest value -> light, for each channel; one of them for all.
    to_srgb: (3, 3), light -> light of sRGB's primaries.
    """

    curves: tuple[Curve, ...]
    to_srgb: np.ndarray

    @property
    def is_srgb(self) -> bool:
        """Whether no colour of a grid moves by more than one level of 8 bits."""
        grid = np.linspace(0, 1, 9)
        x = np.stack(np.meshgrid(grid, grid, grid), -1).reshape(-1, 3)
        return bool(np.abs(to_srgb(x, self) * 255 - x * 255).max() <= 1)


def to_srgb(x: np.ndarray, space: Space) -> np.ndarray:
    """Shares (..., C) of 0..1 in a space -> sRGB (..., 3) in 0..1, clipped to its gamut."""
    x = np.broadcast_to(x, (*x.shape[:-1], 3))
    light = [space.curves[i % len(space.curves)](x[..., i]) for i in range(3)]
    return encoded(np.stack(light, -1) @ space.to_srgb.T)


def encoded(light: np.ndarray) -> np.ndarray:
    """Light -> sRGB (IEC 61966-2-1), both in 0..1."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_curve(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def bt709_curve(x: np.ndarray) -> np.ndarray:
    """The inverse of BT.709's (601's, 2020's) curve, as H.273 gives it."""
    return np.where(x < 0.081, x / 4.5, ((x + 0.099) / 1.099) ** (1 / 0.45))


def power(exponent: float) -> Curve:
    return lambda x: x**exponent


def of_primaries(curve: Curve, primaries: tuple) -> Space:
    """A space of one curve and CIE xy of red, green, blue and white."""
    to_xyz, white = _to_xyz(primaries)
    srgb_to_xyz, d65 = _to_xyz(PRIMARIES[1])
    return Space((curve,), np.linalg.inv(srgb_to_xyz) @ _adapted(white, d65) @ to_xyz)


def from_d50(curves: tuple[Curve, ...], to_xyz: np.ndarray) -> Space:
    """A space whose light is XYZ under D50 by a matrix (3, 3), as in an ICC profile."""
    srgb_to_xyz, d65 = _to_xyz(PRIMARIES[1])
    return Space(curves, np.linalg.inv(srgb_to_xyz) @ _adapted(D50_XYZ, d65) @ to_xyz)


def of_lab() -> Space:
    """A space of CIE XYZ under D50; see `lab_to_xyz`."""
    return from_d50((lambda x: x,), np.eye(3))


def lab_to_xyz(lab: np.ndarray) -> np.ndarray:
    """CIE Lab (..., 3) of white D50 -> XYZ."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    return D50_XYZ * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


def of_profile(data: bytes) -> Space | None:
    """The space of an ICC profile of matrix and curves, or of a grey one; None of any other.

    Raises:
      struct.error, ValueError: the profile is damaged.
    """
    (count,) = struct.unpack_from(">I", data, 128)
    entries = [struct.unpack_from(">4sII", data, 132 + 12 * i) for i in range(min(count, 100))]
    tags = {name: data[start : start + size] for name, start, size in entries}
    needed = [c + kind for kind in (b"XYZ", b"TRC") for c in (b"r", b"g", b"b")]
    if data[16:20] == b"GRAY" and b"kTRC" in tags:
        return Space((_curve(tags[b"kTRC"]),), np.eye(3))
    if data[16:20] != b"RGB " or data[20:24] != b"XYZ " or b"A2B0" in tags:
        return None
    if not set(needed) <= tags.keys():
        return None
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in needed[:3]]
    return from_d50(tuple(_curve(tags[n]) for n in needed[3:]), np.array(columns).T / 65536)


def _curve(tag: bytes) -> Curve:
    """ICC's curveType and parametricCurveType."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        points = np.frombuffer(tag, ">u2", count, 12)
        if count < 2:
            return power(points[0] / 256 if count else 1.0)
        return lambda x: np.interp(x, np.linspace(0, 1, count), points / 65535)
    (kind,) = struct.unpack_from(">H", tag, 8)
    if tag[:4] != b"para" or kind > 4:
        raise ValueError(f"curve {tag[:4]!r}")
    g, a, b, c, d, e, f = _parameters(kind, tag)
    return lambda x: np.clip(np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f), 0, 1)


def _parameters(kind: int, tag: bytes) -> tuple[float, ...]:
    """All of ICC's parametric curves as the last of them: g a b c d e f."""
    count = (1, 3, 4, 5, 7)[kind]
    numbers = [x / 65536 for x in struct.unpack_from(f">{count}i", tag, 12)]
    g, a, b, c, d, e, f = numbers + [1, 0, 0, 0, 0, 0, 0][count:]
    if kind == 0:
        a = 1.0
    if kind in (1, 2):
        d, c, e, f = -b / a, 0.0, c, c
    return g, a, b, c, d, e, f


def _to_xyz(primaries: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of light to XYZ, and the white."""
    x, y = np.array(primaries).T
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]), columns[:, 3]


def _adapted(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bradford's matrix from colours under one white to those under another."""
    gains = np.diag(BRADFORD @ target / (BRADFORD @ source))
    return np.linalg.inv(BRADFORD) @ gains @ BRADFORD
