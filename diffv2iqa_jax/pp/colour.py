"""Whatever a picture's samples and colours are, sRGB of 8 bits comes out."""

import io

import numpy as np
from PIL import Image, ImageCms

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp.arrays import to_8_bits


def to_rgb(image: Image.Image, name: str, icc: str) -> tuple[Image.Image, list[str]]:
    """The picture in sRGB, opaque, and flags.

    Args:
      name: what messages call it.
      icc: "convert" an embedded colour profile to sRGB, or "ignore" it.

    Raises:
      ImageError: E_UNSUPPORTED, its colours are none that we convert.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey(np.asarray(image), name)).convert("RGB"), ["16bit"]
    flags, alpha = [], None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        image, info = rgba.convert("RGB"), image.info
        image.info = info
        if alpha.getextrema() == (255, 255):
            alpha = None
    elif image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    profile = image.info.get("icc_profile") if icc == "convert" else None
    rgb = image
    if profile:
        rgb, flag = _to_srgb(image, profile)
        flags += [flag] if flag else []
    if rgb.mode == "LAB":
        raise ImageError("E_UNSUPPORTED", f"{name}: is in LAB colours; convert it to RGB")
    rgb = rgb.convert("RGB")
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
        flags.append("alpha")
    return rgb, flags


def _to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str | None]:
    """The picture by its colour profile; as it is where that is sRGB already, or is no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
            return image, None
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"), "icc"
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        return image, "icc_ignored"


def _grey(x: np.ndarray, name: str) -> np.ndarray:
    """Grey of more than 8 bits -> 8 bits: integers are taken for 0..65535, floats for 0..1."""
    top = 1.0 if x.dtype.kind == "f" else 65535
    if not (x.min() >= 0 and x.max() <= top):  # also where it is not finite
        raise ImageError(
            "E_UNSUPPORTED",
            f"{name}: grey values from {x.min()} to {x.max()}, outside 0..{top}; scale them",
        )
    return np.rint(x * 255.0).astype(np.uint8) if top == 1 else to_8_bits(x)
