"""Kinds of picture files: what their names end in, what they start with, and what we do with them.

Scoring, `prepare` and training photos share this one list. The table in scoring/README.md says the
same in words; a test compares the two.
"""

import os
import re
from typing import NamedTuple

from diffv2iqa_jax.errors import ImageError

HEAD = 512  # bytes of a file that tell its kind; brands and an SVG's first tag may stand so far in


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      endings: what its names end in, in lower case, with spaces between.
      start: what its first bytes match; b"" where only `_without_start` or `_by_brands` can tell.
      advice: what to do with such a file; "" where it is read.
      picture: whether a file of a folder that starts so counts as a picture.
    """

    endings: str
    start: bytes
    advice: str = ""
    picture: bool = True


CONVERT, RENDER, EXPORT = "convert it to PNG", "render it to PNG", "export it as PNG"
FRAME, UNPACK = "extract a frame", "unpack it"
DEVELOP = "develop it, and score the JPEG, PNG or TIFF"

# A file is what its first bytes say, whatever its name; the first kind that matches counts. No
# decoder runs on a kind that has advice.
KINDS = {
    "JPEG-LS": Kind(".jls", rb"\xff\xd8\xff\xf7", CONVERT),
    "JPEG": Kind(".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjpg .pjp .mpo .jps", rb"\xff\xd8\xff"),
    "PNG": Kind(".png .apng", rb"\x89PNG\r\n\x1a\n"),
    "WEBP": Kind(".webp", rb"RIFF.{4}WEBP"),
    "GIF": Kind(".gif", rb"GIF8[79]a"),
    "BMP": Kind(".bmp .dib", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    "camera raw (Canon CR2)": Kind(".cr2", rb"(?:II\*\0|MM\0\*).{4}CR", DEVELOP),
    "camera raw (Phase One)": Kind(
        ".iiq .cap .eip", rb"(?:II\*\0|MM\0\*).{4}(?:II|MM){2}", DEVELOP
    ),
    "TIFF": Kind(".tif .tiff .btf .tf8", rb"II[*+]\0|MM\0[*+]"),
    "PPM": Kind(".ppm .pgm .pbm .pnm .pfm", rb"P[1-6f][\s#]"),
    "JPEG2000": Kind(
        ".jp2 .j2k .jpf .jpx .j2c .jpc", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"
    ),
    "AVIF": Kind(".avif .avifs", b""),
    "HEIC": Kind(".heic .heif .hif .heics .heifs", b""),
    "JPEG XL": Kind(".jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    # What cameras' sensors saw. DNG, NEF, ARW and others look like TIFF: see pages.py.
    "camera raw (Canon CR3)": Kind(".cr3", b"", DEVELOP),
    "camera raw (Canon CRW)": Kind(".crw", rb"(?:II|MM).{4}HEAPCCDR", DEVELOP),
    "camera raw (Fujifilm)": Kind(".raf", rb"FUJIFILMCCD-RAW", DEVELOP),
    "camera raw (Olympus)": Kind(".orf .ori", rb"IIR[OS]|MMOR", DEVELOP),
    "camera raw (Panasonic)": Kind(".rw2 .rwl", rb"IIU\0", DEVELOP),
    "camera raw (Sigma)": Kind(".x3f", rb"FOVb", DEVELOP),
    "camera raw (Minolta)": Kind(".mrw", rb"\0MR[MI]", DEVELOP),
    "camera raw": Kind(
        ".dng .nef .nrw .arw .srf .sr2 .srw .pef .3fr .fff .erf .mef .mos .kdc .dcr .k25 .gpr .raw",
        b"",
        DEVELOP,
    ),
    "HEIF of another codec": Kind("", b"", CONVERT),
    "JPEG XR": Kind(".jxr .wdp .hdp", rb"II\xbc", CONVERT),
    "JPEG XS": Kind(".jxs", rb"\xff\x10\xff\x50|\0\0\0\x0cJXS ", CONVERT),
    "BPG": Kind(".bpg", rb"BPG\xfb", CONVERT),
    "FLIF": Kind(".flif", rb"FLIF", CONVERT),
    "QOI": Kind(".qoi", rb"qoif", CONVERT),
    "icon": Kind(".ico .cur", rb"\0\0[\x01\x02]\0[^\0]\0", CONVERT),
    "icon of macOS": Kind(".icns", rb"icns", CONVERT),
    "PCX": Kind(".pcx", rb"\n[\0-\x05]\x01[\x01\x02\x04\x08]", CONVERT),
    "TGA": Kind(".tga .targa .icb .vda .vst", b"", CONVERT),
    "PAM": Kind(".pam", rb"P7\n", CONVERT),
    "PFM of colours": Kind("", rb"PF\s", CONVERT),
    "SGI": Kind(".sgi .rgb .rgba .bw", rb"\x01\xda[\0\x01][\x01\x02]", CONVERT),
    "Sun raster": Kind(".ras", rb"\x59\xa6\x6a\x95", CONVERT),
    "XBM": Kind(".xbm", rb"#define \S+_width ", CONVERT),
    "XPM": Kind(".xpm", rb"/\* XPM \*/", CONVERT),
    "DDS": Kind(".dds", rb"DDS ", CONVERT),
    "BMP without its file header": Kind(
        "", rb"\x28\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0", CONVERT
    ),
    "BLP": Kind(".blp", rb"BLP[12]", CONVERT),
    "IFUNC IM": Kind(".im", rb"Image type:", CONVERT),
    "Microsoft Paint": Kind(".msp", rb"DanM|LinS", CONVERT),
    "MNG": Kind(".mng .jng", rb"\x8aMNG\r\n|\x8bJNG\r\n", CONVERT),
    "MIFF": Kind(".miff .mpc", rb"id=(?:ImageMagick|MagickCache)", CONVERT),
    "XWD": Kind(".xwd", rb"\0\0\0.\0\0\0\x07\0\0\0[\0-\x02]", CONVERT),
    "ILBM": Kind(".iff .lbm .ilbm", rb"FORM.{4}(?:ILBM|PBM )", CONVERT),
    "JBIG2": Kind(".jb2 .jbig2", rb"\x97JB2\r\n\x1a\n", CONVERT),
    "OpenEXR": Kind(".exr", rb"\x76\x2f\x31\x01", "map its tones and export it as PNG"),
    "Radiance HDR": Kind(".hdr", rb"#\?(?:RADIANCE|RGBE)", "map its tones and export it as PNG"),
    "DPX": Kind(".dpx .cin", rb"SDPX|XPDS|\x80\x2a\x5f\xd7", EXPORT),
    "FITS": Kind(".fits .fit .fts", rb"SIMPLE  =", EXPORT),
    "DICOM": Kind(".dcm", rb".{128}DICM", EXPORT),
    "DjVu": Kind(".djvu .djv", rb"AT&TFORM", RENDER),
    "Photoshop": Kind(".psd .psb", rb"8BPS", EXPORT),
    "GIMP": Kind(".xcf", rb"gimp xcf ", EXPORT),
    "SVG": Kind(
        ".svg .svgz", rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*|<!--.*|<!DOCTYPE svg.*)?<svg", RENDER
    ),
    "WMF": Kind(".wmf", rb"\xd7\xcd\xc6\x9a", RENDER),
    "EMF": Kind(".emf", rb"\x01\0\0\0.{36} EMF", RENDER),
    "EPS": Kind(".eps .epsf", rb"\xc5\xd0\xd3\xc6|%!PS[^\r\n]*EPSF", RENDER),
    # No pictures, yet often among them or called so.
    "PostScript": Kind(".ps", rb"%!PS", RENDER, False),
    "PDF": Kind(".pdf .ai", rb"%PDF", RENDER, False),
    "XML": Kind(".xml", rb"<\?xml", RENDER, False),
    "film": Kind(".mp4 .mov .m4v .avi .mkv .webm", rb"\x1aE\xdf\xa3|RIFF.{4}AVI ", FRAME, False),
    "archive": Kind(
        ".zip .gz .7z .rar .xz",
        rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ",
        UNPACK,
        False,
    ),
    "AppleDouble": Kind("", rb"\0\x05\x16[\0\x07]", "take the file of that name without ._", False),
}
READ = tuple(name for name, kind in KINDS.items() if not kind.advice)
# Kinds that Pillow reads with a plug-in -> the module that brings it; the extra "formats" installs
# both.
PLUGINS = {"HEIC": "pillow_heif", "JPEG XL": "pillow_jxl"}
DECODERS = {"HEIC": "HEIF", "JPEG XL": "JXL"}  # kind -> what its decoder calls it, where other
# Of ISO base media files: brands -> kind. The first row of which the file has a brand counts.
BRANDS = (
    ("crx", "camera raw (Canon CR3)"),
    ("avif avis avio", "AVIF"),
    ("heic heix heim heis hevc hevx hevm hevs", "HEIC"),
    ("jpeg jpgs avci avcs j2ki j2is mif1 mif2 msf1", "HEIF of another codec"),
)
_STARTS = {name: re.compile(k.start, re.DOTALL) for name, k in KINDS.items() if k.start}
_ENDINGS = {e: k for k in KINDS.values() for e in k.endings.split()}


def endings(formats: tuple[str, ...] = READ) -> tuple[str, ...]:
    """Endings of names of files of these kinds, in lower case, with their point."""
    return tuple(ending for format in formats for ending in KINDS[format].endings.split())


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file of a folder counts as a picture: one that is read, or that is refused by name.

    Its ending tells, in upper or lower case; where that is none of a picture, its first bytes do.
    What is no regular file, or cannot be opened, counts only by its ending.
    """
    kind = _ENDINGS.get(os.path.splitext(os.fsdecode(path))[1].lower())
    return bool(kind and kind.picture) or starts_as_picture(path)


