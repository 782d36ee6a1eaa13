"""Colours: what files say of them is obeyed, flagged or refused, and names count for nothing."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode
from diffv2iqa_jax.pp.decode import Reading
from tests.pictures import display_p3, encoded, linear, picture, profile
from tests.pp.test_samples import chunk, off, refused, written
from tests.pp.test_samples import png as png16

# Light of other primaries -> light of sRGB's, as CSS Color 4 derives them.
P3 = [[1.2249, -0.2249, 0], [-0.0421, 1.0421, 0], [-0.0196, -0.0786, 1.0983]]
BT2020 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
ADOBE = [[1.3984, -0.3984, 0], [0, 1, 0], [0, -0.0429, 1.0429]]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def colours() -> np.ndarray:
    """A grid of all colours, uint8 (27, 27, 3)."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)


def srgb(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, in levels."""
    light = np.clip(light, 0, 1)
    share = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * share)


def light_of(share: np.ndarray) -> np.ndarray:
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def seen(x: np.ndarray, curve=light_of, matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1))) -> np.ndarray:
    """What values of 8 bits show, in levels of sRGB."""
    return srgb(curve(x / 255) @ np.array(matrix).T)


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with these chunks after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def cicp(*numbers: int) -> bytes:
    return chunk(b"cICP", bytes(numbers))


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def named(data: bytes, name: str) -> bytes:
    """A profile under another name of three letters."""
    return data.replace("XYZ".encode("utf-16-be"), name.encode("utf-16-be"), 1)


def curve(points: np.ndarray) -> bytes:
    """ICC's curveType."""
    return struct.pack(">4s4xI", b"curv", len(points)) + points.astype(">u2").tobytes()


def icc(tags: dict[bytes, bytes], space=b"RGB ", kind=b"mntr", between=b"XYZ ") -> bytes:
    """A profile of these tags, by hand."""
    said = "other".encode("utf-16-be")
    mluc = struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(said), 28) + said
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    tags = {b"desc": mluc, b"cprt": mluc, b"wtpt": white, **tags}
    table, data = b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    version = 0x02400000 if between == b"Lab " else 0x04000000
    said = (128 + len(body), version, kind, space, between, b"acsp", 63190, 65536, 54061)
    head = struct.pack(">I4xI4s4s4s12x4s28x3i", *said)
    return head.ljust(128, b"\0") + body


def rgb_tags(points: np.ndarray) -> dict[bytes, bytes]:
    """sRGB's primaries with a curve of points."""
    primaries = ((28578, 14581, 912), (25241, 46981, 6362), (9376, 3972, 46799))
    tags = {}
    for name, xyz in zip("rgb", primaries, strict=True):
        tags[f"{name}XYZ".encode()] = struct.pack(">4s4x3i", b"XYZ ", *xyz)
        tags[f"{name}TRC".encode()] = curve(points)
    return tags


# Profiles


def test_a_profile_is_srgb_by_its_colours_not_by_its_name():
    x = colours()
    liar = named(display_p3(), "RGB")
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(liar)))[:4] == "sRGB"
    found = decode.read(encoded(x, icc_profile=liar))
    assert found.flags == ("icc",) and off(found, seen(x, matrix=P3)) <= 1
    points = np.rint(light_of(np.linspace(0, 1, 1024)) * 65535)
    for unnamed in (profile({}), icc(rgb_tags(points)), SRGB):
        found = decode.read(encoded(x, icc_profile=unnamed))
        assert found.flags == ()
        np.testing.assert_array_equal(found.image_HWC, x)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_grey_picture_with_a_profile_of_colours_is_grey_by_its_curve(format):
    x = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    settings = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    data = encoded(x, format, icc_profile=linear(), **settings.get(format, {}))
    found = decode.read(data)
    assert found.flags == ("icc",)
    away = np.abs(found.image_HWC - srgb(x[..., None] / 255))
    assert away[:, 32:].max() <= (1 if format in ("PNG", "TIFF", "WEBP") else 8)
    assert np.ptp(found.image_HWC, axis=2).max() <= 1
    assert decode.read(encoded(x, icc_profile=display_p3())).flags == ()  # grey of P3 is sRGB's


