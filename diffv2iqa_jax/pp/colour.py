"""Whatever a picture's samples and colours are, sRGB of 8 bits comes out.

What a file says of its colours counts in this order (PNG's third edition): cICP, a profile, "sRGB",
gAMA and cHRM; then the option files of cameras (DCF: Adobe RGB). A file that says nothing is sRGB.
"""

import functools
import io
import struct
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import samples as deep
from diffv2iqa_jax.pp import spaces
from diffv2iqa_jax.pp.samples import Samples
from diffv2iqa_jax.pp.signals import NOTHING, Coding
from diffv2iqa_jax.pp.spaces import Space

UNSPECIFIED = 2  # of H.273's primaries and transfers
CURVES = {
    **dict.fromkeys((1, 6, 14, 15), spaces.bt709_curve),
    UNSPECIFIED: spaces.srgb_curve,
    4: spaces.power(2.2),
    5: spaces.power(2.8),
    8: spaces.power(1.0),
    13: spaces.srgb_curve,
}
HDR = {16: "PQ", 18: "HLG"}
ADOBE_RGB = spaces.of_primaries(spaces.power(563 / 256), spaces.ADOBE_RGB)
SRGB_GAMMA = 0.45455
GAMMAS = (0.01, 100)  # libpng takes others for damage
EXIF, COLOR_SPACE, INTEROP, INTEROP_INDEX = 0x8769, 0xA001, 0xA005, 1
UNCALIBRATED, ADOBE = 0xFFFF, 2  # the second is no part of EXIF, and written by some cameras
# Cb and Cr, from their middles, to red, green and blue (BT.601, as JFIF and TIFF have it).
YCBCR = np.array([[0, -0.344136, 1.772], [1.402, -0.714136, 0]])
GREYS = ("1", "L", "LA", "La")  # modes of Pillow
NO_SOURCES = ("link", "abst", "nmcl")  # classes of profiles that describe no picture's colours


class Meaning(NamedTuple):
    """What a file says of its colours: a profile or a space, or neither: sRGB.

    Attributes:
      flag: what is said where it is obeyed.
    """

    profile: bytes | None = None
    space: Space | None = None
    flag: str = "icc"


SRGB = Meaning()


def to_rgb(
    image: Image.Image, name: str, icc: str, coding: Coding = NOTHING
) -> tuple[Image.Image, list[str]]:
    """A loaded picture of 8 bits in sRGB, opaque, and flags.

    Args:
      name: what messages call it.
      icc: "convert" its colours to sRGB, or "ignore" what it says of them.
      coding: what `signals.coding_of` found.

    Raises:
      ImageError: E_UNSUPPORTED, its colours are none that we convert.
    """
    if image.mode == "LAB":
        return of_samples(Samples(np.asarray(image), None, 255, "icclab"), name, icc)
    meaning = _meaning(image.info, image, name, coding) if icc == "convert" else SRGB
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        # A grey profile needs a grey picture.
        image = rgba.getchannel("R") if image.mode in GREYS else rgba.convert("RGB")
        if alpha.getextrema() == (255, 255):
            alpha = None
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode in GREYS else "RGB")
    rgb, flags = _to_srgb(image, meaning)
    return _on_white(rgb.convert("RGB"), alpha, flags)


def of_samples(
    raster: Samples, name: str, icc: str, coding: Coding = NOTHING
) -> tuple[Image.Image, list[str]]:
    """As `to_rgb`, of samples."""
    meaning = _meaning(raster.info, None, name, coding) if icc == "convert" else SRGB
    flags = deep.check_dark(raster, name)
    flags += ["16bit"] if raster.is_deep else []
    if raster.is_deep and meaning.profile and raster.colours in ("grey", "rgb"):
        meaning = _as_space(meaning)
    if meaning.profile is None or raster.colours in ("lab", "icclab"):
        done = [meaning.flag] if meaning.space and raster.colours in ("grey", "rgb") else []
        clear = raster.alpha_HW is not None and bool((raster.alpha_HW < raster.top).any())
        image = Image.fromarray(_exactly(raster, meaning.space))
        return image, flags + done + (["alpha"] if clear else [])
    x = deep.to_8_bits(raster)
    mode = {"grey": "L", "rgb": "RGB", "cmyk": "CMYK", "ycbcr": "YCbCr"}[raster.colours]
    image = Image.frombytes(mode, x.shape[1::-1], x.tobytes())
    rgb, done = _to_srgb(image.convert("RGB") if mode == "YCbCr" else image, meaning)
    return _on_white(rgb.convert("RGB"), deep.alpha_of(raster), flags + done)


