"""Every layout of samples that tifffile writes, and 16-bit PNG: the plain picture, or refused."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffv2iqa_jax.errors import ImageError
from diffv2iqa_jax.pp import decode, jxl
from diffv2iqa_jax.pp.decode import Reading
from tests.pictures import encoded, picture

H, W = 24, 36
LOSSLESS = ("none", "zlib", "lzma", "packbits", "lzw", "zstd")
OTHERS = ("jpeg", "webp", "lerc", "jpegxl", "jpeg2000", "png", "jpegxr")
CHANNELS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4, "cielab": 3, "icclab": 3}
# Photometric -> what the refusal calls it.
OF_NO_RULE = {"itulab": "ITU Lab", "logluv": "LogLuv (HDR)", "logl": "LogL (HDR)"}
OF_NO_RULE |= {"cfa": "camera raw", "linear_raw": "camera raw", "mask": "mask"}
UNSIGNED, FLOATING = ("u1", "u2", "u4", "u8"), ("f2", "f4", "f8")
OF_NO_SCALE = ("i1", "i2", "i4", "i8", "c8", "c16")
# Order of bytes, BigTIFF, tiles.
FORMS = (("<", False, None), (">", False, (16, 16)), ("<", True, (16, 32)), (">", True, None))


def truth(channels: int) -> np.ndarray:
    """A smooth picture that uses all of the range, float64 in 0..1."""
    rows, columns = np.mgrid[:H, :W] / np.array([H - 1, W - 1])[:, None, None]
    planes = [rows, columns, (rows + columns) / 2, rows * columns / 2]
    return np.stack(planes[:channels], -1)


def in_type(share: np.ndarray, type_: str) -> np.ndarray:
    """Shares of 0..1 in a type; integers use all of their range, of 64 bits the upper half."""
    x = np.dtype(type_)
    if x.kind not in "ui":
        return share.astype(x)
    if x == np.uint64:
        return np.rint(share * 0xFFFFFFFF).astype(x) * np.uint64(0x100000001)
    if x == np.int64:
        return (share * 1e18).astype(x)
    return np.rint(share * np.iinfo(x).max).astype(x)


def written(x: np.ndarray, compression: str = "none", **settings) -> bytes:
    """A TIFF file; of samples (H, W, C), with planarconfig="separate" in planes."""
    if settings.get("planarconfig") == "separate":
        x = np.ascontiguousarray(np.moveaxis(x, -1, 0))
    elif x.shape[-1] == 1:
        x = x[..., 0]
    settings.setdefault("metadata", None)
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, x, compression=None if compression == "none" else compression, **settings
    )
    return stream.getvalue()


def needs(compression: str, predictor: int | None = None) -> None:
    """Skips where nothing here can write it."""
    try:
        x = np.zeros((16, 16, 3), np.float32 if predictor == 3 else np.uint8)
        written(x, compression, photometric="rgb", predictor=predictor)
    except (KeyError, ImportError) as error:  # as tifffile says that it needs imagecodecs
        pytest.skip(f"the test extra is not installed: {error}")


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode.read(data)
    assert caught.value.code == "E_UNSUPPORTED" and "\n" not in str(caught.value)
    return str(caught.value)


def off(found, want) -> float:
    """The largest difference, in levels."""
    return np.abs(found.image_HWC - np.asarray(want, float)).max()


def shown(photometric: str, share: np.ndarray) -> np.ndarray:
    """What a picture of these samples shows, as TIFF 6.0 defines them, in levels of 8 bits."""
    if photometric == "separated":
        return 255 * (1 - share[..., :3]) * (1 - share[..., 3:])
    share = 1 - share if photometric == "miniswhite" else share
    return 255 * np.broadcast_to(share, (H, W, 3))


@pytest.mark.parametrize("predictor", [None, 2, 3])
@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "separated"])
def test_every_layout_without_loss_is_the_plain_picture(photometric, compression, predictor):
    if compression == "none" and predictor:
        pytest.skip("tifffile predicts nothing that it does not compress")
    needs(compression, predictor)
    share = np.rint(truth(CHANNELS[photometric]) * 255) / 255
    want = shown(photometric, share)
    types = {None: UNSIGNED + FLOATING, 2: UNSIGNED, 3: FLOATING}[predictor]
    planars = ("contig", "separate") if share.shape[-1] > 1 else (None,)
    for number, (type_, planar) in enumerate(itertools.product(types, planars)):
        order, big, tile = FORMS[(number + (predictor or 0)) % len(FORMS)]
        data = written(
            in_type(share, type_), compression, photometric=photometric, byteorder=order,
            bigtiff=big, tile=tile, planarconfig=planar, predictor=predictor,
        )  # fmt: skip
        found = decode.read(data)
        assert off(found, want) <= 1, (type_, planar, order, big, tile)
        assert found.flags == (() if type_ == "u1" else ("16bit",))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [*LOSSLESS, "ccitt_t4", "ccitt_t6"])
def test_one_bit_is_black_or_white(photometric, compression):
    black = truth(1)[..., 0] > 0.4
    if compression.startswith("ccitt"):  # Pillow writes what tifffile does not
        image = Image.fromarray(black if photometric == "minisblack" else ~black)
        data = encoded(image, "TIFF", compression=compression.replace("ccitt_t", "group"))
        photometric = "minisblack"
        black = np.asarray(image)
    else:
        needs(compression)
        data = written(black[..., None], compression, photometric=photometric)
    assert off(decode.read(data), shown(photometric, black[..., None] * 1.0)) == 0


@pytest.mark.parametrize("compression", OTHERS)
def test_other_compressions_are_the_plain_picture_or_refused(compression):
    needs(compression)
    right = 0
    photometrics = ("minisblack", "miniswhite", "rgb", "separated")
    for photometric, type_ in itertools.product(photometrics, ("u1", "u2", "f4")):
        share = truth(CHANNELS[photometric])
        try:
            data = written(in_type(share, type_), compression, photometric=photometric)
        except (ValueError, RuntimeError, NotImplementedError, TypeError):
            continue  # what the compression does not hold
        try:
            found = decode.read(data)
        except ImageError as error:
            assert error.code == "E_UNSUPPORTED"
            continue
        right += 1
        away = np.abs(found.image_HWC - shown(photometric, share))
        assert away.max() <= (8 if compression == "jpeg" else 1) and away.mean() < 2
    assert right or compression != "jpeg"


@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
@pytest.mark.parametrize("type_", ["u1", "u2"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_lab_is_the_colour_it_means(photometric, type_, planar):
    """Against Lindbloom's matrix of D50's XYZ to sRGB (Bradford)."""
    lab = truth(3) * [60, 50, 50] + [25, -20, -25]
    step, whole = (1, 255) if type_ == "u1" else (256, 65535 if photometric == "cielab" else 65280)
    x = np.rint(lab * [whole / 100, step, step] + [0, 0, 0])
    x = x + (128 * step * np.array([0, 1, 1]) if photometric == "icclab" else 0)
    x = x.astype(np.int64).astype(type_)  # negative numbers wrap, as two's complement
    x_lab = lab if type_ == "u2" else np.rint(lab * [2.55, 1, 1]) / [2.55, 1, 1]
    fy = (x_lab[..., 0] + 16) / 116
    f = np.stack([fy + x_lab[..., 1] / 500, fy, fy - x_lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 108 / 841) * [0.96422, 1, 0.82521]
    to_srgb = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.033454]]
    to_srgb += [[0.0719453, -0.2289914, 1.4052427]]
    light = np.clip(xyz @ np.array(to_srgb).T, 0, 1)
    want = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert off(decode.read(written(x, photometric=photometric, planarconfig=planar)), want) <= 1


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", "<>")
def test_ycbcr_is_the_picture_of_jfif_or_refused(planar, order):
    x = np.rint(truth(3) * 255)
    y = x @ [0.299, 0.587, 0.114]
    ycbcr = np.stack([y, (x[..., 2] - y) / 1.772 + 128, (x[..., 0] - y) / 1.402 + 128], -1)
    stored = np.rint(ycbcr).clip(0, 255).astype(np.uint8)
    settings = dict(photometric="ycbcr", planarconfig=planar, byteorder=order)
    coefficients = (529, "2I", 3, (299, 1000, 587, 1000, 114, 1000), True)
    full, video = (
        [(532, "2I", 6, (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1), True)],
        [(532, "2I", 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True)],
    )
    for tags in ([], [coefficients], full):
        found = decode.read(written(stored, extratags=tags, subsampling=(1, 1), **settings))
        # Colours of 8 bits are rounded before the matrix, which multiplies by up to 1.772.
        assert off(found, x) <= 2 and found.flags == ()
    refused(written(stored, extratags=video, subsampling=(1, 1), **settings))
    refused(written(stored.astype(np.uint16), subsampling=(1, 1), **settings))


@pytest.mark.parametrize("type_", OF_NO_SCALE)
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_samples_of_no_scale_are_refused_by_name(type_, photometric):
    data = written(in_type(truth(CHANNELS[photometric]), type_), photometric=photometric)
    assert ("signed" if type_[0] == "i" else "complex") in refused(data)


@pytest.mark.parametrize("photometric", OF_NO_RULE)
def test_photometrics_of_no_rule_are_refused_by_name(photometric):
    for type_ in ("u1", "u2"):
        x = in_type(truth(3 if photometric in ("itulab", "logluv", "linear_raw") else 1), type_)
        assert OF_NO_RULE[photometric] in refused(written(x, photometric=photometric))


def test_several_channels_of_no_meaning_are_refused():
    for channels in (3, 5, 40):
        x = np.zeros((H, W, channels), np.uint8)
        data = written(x, photometric="minisblack", planarconfig="contig")
        assert f"{channels} channels" in refused(data)


@pytest.mark.parametrize("type_", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("extra", ["unspecified", "assocalpha", "unassalpha", "unspecified2"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_extra_samples_are_passed_over_or_shown_on_white(photometric, extra, planar, type_):
    share = truth(4) if type_ != "u1" else np.rint(truth(4) * 255) / 255
    colour, alpha = share[..., : CHANNELS[photometric]], np.rint(share[..., 1:2] * 255) / 255
    want = 255 * np.broadcast_to(colour, (H, W, 3))
    x = colour * alpha if extra == "assocalpha" else colour
    samples = [in_type(x, type_), *[in_type(alpha, type_)] * (2 if extra[-1] == "2" else 1)]
    settings = dict(photometric=photometric, planarconfig=planar)
    settings["extrasamples"] = [extra.rstrip("2")] * (len(samples) - 1)
    data = written(np.concatenate(samples, -1), **settings)
    if extra == "unspecified2" and photometric == "minisblack":
        refused(data)
        return
    found = decode.read(data)
    if "alpha" in extra:
        want = want * alpha + 255 * (1 - alpha)
    # Of 8 bits, what is multiplied by a small alpha has lost some of its steps.
    tolerance = 2 if extra == "assocalpha" and type_ == "u1" else 1
    assert off(found, want) <= tolerance
    deep = () if type_ == "u1" else ("16bit",)
    assert found.flags == (*deep, *(("alpha",) if "alpha" in extra else ()))


@pytest.mark.parametrize("type_", ["u1", "u2"])
def test_a_palette_shows_its_colours(type_):
    size = np.iinfo(type_).max + 1
    colours = picture(1, size, dtype=np.uint16)[0]
    x = (np.arange(H * W).reshape(H, W, 1) * 7919 % size).astype(type_)
    data = written(x, photometric="palette", colormap=colours.T)
    assert off(decode.read(data), colours[x[..., 0]] / 257) <= 1


def packed(x: np.ndarray, bits: int, order: str = "<", extra: dict | None = None) -> bytes:
    """A TIFF (H, W) or (H, W, 3) of so many bits, which tifffile does not write: by hand."""
    h, w = x.shape[:2]
    rows = x.reshape(h, -1, 1) >> np.arange(bits - 1, -1, -1) & 1
    data = np.packbits(rows.astype(np.uint8).reshape(h, -1), axis=1).tobytes()
    colours = x.size // (h * w)
    tags = {256: w, 257: h, 258: bits, 259: 1, 262: 2 if colours == 3 else 1, 277: colours}
    tags = {**tags, 278: h, 279: len(data), **(extra or {})}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = [struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return head + b"".join(entries) + bytes(4) + data


@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14, 24])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", "<>")
def test_packed_samples_are_the_plain_picture(bits, channels, order):
    top = (1 << bits) - 1
    x = np.rint(truth(channels) * top).astype(np.int64)
    data = packed(x, bits, order)
    if bits < 8 and channels == 3:
        refused(data)
    else:
        assert off(decode.read(data), 255 * np.broadcast_to(x / top, (H, W, 3))) <= 1


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_few_bits_in_sixteen_are_never_nearly_black_in_silence(bits, photometric):
    top = (1 << bits) - 1
    x = np.rint(truth(CHANNELS[photometric]) * top).astype(np.uint16)
    want = 255 * np.broadcast_to(x / top, (H, W, 3))
    said = [(281, "H", x.shape[-1], (top,) * x.shape[-1], True)]  # MaxSampleValue
    found = decode.read(written(x, photometric=photometric, extratags=said))
    assert off(found, want) <= 1 and found.flags == ("16bit",)
    unsaid = [written(x, photometric=photometric)]
    unsaid += [png(x, 2 if photometric == "rgb" else 0)]
    for data in unsaid:
        if bits < 14:
            assert f"multiply by {1 << 16 - bits}" in refused(data)
        else:
            assert decode.read(data).flags == ("dark", "16bit")
    assert decode.read(written(x * 0, photometric=photometric)).image_HWC.max() == 0


def test_floats_outside_0_to_1_are_refused_by_their_range():
    for type_, worst in itertools.product(("f2", "f4", "f8"), (2.5, -0.25, np.nan, np.inf)):
        x = truth(3)
        x[0, 0] = worst
        message = refused(written(x.astype(type_), photometric="rgb"))
        assert f"{worst:.4g}" in message and "0..1" in message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(x: np.ndarray, colour: int, *chunks: bytes) -> bytes:
    """A PNG of 16 bits, by hand."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    head = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 16, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", head),
        *chunks,
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_png_are_rounded_not_cut(colour, channels):
    x = picture(H, W, channels, dtype=np.uint16)
    if colour in (4, 6):
        x[..., -1] = 65535
    want = np.broadcast_to((x[..., :3] if channels > 2 else x[..., :1]) / 257, (H, W, 3))
    data = png(x, colour, chunk(b"sBIT", bytes([12] * channels)))  # samples are scaled all the same
    found = decode.read(data)
    np.testing.assert_array_equal(found.image_HWC, np.rint(want))
    assert found.flags == ("16bit",)
    with Image.open(io.BytesIO(data)) as image:
        opened = decode.read(image)
    np.testing.assert_array_equal(opened.image_HWC, found.image_HWC)
    assert opened.flags == ("16bit",)