def test_a_grey_profile_shows_a_grey_picture():
    x = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    share = np.linspace(0, 1, 256)
    for points, want in (
        (share**2.2, (x / 255) ** 2.2),  # Gray Gamma 2.2
        (share**1.75 * 0.9 + share * 0.1, (x / 255) ** 1.75 * 0.9 + (x / 255) * 0.1),
    ):
        data = encoded(x, icc_profile=icc({b"kTRC": curve(np.rint(points * 65535))}, b"GRAY"))
        found = decode.read(data)
        assert found.flags == ("icc",) and off(found, srgb(want[..., None])) <= 1
        clear = Image.merge("LA", [Image.fromarray(x), Image.new("L", (256, 4), 255)])
        settings = {"icc_profile": icc({b"kTRC": curve(np.rint(points * 65535))}, b"GRAY")}
        for image in (encoded(clear, **settings), encoded(x, transparency=7, **settings)):
            opaque = np.arange(256) != 7
            found = decode.read(image)
            assert found.flags[0] == "icc"
            assert np.abs(found.image_HWC - srgb(want[..., None]))[:, opaque].max() <= 1
        x_16 = np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None]
        iccp = chunk(b"iCCP", b"p\0\0" + zlib.compress(settings["icc_profile"]))
        found = decode.read(with_chunks(png16(x_16, 0), iccp))
        assert found.flags == ("16bit", "icc") and off(found, srgb(want[:1, :, None])) <= 1
    same = icc({b"kTRC": curve(np.rint(light_of(np.linspace(0, 1, 1024)) * 65535))}, b"GRAY")
    assert decode.read(encoded(x, icc_profile=same)).flags == ()


def test_a_profile_of_no_use_is_flagged():
    x = picture()
    grey = icc({b"kTRC": curve(np.array([0, 65535]))}, b"GRAY")
    points = np.array([0, 65535])
    link, abstract = (icc(rgb_tags(points), kind=kind) for kind in (b"link", b"abst"))
    cut, cmyk = linear()[:300], icc(rgb_tags(points), b"CMYK")
    for useless in (grey, link, abstract, cut, cmyk, b"nonsense" * 40, linear()[:60]):
        for format in ("PNG", "TIFF"):
            found = decode.read(encoded(x, format, icc_profile=useless))
            assert found.flags == ("icc_ignored",)
            np.testing.assert_array_equal(found.image_HWC, x)
    scanner = icc(rgb_tags(points), kind=b"scnr")
    assert decode.read(encoded(x, icc_profile=scanner)).flags == ("icc",)


def test_profiles_of_16_bits_lose_nothing_to_rounding():
    """Steps of 8 bits in linear light are 13 levels of sRGB in the dark."""
    x = np.tile(np.linspace(0, 65535, 512).astype(np.uint16)[:, None], (4, 1, 3))
    iccp = chunk(b"iCCP", b"p\0\0" + zlib.compress(linear()))
    found = decode.read(with_chunks(png16(x, 2), iccp))
    assert found.flags == ("16bit", "icc") and off(found, srgb(x / 65535)) <= 1
    wide = chunk(b"iCCP", b"p\0\0" + zlib.compress(display_p3()))
    y = (colours().astype(np.uint16)) * 257
    found = decode.read(with_chunks(png16(y, 2), wide))
    assert found.flags == ("16bit", "icc") and off(found, seen(colours(), matrix=P3)) <= 1
    same = chunk(b"iCCP", b"p\0\0" + zlib.compress(profile({})))
    assert decode.read(with_chunks(png16(y, 2), same)).flags == ("16bit",)


def inks(corners: np.ndarray) -> bytes:
    """A CMYK profile that gives Lab (16, 3) of no ink or full ink: ICC's lut8Type."""
    ramp = bytes(range(256))
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lab = np.rint(corners * [2.55, 1, 1] + [0, 128, 128]).astype(np.uint8).tobytes()
    lut = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + unit + ramp * 4 + lab + ramp * 3
    return icc({b"A2B0": lut}, b"CMYK", b"prtr", b"Lab ")