def _on_white(
    rgb: Image.Image, alpha: Image.Image | None, flags: list[str]
) -> tuple[Image.Image, list[str]]:
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb, flags
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha), [*flags, "alpha"]


def _meaning(info: dict[str, Any], image: Image.Image | None, name: str, coding: Coding) -> Meaning:
    info = info | coding.info
    profile = info.get("icc_profile", b"")
    if profile is None:  # Pillow found one, and could not put it together
        profile = b"damaged"
    if coding.cicp and (not profile or image is None or image.format == "PNG"):
        return _of_cicp(coding.cicp, name, stored=image is None or image.format == "PNG")
    if profile:
        numbers = _cicp_tag(profile)
        if numbers and numbers[1] in HDR:
            raise _hdr(name, numbers[1])
        return Meaning(profile)
    if "srgb" not in info and ("gamma" in info or "chromaticity" in info):
        return _of_gamma(info.get("gamma", SRGB_GAMMA), info.get("chromaticity"))
    if image is not None and _is_adobe_rgb(image):
        return Meaning(space=ADOBE_RGB)
    return SRGB


def _of_cicp(cicp: tuple[int, ...], name: str, stored: bool) -> Meaning:
    """By H.273's numbers; `stored` are samples to which no matrix or range was applied."""
    primaries, transfer, matrix, full = cicp
    if stored and (matrix or not full):
        what = f"matrix {matrix} and range {full} of H.273 (cICP), which PNG does not allow"
        raise ImageError("E_UNSUPPORTED", f"{name}: has {what}; convert it to sRGB")
    if transfer in HDR:
        raise _hdr(name, transfer)
    primaries = 1 if primaries == UNSPECIFIED else primaries
    if transfer not in CURVES or primaries not in spaces.PRIMARIES:
        what = f"primaries {primaries} and transfer {transfer} of H.273 (cICP)"
        raise ImageError("E_UNSUPPORTED", f"{name}: has {what}; convert it to sRGB")
    if primaries == 1 and CURVES[transfer] is spaces.srgb_curve:
        return SRGB
    space = spaces.of_primaries(CURVES[transfer], spaces.PRIMARIES[primaries])
    return Meaning(space=space, flag="cicp")


def _hdr(name: str, transfer: int) -> ImageError:
    # Each display maps HDR to its own range, so no one SDR picture is what people saw.
    what = f"is HDR ({HDR[transfer]}, BT.2100), whose brightness has no one meaning in SDR"
    return ImageError("E_UNSUPPORTED", f"{name}: {what}; tone-map it to sRGB first")