@pytest.mark.parametrize("colour, channels", [(0, 1), (2, 3)])
def test_the_clear_colour_of_a_png_of_16_bits_is_compared_in_16_bits(colour, channels):
    x = picture(H, W, channels, dtype=np.uint16)
    x[3, 4], x[3, 5] = x[0, 0], x[0, 0] ^ 1  # the second is another colour
    key = chunk(b"tRNS", x[0, 0].astype(">u2").tobytes())
    found = decode.read(png(x, colour, key))
    assert found.flags == ("16bit", "alpha") and (found.image_HWC[3, 4] == 255).all()
    np.testing.assert_array_equal(found.image_HWC[3, 5], np.rint(x[3, 5] / 257) * np.ones(3))


def test_transparency_of_16_bits_is_half_white():
    x = np.full((4, 4, 4), (25_700, 0, 51_400, 32_896), np.uint16)
    want = np.array([100, 0, 200]) * 128 / 255 + 255 * 127 / 255
    found = decode.read(png(x, 6))
    assert off(found, want) <= 1 and found.flags == ("16bit", "alpha")


def test_other_files_of_more_than_8_bits_say_so():
    x = picture(H, W, 1, dtype=np.uint16)[..., 0]
    found = decode.read(encoded(x, "JPEG2000"), Reading(formats=("JPEG2000",)))
    assert off(found, x[..., None] / 257) <= 1 and found.flags == ("16bit",)