@pytest.mark.parametrize("format", ["TIFF", "JPEG", "16"])
def test_a_cmyk_picture_is_seen_by_its_profile(format):
    """Sixteen mixtures of full inks, whose colours the profile says."""
    light = np.linspace(95, 10, 16)
    corners = np.stack([light, np.tile([20, -15, 0, 9], 4), np.repeat([-25, 30, 5, -8], 4)], -1)
    corners[0], corners[15] = (100, 0, 0), 0  # white and black stay, whatever the intent
    bits = np.arange(16)[:, None] >> np.arange(3, -1, -1) & 1
    x = np.repeat(np.repeat((bits * 255).astype(np.uint8)[None], 16, 0), 16, 1)
    if format == "16":
        tags = [(34675, 7, len(inks(corners)), inks(corners), True)]
        data = written(x.astype(np.uint16) * 257, photometric="separated", extratags=tags)
    else:
        settings = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
        data = encoded(Image.fromarray(x, "CMYK"), format, icc_profile=inks(corners), **settings)
    found = decode.read(data)
    assert found.flags == (("16bit", "icc") if format == "16" else ("icc",))
    lab = np.rint(corners * [2.55, 1, 1] + [0, 128, 128]).astype(np.uint8)
    want = decode.read(Image.fromarray(lab[None], "LAB")).image_HWC[0]
    wide = np.broadcast_to(np.repeat(want, 16, 0), (16, 256, 3))
    assert off(found, wide) <= (6 if format == "JPEG" else 2)
    assert decode.read(data, Reading(icc="ignore")).flags == (("16bit",) if format == "16" else ())


@pytest.mark.parametrize("type_", [1, 7])
def test_deep_tiff_holds_its_profile_as_bytes_of_either_type(type_):
    x = colours().astype(np.uint16) * 257
    tags = [(34675, type_, len(display_p3()), display_p3(), True)]
    found = decode.read(written(x, photometric="rgb", extratags=tags))
    assert found.flags == ("16bit", "icc") and off(found, seen(colours(), matrix=P3)) <= 1


# PNG's chunks


def bt709(share):
    return np.where(share < 0.081, share / 4.5, ((share + 0.099) / 1.099) ** (1 / 0.45))


@pytest.mark.parametrize(
    "numbers, curve, matrix",
    [
        ((12, 13), light_of, P3),
        ((9, 13), light_of, BT2020),
        ((1, 1), bt709, np.eye(3)),
        ((9, 14), bt709, BT2020),
        ((1, 8), lambda share: share, np.eye(3)),
        ((2, 4), lambda share: share**2.2, np.eye(3)),
    ],
)
def test_cicp_is_obeyed(numbers, curve, matrix):
    x = colours()
    eight = with_chunks(encoded(x), cicp(*numbers, 0, 1))
    sixteen = with_chunks(png16(x.astype(np.uint16) * 257, 2), cicp(*numbers, 0, 1))
    for data, flags in ((eight, ("cicp",)), (sixteen, ("16bit", "cicp"))):
        found = decode.read(data)
        assert found.flags == flags and off(found, seen(x, curve, matrix)) <= 1
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode.read(image).image_HWC, found.image_HWC)
    ignored = decode.read(eight, Reading(icc="ignore"))
    assert ignored.flags == () and off(ignored, x) == 0


def test_cicp_counts_before_a_profile_and_that_before_srgb_and_gamma():
    x = colours()
    by_p3, plain = seen(x, matrix=P3), with_chunks(encoded(x), cicp(1, 13, 0, 1))
    said = chunk(b"sRGB", b"\0")
    assert decode.read(plain).flags == ()
    lies = encoded(x, icc_profile=linear())
    assert off(decode.read(with_chunks(lies, cicp(12, 13, 0, 1))), by_p3) <= 1
    assert decode.read(with_chunks(lies, cicp(1, 13, 0, 1))).flags == ()
    assert off(decode.read(with_chunks(encoded(x), said, cicp(12, 13, 0, 1))), by_p3) <= 1
    assert decode.read(with_chunks(encoded(x), said, gama(1.0))).flags == ()
    wide = with_chunks(encoded(x, icc_profile=display_p3()), gama(1.0))
    found = decode.read(wide)
    assert found.flags == ("icc",) and off(found, by_p3) <= 1