def _of_gamma(gamma: float, chromaticity: tuple[float, ...] | None) -> Meaning:
    """PNG's gAMA and cHRM."""
    x_y = np.reshape(chromaticity or (1.0,) * 8, (4, 2))
    if not GAMMAS[0] <= gamma <= GAMMAS[1] or x_y[:, 1].min() <= 0:
        return Meaning(b"")  # damaged: no use
    # libpng takes gammas that differ by less than a twentieth for equal; those near 1/2.2 stand
    # for sRGB's curve.
    srgb = abs(gamma / SRGB_GAMMA - 1) < 0.05
    curve = spaces.srgb_curve if srgb else spaces.power(1 / gamma)
    primaries = spaces.PRIMARIES[1]
    if chromaticity:
        white, *others = x_y.tolist()
        primaries = (*others, white)
    try:
        space = spaces.of_primaries(curve, primaries)
    except np.linalg.LinAlgError:
        return Meaning(b"")
    return SRGB if space.is_srgb else Meaning(space=space, flag="gamma")


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether it is an option file of the Design rule for Camera File system (DCF 2.0)."""
    if not image.info.get("exif"):
        return False
    try:
        exif = image.getexif()
        space = exif.get_ifd(EXIF).get(COLOR_SPACE)
        if space != UNCALIBRATED:
            return space == ADOBE
        return str(exif.get_ifd(INTEROP).get(INTEROP_INDEX, "")).startswith("R03")
    except Exception:  # EXIF that cannot be read tells nothing
        return False


def _cicp_tag(profile: bytes) -> tuple[int, ...] | None:
    """An ICC profile's tag of H.273's numbers: those of HDR have it."""
    at = profile.find(b"cicp", 128, 128 + 4 + 12 * 100)
    if at < 0:
        return None
    try:
        (start,) = struct.unpack_from(">I", profile, at + 4)
        return struct.unpack_from(">4B", profile, start + 8)
    except struct.error:
        return None


def _to_srgb(image: Image.Image, meaning: Meaning) -> tuple[Image.Image, list[str]]:
    """A picture of 8 bits by its meaning; as it is where that is sRGB already, or is no use."""
    if meaning.space:
        if image.mode not in ("RGB", "L"):
            return image, ["icc_ignored"]
        x = np.asarray(image)
        raster = Samples(x.reshape(*x.shape[:2], -1), None, 255, "rgb")
        return Image.fromarray(_exactly(raster, meaning.space)), [meaning.flag]
    if meaning.profile is None:
        return image, []
    try:
        transform, mode = _transform(meaning.profile, image.mode)
        if transform is None:
            return image, []
        image = image if image.mode == mode else image.convert(mode)
        return ImageCms.applyTransform(image, transform), [meaning.flag]
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError):
        return image, ["icc_ignored"]


@functools.lru_cache(maxsize=8)  # the pictures of a folder share their profiles
def _transform(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """To sRGB, and from which mode of Pillow; None if it moves no colour by more than a level.

    Raises:
      PyCMSError, OSError, ValueError: the profile is damaged, or of no use for the picture.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if source.profile.device_class in NO_SOURCES:
        raise ValueError(source.profile.device_class)
    greys = np.arange(256, dtype=np.uint8)[None]
    if mode == "RGB":
        steps = greys[0, ::15]
        before = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 3))
    else:
        before = Image.fromarray(greys)
    if mode == "L" and source.profile.xcolor_space.strip() == "RGB":
        mode = "RGB"  # a common mistake: grey is then red = green = blue
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    if mode == "CMYK":
        return transform, mode
    after = np.asarray(ImageCms.applyTransform(before.convert(mode), transform)).astype(int)
    moved = np.abs(after - np.asarray(before.convert("RGB"))).max()
    return (None if moved <= 1 else transform), mode


def _as_space(meaning: Meaning) -> Meaning:
    """A profile of matrix and curves as a space, so that 16 bits need not be rounded first."""
    try:
        space = spaces.of_profile(meaning.profile)
        if space is None or _transform(meaning.profile, "RGB")[0] is None:
            return meaning
        return meaning._replace(profile=None, space=space)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, SyntaxError, struct.error):
        return meaning


def _exactly(raster: Samples, space: Space | None) -> np.ndarray:
    """Samples -> sRGB on white, uint8 (H, W, 3), rounded once. Of colours a space may be told."""
    h, w, _ = raster.values_HWC.shape
    out = np.empty((h, w, 3), np.uint8)
    for rows in deep.blocks(h, w):
        x = _shares_of_srgb(raster, rows, space)
        if raster.alpha_HW is not None:
            alpha = raster.alpha_HW[rows, :, None] / raster.top
            x = x * alpha + (1 - alpha)
        out[rows] = np.rint(x * 255)
    return out


def _shares_of_srgb(raster: Samples, rows: slice, space: Space | None) -> np.ndarray:
    """sRGB (h, W, 1 or 3) in 0..1 of these rows."""
    if raster.colours in ("lab", "icclab"):
        return spaces.to_srgb(spaces.lab_to_xyz(_lab(raster, rows)), spaces.of_lab())
    x = deep.shares(raster, rows)
    if raster.colours == "cmyk":
        return (1 - x[..., :3]) * (1 - x[..., 3:])
    if raster.colours == "ycbcr":
        return np.clip(x[..., :1] + (x[..., 1:] - 128 / 255) @ YCBCR, 0, 1)
    return spaces.to_srgb(x, space) if space else x


def _lab(raster: Samples, rows: slice) -> np.ndarray:
    """CIE Lab (h, W, 3) of samples as TIFF stores them, in 8 or 16 bits."""
    x = raster.values_HWC[rows]
    step = 1 << (x.itemsize - 1) * 8  # of 16 bits, 256 are what 1 is of 8
    if raster.colours == "lab":
        light, ab = x[..., :1] / raster.top, x[..., 1:].view(f"i{x.itemsize}") / step
    else:
        light, ab = x[..., :1] / (255 * step), x[..., 1:] / step - 128
    return np.concatenate([light * 100, ab], -1)