def test_colours_of_more_than_8_bits_in_jpeg_2000_are_refused():
    """Pillow shows their whites black: 65535 becomes 0."""
    data = bytearray(encoded(picture(H, W), "JPEG2000", irreversible=False))
    assert decode.read(bytes(data)).flags == ()
    bits = data.index(b"\xff\x4f\xff\x51") + 2 + 40
    data[bits : bits + 9 : 3] = bytes([11] * 3)
    assert "JPEG 2000 of 12 bits" in refused(bytes(data))
    # Its header may stand behind a long profile.
    uuid = struct.pack(">I4s", 8 + 50_000, b"uuid") + bytes(50_000)
    at = data.index(b"jp2c") - 4
    assert "JPEG 2000 of 12 bits" in refused(bytes(data[:at] + uuid + data[at:]))


def test_jpeg2000_of_reduced_colours_is_refused():
    """As films and scans have them (sYCC of 4:2:0); Pillow 13 is off by up to 60 levels there."""
    data = bytearray(encoded(picture(H, W), "JPEG2000", irreversible=False))
    siz = data.index(b"\xff\x4f\xff\x51") + 2
    for component in (1, 2):
        at = siz + 41 + 3 * component
        data[at : at + 2] = b"\2\2"
    assert "reduced resolution" in refused(bytes(data))