@pytest.mark.parametrize("transfer, word", [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_its_name(transfer, word):
    x = picture(32, 32, dtype=np.uint16)
    data = with_chunks(png16(x, 2), cicp(9, transfer, 0, 1))
    assert word in refused(data) and "HDR" in refused(data)
    grey = with_chunks(png16(x[..., :1], 0), cicp(9, transfer, 0, 1))
    assert word in refused(grey)
    tag = {b"cicp": struct.pack(">4s4x4B", b"cicp", 9, transfer, 0, 1)}
    tagged = icc({**rgb_tags(np.array([0, 65535])), **tag})
    for format in ("PNG", "JPEG", "TIFF", "AVIF"):
        assert word in refused(encoded(picture(32, 32), format, icc_profile=tagged))
    assert decode.read(data, Reading(icc="ignore")).flags == ("16bit",)


def test_numbers_of_no_rule_are_refused():
    for numbers in ((3, 13, 0, 1), (1, 3, 0, 1), (1, 13, 0, 0), (1, 13, 1, 1), (1, 17, 0, 1)):
        assert "H.273" in refused(with_chunks(encoded(picture()), cicp(*numbers)))
    short = with_chunks(encoded(picture()), chunk(b"cICP", b"\1"))
    assert decode.read(short).flags == ()


@pytest.mark.parametrize("gamma", [1.0, 0.55556, 0.38])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "16"])
def test_gamma_is_obeyed(gamma, mode):
    x = colours()
    if mode == "16":
        data, want = png16(x.astype(np.uint16) * 257, 2), x
    else:
        image = Image.fromarray(x).convert(mode)
        data, want = encoded(image), np.asarray(image.convert("RGB"))
    found = decode.read(with_chunks(data, gama(gamma)))
    assert found.flags == (("16bit", "gamma") if mode == "16" else ("gamma",))
    assert off(found, seen(want, lambda share: share ** (1 / gamma))) <= 1
    for near in (0.45455, 0.45, 0.47):  # stands for sRGB
        assert "gamma" not in decode.read(with_chunks(data, gama(near))).flags


def jp2(x: np.ndarray, colr: bytes) -> bytes:
    """A JPEG 2000 file that says `colr` of its colours."""
    data = encoded(x, "JPEG2000", irreversible=False)
    head, at = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    size, old = (struct.unpack_from(">I", data, i)[0] for i in (head, at))
    box = struct.pack(">I4s", 8 + len(colr), b"colr") + colr
    size = struct.pack(">I", size - old + len(box))
    return data[:head] + size + data[head + 4 : at] + box + data[at + old :]


def test_a_profile_in_jpeg_2000_is_obeyed():
    """Pillow does not tell of it."""
    x = colours()
    for method in (b"\2\0\0", b"\3\0\0"):
        found = decode.read(jp2(x, method + display_p3()))
        assert found.flags == ("icc",) and off(found, seen(x, matrix=P3)) <= 1
    assert decode.read(jp2(x, b"\2\0\0" + SRGB)).flags == ()
    assert decode.read(jp2(x, b"\2\0\0" + b"nonsense" * 40)).flags == ("icc_ignored",)
    assert decode.read(jp2(x, b"\1\0\0\0\0\0\x10")).flags == ()
    romm = decode.read(jp2(x, b"\1\0\0\0\0\0\x15"))  # as a number
    assert romm.flags == ("icc_ignored",) and off(romm, x) == 0


def test_a_profile_of_which_a_part_is_missing_is_flagged():
    x = np.full((16, 16, 3), 128, np.uint8)
    data = encoded(x, "JPEG", icc_profile=display_p3(), quality=95)
    at = data.index(b"ICC_PROFILE\0\1\1") + 13
    first_of_two = data[:at] + b"\2" + data[at + 1 :]
    no_deflate = with_chunks(encoded(x), chunk(b"iCCP", b"P3\0\0" + b"nonsense" * 40))
    for found in map(decode.read, (first_of_two, no_deflate)):
        assert found.flags == ("icc_ignored",) and off(found, x) <= 1


def test_chromaticities_are_obeyed():
    x = colours()
    p3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    chrm = chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in p3)))
    for chunks in ((gama(0.45455), chrm), (chrm,)):
        found = decode.read(with_chunks(encoded(x), *chunks))
        assert found.flags == ("gamma",) and off(found, seen(x, matrix=P3)) <= 1
    usual = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    same = chunk(b"cHRM", struct.pack(">8I", *usual))
    assert decode.read(with_chunks(encoded(x), gama(0.45455), same)).flags == ()
    for damage in (gama(0), chunk(b"cHRM", bytes(32))):
        found = decode.read(with_chunks(encoded(x), damage))
        assert found.flags == ("icc_ignored",) and off(found, x) == 0


# Other formats


