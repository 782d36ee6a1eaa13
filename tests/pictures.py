"""Pictures for tests: pixels made of a seed, and files of them."""

import io
import struct

import numpy as np
from PIL import Image, ImageCms

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def picture(h=12, w=20, channels=3, seed=0, dtype=np.uint8):
    g = np.random.default_rng(seed)
    return g.integers(0, np.iinfo(dtype).max + 1, (h, w, channels), dtype)


def smooth(h=24, w=40):
    rows, columns = np.mgrid[:h, :w]
    x = np.stack([rows * 255 // h, columns * 255 // w, (rows + columns) * 255 // (h + w)], -1)
    return x.astype(np.uint8)


def encoded(image, format="PNG", **settings) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, format, **settings)
    return stream.getvalue()


def profile(changes: dict[str, bytes]) -> bytes:
    """sRGB's colour profile with these tags changed from their starts on, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(struct.unpack(">I", data[128:132])[0]):
        name, start, size = struct.unpack(">4sII", data[132 + 12 * i : 144 + 12 * i])
        if name == b"desc":
            data[start : start + size] = data[start : start + size].replace(b"R\0G\0B", b"X\0Y\0Z")
        new = changes.get(name.decode(), b"")
        data[start : start + len(new)] = new
    return bytes(data)


def linear() -> bytes:
    """A profile whose three curves are straight: what it shows is brighter than sRGB."""
    straight = b"curv\0\0\0\0\0\0\0\0"  # no points: the identity
    return profile({"rTRC": straight, "gTRC": straight, "bTRC": straight})


def display_p3() -> bytes:
    """Display P3, the colours of phones: sRGB's curve, primaries of its own (D50, CSS Color 4)."""
    primaries = {
        "rXYZ": (0.515102, 0.241182, -0.001050),
        "gXYZ": (0.291965, 0.692236, 0.041882),
        "bXYZ": (0.157153, 0.066582, 0.784378),
    }
    fixed = {key: [round(x * 65536) for x in xyz] for key, xyz in primaries.items()}
    return profile({key: struct.pack(">4s4x3i", b"XYZ ", *xyz) for key, xyz in fixed.items()})


def turned(orientation: int) -> Image.Exif:
    """EXIF with that orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