@pytest.mark.parametrize("type_, bits", [("u1", 8), ("u2", 16), ("f4", 32)])
def test_deep_jpeg_xl_says_so(type_, bits):
    codecs = pytest.importorskip("imagecodecs", reason="the test extra is not installed")
    data = codecs.jpegxl_encode(in_type(truth(3), type_), lossless=True)
    assert jxl.header(io.BytesIO(data)).bits == bits
    pytest.importorskip("pillow_jxl", reason="the extra `formats` is not installed")
    found = decode.read(data, Reading(icc="ignore", formats=("JPEG XL",)))
    assert off(found, truth(3) * 255) <= 1
    assert found.flags == (("16bit",) if bits > 8 else ())


@pytest.mark.parametrize("kind, channels", [(b"P5", 1), (b"P6", 3)])
@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_ppm_is_scaled_by_its_largest_value(kind, channels, top):
    x = picture(H, W, channels, dtype=np.uint16) & top
    pixels = x.astype(">u2" if top > 255 else "u1").tobytes()
    found = decode.read(kind + b"\n# a remark 9\n%d %d\n%d\n" % (W, H, top) + pixels)
    assert off(found, np.broadcast_to(x / top * 255, (H, W, 3))) <= 1
    assert found.flags == (("16bit",) if top > 255 else ())