def with_nclx(data: bytes, *numbers: int) -> bytes:
    """An AVIF or HEIC file whose box of colours says other numbers."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">3H", *numbers) + data[at + 6 :]


def heic(x: np.ndarray) -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="the extra `formats` is not installed")
    heif.register_heif_opener()
    return encoded(x, "HEIF", quality=-1, chroma=444)


@pytest.mark.parametrize("format", ["AVIF", "HEIC"])
def test_colours_of_avif_and_heic_are_obeyed_or_refused(format):
    x = np.repeat(np.repeat(colours(), 8, 0), 8, 1)
    how = Reading(formats=(format,))
    data = heic(x) if format == "HEIC" else encoded(x, format, quality=100, subsampling="4:4:4")
    plain = decode.read(data, how)
    assert plain.flags == () and off(plain, x) <= 8
    matrix = struct.unpack_from(">H", data, data.index(b"colrnclx") + 12)[0]
    wide = decode.read(with_nclx(data, 12, 13, matrix), how)
    assert wide.flags == ("cicp",) and off(wide, seen(plain.image_HWC, matrix=P3)) <= 1
    for transfer, word in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(ImageError, match=f"E_UNSUPPORTED.*{word}"):
            decode.read(with_nclx(data, 9, transfer, matrix), how)


def test_a_profile_in_avif_counts_before_its_numbers():
    x = np.repeat(np.repeat(colours(), 8, 0), 8, 1)
    data = encoded(x, "AVIF", quality=100, icc_profile=display_p3())
    found = decode.read(data)
    assert found.flags == ("icc",)


def test_adobe_rgb_of_cameras_is_obeyed():
    """The option file of DCF 2.0: uncalibrated, and R03 in the interoperability index."""
    x = np.repeat(np.repeat(colours(), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    data = encoded(x, "JPEG", quality=100, subsampling=0, exif=exif)
    found, ignored = decode.read(data), decode.read(data, Reading(icc="ignore"))
    assert found.flags == ("icc",) and ignored.flags == ()
    want = seen(ignored.image_HWC, lambda share: share ** (563 / 256), ADOBE)
    assert off(found, want) <= 1
    exif[0x8769] = {0xA001: 2}
    assert decode.read(encoded(x, "JPEG", exif=exif)).flags == ("icc",)
    exif[0x8769] = {0xA001: 0xFFFF}
    assert decode.read(encoded(x, "JPEG", exif=exif)).flags == ()
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}
    assert decode.read(encoded(x, "JPEG", exif=exif)).flags == ()


def bmp(x: np.ndarray, kind: bytes, ends=(0,) * 9, gamma=0.0, profile=b"", size=124) -> bytes:
    """A BMP of 24 bits with the header V4 (108 bytes) or V5 (124)."""
    rows = np.ascontiguousarray(x[::-1, :, ::-1])  # of a width that needs no padding
    ends = [round(v * (1 << 30)) for v in ends]
    head = struct.pack(
        "<IiiHHIIiiII16x", size, x.shape[1], x.shape[0], 1, 24, 0, rows.size, 0, 0, 0, 0
    )
    head += struct.pack("<4s9i3I", kind, *ends, *[round(gamma * 65536)] * 3)
    if size == 124:
        head += struct.pack("<4I", 4, size + rows.size, len(profile), 0)
    file = struct.pack("<2sIHHI", b"BM", 14 + size + rows.size + len(profile), 0, 0, 14 + size)
    return file + head + rows.tobytes() + profile


def test_the_colours_of_bmp_are_obeyed():
    x = colours()[:, :24]
    wide = decode.read(bmp(x, b"DEBM", profile=display_p3()))
    assert wide.flags == ("icc",) and off(wide, seen(x, matrix=P3)) <= 1
    p3 = (0.68, 0.32, 0, 0.265, 0.69, 0.045, 0.15, 0.06, 0.79)
    usual = (0.64, 0.33, 0.03, 0.3, 0.6, 0.1, 0.15, 0.06, 0.79)
    for size in (108, 124):
        for said in (0, 2.2, 1 / 2.2):
            found = decode.read(bmp(x, bytes(4), p3, said, size=size))
            assert found.flags == ("gamma",) and off(found, seen(x, matrix=P3)) <= 1
            assert decode.read(bmp(x, bytes(4), usual, said, size=size)).flags == ()
        for plain in (bmp(x, b"BGRs", size=size), bmp(x, b" niW", size=size), bmp(x, bytes(4))):
            found = decode.read(plain)
            assert found.flags == () and off(found, x) == 0
    assert decode.read(bmp(x, b"KNIL")).flags == ("icc_ignored",)
    ignored = decode.read(bmp(x, b"DEBM", profile=display_p3()), Reading(icc="ignore"))
    assert ignored.flags == () and off(ignored, x) == 0