def starts_as_picture(path: str | os.PathLike) -> bool:
    """Whether a regular file's first bytes are a picture's; not so if it cannot be opened."""
    try:
        if not os.path.isfile(path):  # opening a FIFO would wait
            return False
        with open(path, "rb") as file:
            name = kind_of(file.read(HEAD))
    except (OSError, ValueError):
        return False
    return name is not None and KINDS[name].picture


def kind_of(head: bytes) -> str | None:
    """The kind of file that starts so, a key of KINDS; None if it is none of them.

    Args:
      head: the file's first HEAD bytes.
    """
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    fitting = (name for name, start in _STARTS.items() if start.match(head))
    return next(fitting, None) or _without_start(head)


def brands(head: bytes) -> list[str]:
    """Brands of an ISO base media file: the major one, then those it is compatible with."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    places = [8, *range(16, length - 3, 4)]
    return [head[i : i + 4].decode("latin-1").strip() for i in places]


def _by_brands(head: bytes) -> str:
    own = brands(head)
    # The major brand comes first: mif1, which says little, is left to the others.
    for brand in (own[0], *own):
        for names, kind in BRANDS[:3]:
            if brand in names.split():
                return kind
    return BRANDS[3][1] if set(own) & set(BRANDS[3][0].split()) else "film"


def _without_start(head: bytes) -> str | None:
    """TGA has no mark of its own; its header of 18 bytes is checked field by field."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return None
    palette, depth = head[7] in ((15, 16, 24, 32) if head[1] else (0,)), head[16] in (8, 16, 24, 32)
    size = int.from_bytes(head[12:14], "little") * int.from_bytes(head[14:16], "little")
    return "TGA" if palette and depth and size else None


def format_of(head: bytes, name: str, allowed: tuple[str, ...]) -> str:
    """The kind of a file, as its first bytes tell it.

    Args:
      head: the file's first HEAD bytes.
      name: what messages call the file.
      allowed: names in READ of the kinds that the caller reads.

    Raises:
      ImageError: E_DECODE, it is no image; E_UNSUPPORTED, it is of no allowed kind.
    """
    kind = kind_of(head)
    if kind in allowed:
        return kind
    if kind:
        advice = KINDS[kind].advice or CONVERT
        raise ImageError("E_UNSUPPORTED", f"{name}: is {kind}, which is not read; {advice}")
    what = "is empty" if not head else f"starts with {head[:8]!r}, as no picture does"
    if head and not head.strip(b"\0"):
        what = "holds zeros, as a copy that failed does"
    raise ImageError("E_DECODE", f"{name}: {what}; read are {', '.join(allowed)}")