def test_what_tensorflow_cuts_is_not_plain():
    x = picture(H, W, 3, dtype=np.uint16)
    assert not decode.is_plain(png(x, 2)) and not decode.is_plain(png(x[..., :1], 0))
    assert decode.is_plain(encoded(picture()))


def test_a_pil_image_of_a_deep_tiff_is_its_file():
    x = picture(H, W, 3, dtype=np.uint16)
    data = written(x, photometric="rgb")
    with Image.open(io.BytesIO(data)) as image:
        found = decode.read(image)
        np.testing.assert_array_equal(found.image_HWC, np.rint(x / 257))
        assert found.flags == ("16bit",) and np.asarray(image).shape == (H, W, 3)


def test_of_a_deep_tiff_behind_its_thumbnail_the_picture_counts():
    x, stream = picture(H, W, 3, dtype=np.uint16), io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(x[::4, ::4], photometric="rgb", metadata=None, subfiletype=1)
        file.write(x, photometric="rgb", metadata=None)
    found = decode.read(stream.getvalue())
    np.testing.assert_array_equal(found.image_HWC, np.rint(x / 257))
    assert found.flags == ("16bit",)


def test_a_dark_part_of_a_large_picture_is_not_taken_for_few_bits():
    x = np.zeros((8200, 520), np.uint16)
    x[:, 1], x[-1, 0] = 300, 65535
    found = decode.read(encoded(x, "JPEG2000", irreversible=False), Reading(formats=("JPEG2000",)))
    assert found.flags == ("16bit",) and off(found, x[..., None] / 257) <= 1


def test_all_eight_orientations_of_deep_tiff():
    x = picture(H, W, 3, dtype=np.uint16)
    upright = np.rint(x / 257)
    stored = [x, x[:, ::-1], x[::-1, ::-1], x[::-1], x.swapaxes(0, 1), np.rot90(x)]
    stored += [np.rot90(x, 2).swapaxes(0, 1), np.rot90(x, -1)]
    for turn, pixels in enumerate(stored, 1):
        tags = [(274, "H", 1, turn, True)]
        data = written(np.ascontiguousarray(pixels), photometric="rgb", extratags=tags)
        found = decode.read(data)
        np.testing.assert_array_equal(found.image_HWC, upright)
        assert found.flags == (("16bit", "rotated") if turn > 1 else ("16bit",))
        as_stored = decode.read(data, Reading(orientation="ignore")).image_HWC
        np.testing.assert_array_equal(as_stored, np.rint(pixels / 257))


def test_several_deep_pictures_say_so():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for seed in range(2):
            file.write(picture(H, W, 3, seed, np.uint16), photometric="rgb", metadata=None)
    assert decode.read(stream.getvalue()).flags == ("multiframe", "16bit")
    with pytest.raises(ImageError, match="E_MULTIFRAME"):
        decode.read(stream.getvalue(), Reading(strict=True))


def test_damaged_deep_tiff_is_read_or_refused():
    g = np.random.default_rng(0)
    x = picture(16, 24, 3, dtype=np.uint16)
    whole = [
        written(x, "zlib", photometric="rgb", planarconfig="separate"),
        written(x / np.float32(65535), photometric="rgb", tile=(16, 16)),
        packed(x[..., 0] >> 4, 12),
    ]
    with pytest.raises(ImageError, match="E_TRUNCATED"):
        decode.read(whole[2][:-40])
    codes = set()
    for number in range(450):
        data = bytearray(whole[number % 3])
        for place in g.integers(0, len(data) if number % 2 else 200, g.integers(1, 9)):
            data[place] = g.integers(256)
        try:
            decode.read(bytes(data), Reading(max_pixels=10**6))
        except ImageError as error:
            codes.add(error.code)
    assert codes >= {"E_DECODE", "E_UNSUPPORTED"}
