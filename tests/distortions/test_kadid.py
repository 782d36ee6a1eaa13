"""The 25 types: identity, order, chance, independence, gradients, and what they are equal to."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal
from skimage import color
from skimage import data as photos

from diffv2iqa_jax import pixels, rng
from diffv2iqa_jax.distortions import codecs, host_reference, kadid, names, spatial
from diffv2iqa_jax.distortions import colour as colours
from diffv2iqa_jax.evaluation import full_reference

KODAK = sorted((pathlib.Path(__file__).parents[3] / "shared/data/pristine/kodak").glob("*.webp"))
TYPES = kadid.TYPES
SIDE = 64
PHOTOS = np.stack(
    [
        photos.chelsea()[90:154, 130:194],
        photos.astronaut()[20:84, 180:244],
        photos.coffee()[150:214, 200:264],
    ]
)
CHANCE = {"motion_blur", "colour_shift", "mean_shift", "contrast", "jitter", "patches"}
CHANCE |= {"white_noise", "colour_noise", "impulse_noise", "multiplicative_noise", "denoise"}
CHANCE |= {"colour_blocks"}

ROWS = 30  # of every batch here: all types compile together, once
of = jax.jit(kadid.distort, static_argnames="group")


def made(images, types, levels, seed=0) -> np.ndarray:
    """uint8 images distorted; one key for all, so that all levels meet the same chance."""
    count, out = len(images), []
    images, types, levels = (
        np.asarray(x)[np.arange(-(-count // ROWS) * ROWS) % count] for x in (images, types, levels)
    )
    key_B = jnp.repeat(rng.stream(seed, "x")[None], ROWS)
    for at in range(0, len(images), ROWS):
        part = slice(at, at + ROWS)
        x = pixels.to_float(jnp.asarray(images[part]))
        y = of(key_B, x, types[part].astype(np.int32), levels[part].astype(np.int32))
        out.append(pixels.to_uint8(y))
    return np.concatenate(out)[:count]


def only(monkeypatch, *names: str) -> None:
    """Leaves these types alone real: what is tested is not the others, which compile for long."""

    def plain(key, x, level):
        return 1.0 - x

    functions = {k: f if k in names else plain for k, f in kadid.FUNCTIONS.items()}
    monkeypatch.setattr(kadid, "FUNCTIONS", functions)


def test_names_stand_in_the_order_of_their_functions():
    assert tuple(kadid.FUNCTIONS) == names.TYPES
    assert set(names.TASTE) < set(names.TYPES)
    assert len(set(names.PAIRS)) == len(names.PAIRS) == 126


@pytest.fixture(scope="module")
def table():
    """All levels of all types of the photos: (types, levels 0..5, photos, H, W, 3)."""
    shape = (len(TYPES), 6, len(PHOTOS))
    type, level, photo = (x.reshape(-1) for x in np.indices(shape))
    return made(PHOTOS[photo], type, level).reshape(*shape, SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def reseeded():
    """Level 5 of all types for three other keys: (keys, types, photos, H, W, 3)."""
    type, photo = (x.reshape(-1) for x in np.indices((len(TYPES), len(PHOTOS))))
    out = [made(PHOTOS[photo], type, np.full(len(type), 5), seed) for seed in (1, 2, 3)]
    return np.stack(out).reshape(3, len(TYPES), len(PHOTOS), SIDE, SIDE, 3)


@pytest.mark.parametrize("type", range(len(TYPES)), ids=TYPES.__getitem__)
def test_level_0_is_the_identity_and_psnr_falls_with_every_level(table, type):
    np.testing.assert_array_equal(table[type, 0], PHOTOS)
    psnr = [
        np.mean([full_reference.psnr(*p) for p in zip(PHOTOS, x, strict=True)]) for x in table[type]
    ]
    assert (np.diff(psnr) < 0).all(), psnr
    assert psnr[5] < 34 and psnr[1] > 17, psnr


@pytest.mark.skipif(not KODAK, reason="the Kodak photos in ../shared are absent")
def test_psnr_falls_with_every_level_on_the_kodak_photos():
    images = [np.asarray(Image.open(p).convert("RGB"))[200:264, 300:364] for p in KODAK]
    type, level, photo = np.indices((len(TYPES), 5, len(images)))

    def flat(x):
        return x.reshape(-1)

    got = made(np.stack(images)[flat(photo)], flat(type), flat(level) + 1)
    psnr = [full_reference.psnr(images[i], y) for i, y in zip(flat(photo), got, strict=True)]
    mean = np.minimum(psnr, 60).reshape(type.shape).mean(axis=2)
    wrong = {TYPES[t]: row for t, row in enumerate(mean) if not (np.diff(row) < 0).all()}
    assert not wrong


@pytest.mark.parametrize("type", range(len(TYPES)), ids=TYPES.__getitem__)
def test_the_key_decides_where_there_is_chance_and_only_there(table, reseeded, type):
    differs = [not np.array_equal(x, table[type, 5]) for x in reseeded[:, type]]
    assert any(differs) == (TYPES[type] in CHANCE)


@pytest.mark.parametrize("group", [1, 3])
def test_an_image_does_not_depend_on_its_batch_mates(group):
    """Nor on how many of a type are treated at once."""
    g = np.random.default_rng(0)
    type, level = g.integers(0, len(TYPES), ROWS), g.integers(0, 6, ROWS)
    type[:12] = 9  # a type that fills several groups
    key_B = rng.per_image(rng.stream(0, "x"), jnp.arange(ROWS))
    x = pixels.to_float(jnp.asarray(PHOTOS[g.integers(0, 3, ROWS)]))
    whole = np.asarray(of(key_B, x, type, level, group=group))
    order = g.permutation(ROWS)
    turned = of(key_B[order], x[order], type[order], level[order], group=group)
    np.testing.assert_array_equal(turned, whole[order])
    alone = of(key_B, x, type, level, group=1)
    assert np.mean(np.abs(np.asarray(alone) - whole)) < 1e-4  # rounding may tip a quantiser


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_groups_hold_each_image_once_and_one_type_each(size):
    for seed in range(4):
        type = np.random.default_rng(seed).integers(0, 26, 37)
        member, of_group, place = (np.asarray(x) for x in kadid._groups(jnp.asarray(type), size))
        np.testing.assert_array_equal(member.reshape(-1)[place], np.arange(37))
        assert len(set(place.tolist())) == 37
        np.testing.assert_array_equal(of_group[place // size], type)
        assert len(member) <= min(37, 37 / size + 26)


def test_one_program_serves_all_types(table):
    before = of._cache_size()
    made(PHOTOS, [1, 8, 24], [5, 0, 2], seed=9)
    made(PHOTOS, [17, 3, 3], [1, 2, 3])
    assert of._cache_size() == before


def test_memory_grows_with_the_batch(monkeypatch):
    only(monkeypatch, "gaussian_blur", "jpeg2000")
    used, key = [], rng.stream(0, "x")
    for count in (32, 64, 128):
        shapes = (jax.ShapeDtypeStruct((count, 64, 64, 3), jnp.float32), np.zeros(count, np.int32))
        lowered = jax.jit(lambda *args: kadid.distort(*args)).lower(key, *shapes, shapes[1])
        used.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    assert used[2] - used[1] == pytest.approx(2 * (used[1] - used[0]), rel=0.1)


def test_gradients_are_finite():
    count = len(TYPES)
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (count, 16, 16, 3)), jnp.float32)
    x = x.at[:, :4, :4].set(-1.0).at[:, :4, 4:8].set(1.0).at[:, 4:8, :4].set(0.0)
    key, type = rng.stream(0, "x"), np.arange(count)

    def total(x, level):
        return jnp.sum(kadid.distort(key, x, type, level))

    slope = jax.jit(jax.grad(total))
    for level in (1, 5):
        assert jnp.isfinite(slope(x, np.full(count, level))).all()


def test_noise_has_its_moments():
    grey = pixels.to_float(jnp.full((ROWS, SIDE, SIDE, 3), 128, jnp.uint8))
    key_B = rng.per_image(rng.stream(0, "x"), jnp.arange(ROWS))

    def at(name, level):
        type_B = np.full(ROWS, TYPES.index(name))
        return np.asarray(of(key_B, grey, type_B, np.full(ROWS, level))) / 2 + 0.5 - 128 / 255

    assert at("white_noise", 4).std() == pytest.approx(0.005**0.5, rel=0.02)
    assert abs(at("white_noise", 4).mean()) < 0.002
    speckle = at("multiplicative_noise", 3)
    assert speckle.std() == pytest.approx(128 / 255 * 0.01**0.5, rel=0.02)
    colour = at("colour_noise", 2)
    assert colour.std(axis=(0, 1, 2)) == pytest.approx(
        0.001**0.5 * np.array([1.402, 0.792, 1.772]), rel=0.04
    )
    assert abs(colour @ [0.299, 0.587, 0.114]).max() < 0.01  # luminance stays
    impulse = np.abs(at("impulse_noise", 5)) > 0.4
    assert impulse.mean() == pytest.approx(0.03, rel=0.1)
    normal = np.asarray(spatial._normal(jax.random.key(0), (200_001,)))
    assert (
        abs(np.mean(normal**4) - 3) < 0.1 and abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 0.01
    )


@pytest.mark.parametrize("type", sorted(set(TYPES) - CHANCE - {"colour_quantisation", "jpeg2000"}))
def test_types_without_chance_are_what_the_host_makes(table, type):
    for level in range(1, 6):
        want = host_reference.distort(PHOTOS[0], type, level, seed=0).astype(int)
        got = table[TYPES.index(type), level, 0].astype(int)
        far = np.abs(got - want) > 1
        assert far.mean() < (0.08 if type in ("pixelate", "quantise", "jpeg") else 0.01), level


# Not "denoise": SciPy's filter takes what lies outside the picture for black.
@pytest.mark.parametrize("type", [t for t in TYPES if "_noise" in t or t == "jitter"])
def test_noise_is_as_strong_as_the_hosts(table, type):
    want = full_reference.psnr(PHOTOS[1], host_reference.distort(PHOTOS[1], type, 5, seed=0))
    assert full_reference.psnr(PHOTOS[1], table[TYPES.index(type), 5, 1]) == pytest.approx(
        want, abs=0.5
    )


X = PHOTOS[0] / 255.0
XF = jnp.asarray(X, jnp.float32)


def blurred(x, sigma):
    return codecs.joined(spatial.gaussian(codecs.planes(x), sigma, 48))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 5.0, 12.0])
def test_gaussian_blur_is_scipys(sigma):
    want = ndimage.gaussian_filter(X, (sigma, sigma, 0), mode="reflect")
    np.testing.assert_allclose(blurred(XF, sigma), want, atol=1e-4)
    small = X[:17, :40]  # the filter reaches across the picture several times
    want = ndimage.gaussian_filter(small, (sigma, sigma, 0), mode="reflect")
    np.testing.assert_allclose(blurred(XF[:17, :40], sigma), want, atol=1e-4)


@pytest.mark.parametrize("kernel", [spatial.disc(6, 8), spatial.path(13, 0.7, 10)])
def test_other_blurs_are_scipys_convolution(kernel):
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    want = ndimage.convolve(X, np.asarray(kernel)[..., None], mode="reflect")
    np.testing.assert_allclose(spatial.convolved(XF, kernel), want, atol=1e-4)


def test_a_path_is_as_long_and_as_steep_as_it_says():
    kernel = np.asarray(spatial.path(9, 0.0, 10))
    np.testing.assert_allclose(kernel[10, 6:15], 1 / 9, atol=0.05)
    assert kernel[10].sum() == pytest.approx(1, abs=1e-5)
    y, x = np.mgrid[-10:11, -10:11]
    tilted = np.asarray(spatial.path(21, 1.0, 10))
    assert (tilted * x * y).sum() / (tilted * x * x).sum() == pytest.approx(np.tan(1), rel=0.02)


def test_resampling_sharpening_and_denoising_are_the_libraries():
    offset = np.random.default_rng(0).normal(0, 1.5, (2, SIDE, SIDE)).astype(np.float32)
    at = np.mgrid[:SIDE, :SIDE] + offset
    want = [ndimage.map_coordinates(X[..., c], at, order=1, mode="nearest") for c in range(3)]
    np.testing.assert_allclose(spatial.warped(XF, offset), np.stack(want, -1), atol=1e-4)
    side, small = 61, round(61 * (0.95 - 0.1**0.6))  # odd: no middle of a pixel lies on a border
    want = Image.fromarray(PHOTOS[0][:side, :side]).resize((small, small), Image.Resampling.NEAREST)
    want = np.asarray(want.resize((side, side), Image.Resampling.NEAREST)) / 255
    np.testing.assert_allclose(spatial.pixelate(None, XF[:side, :side], 3), want, atol=1e-6)
    want = 4 * X - 3 * ndimage.gaussian_filter(X, (1, 1, 0), mode="reflect")
    got = np.clip(spatial.sharpen(None, XF, 3), 0, 1)
    np.testing.assert_allclose(got, np.clip(want, 0, 1), atol=1e-4)
    want = np.stack([signal.wiener(X[..., c], 5, 0.003) for c in range(3)], axis=-1)
    got = spatial.wiener(XF, 0.003)
    np.testing.assert_allclose(got[3:-3, 3:-3], want[3:-3, 3:-3], atol=1e-4)


def test_colours_are_scikit_images():
    lab = color.rgb2lab(X)
    np.testing.assert_allclose(codecs.joined(colours.to_lab(XF)), lab, atol=2e-3)
    np.testing.assert_allclose(colours.from_lab(colours.to_lab(XF)), X, atol=1e-4)
    lab[..., 1:] *= 2
    want = np.clip(color.lab2rgb(lab), 0, 1)
    np.testing.assert_allclose(colours.saturation_lab(None, XF, 2), want, atol=1e-3)
    hsv = color.rgb2hsv(X)
    hsv[..., 1] *= 0.2
    got = colours.saturation_hsv(None, XF, 2)
    np.testing.assert_allclose(got, color.hsv2rgb(hsv), atol=1e-4)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_colour_quantisation_uses_few_colours_well(level):
    got = np.asarray(colours.colour_quantisation(None, XF, level))
    count = 2 ** (7 - level)
    assert len(np.unique(got.reshape(-1, 3).round(5), axis=0)) <= count
    cut = Image.fromarray(PHOTOS[0]).quantize(count, method=Image.Quantize.MEDIANCUT, dither=0)

    def error(y):
        return np.mean((y - X) ** 2)

    assert error(got) < 1.2 * error(np.asarray(cut.convert("RGB")) / 255)


def test_chains_have_two_to_four_links_and_mixtures_the_shares_asked_for(monkeypatch):
    only(monkeypatch, "mean_shift", "contrast", "quantise", "sharpen", "white_noise")
    count = 400
    x = jnp.broadcast_to(pixels.to_float(jnp.asarray(PHOTOS[:1, :16, :16])), (count, 16, 16, 3))
    key = rng.stream(0, "x")
    settings = {"types": ("mean_shift", "contrast", "quantise", "sharpen"), "levels": (1, 5)}
    mixed = jax.jit(lambda: kadid.mixture(key, x, clean=0.25, chains=0.5, **settings))()
    clean = np.all(np.abs(np.asarray(mixed - x)) < 1e-6, axis=(1, 2, 3))
    assert clean.mean() == pytest.approx(0.25, abs=0.07)
    links = []
    monkeypatch.setattr(kadid, "distort", lambda *args, **_: links.append(args) or args[1])
    kadid.chain(key, x)
    with jax.disable_jit():
        links.clear()
        kadid.chain(key, x[:40], levels=(2, 3))
    type_BS, level_BS = (np.stack([link[i] for link in links], axis=1) for i in (2, 3))
    real = level_BS > 0
    assert set(real.sum(axis=1)) == {2, 3, 4} and set(level_BS[real]) == {2, 3}
    assert all(len(set(row)) == 4 for row in type_BS.tolist())


GOOD = {"image_BHWC": np.zeros((2, 16, 16, 3), np.float32), "type_B": [0, 1], "level_B": [0, 1]}
REFUSED = [
    ({"image_BHWC": np.zeros((2, 16, 16), np.float32)}, r"must be \(B, H, W, 3\)"),
    ({"image_BHWC": np.zeros((2, 16, 16, 4), np.float32)}, "drop alpha"),
    ({"image_BHWC": np.zeros((2, 16, 16, 1), np.float32)}, "repeat grey"),
    ({"image_BHWC": np.zeros((2, 16, 16, 3), np.uint8)}, r"must be float in \[-1, 1\]"),
    ({"image_BHWC": np.zeros((2, 15, 40, 3), np.float32)}, "at least 16 pixels"),
    ({"type_B": [0, 25]}, "type 25: known are 0 to 24"),
    ({"level_B": [-1, 1]}, "level -1: known are 0 to 5"),
    ({"level_B": [1]}, "one for each image"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_distorted_is_refused(change, message):
    args = GOOD | change
    with pytest.raises(ValueError, match=message):
        kadid.distort(rng.stream(0, "x"), *(np.asarray(args[k]) for k in GOOD))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": ("blur",)}, r"types \['blur'\]: known are"),
        ({"types": ()}, "known are"),
        ({"clean": 2.0}, "clean 2.0: must be a share"),
        ({"levels": (0, 5)}, r"levels \(0, 5\)"),
        ({"types": ("jpeg",)}, "most 4"),
        ({"group": 0}, "group 0"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(change, message):
    good = {"types": TYPES, "clean": 0.1, "chains": 0.5, "levels": (1, 5)}
    with pytest.raises(ValueError, match=message):
        kadid.check_mixture(**(good | change))


def test_values_out_of_range_are_clipped_and_nan_stays_in_its_image():
    x = np.zeros((ROWS, SIDE, SIDE, 3), np.float32)
    x[:, :8], x[0, 3, 3] = 7.0, np.nan
    type, level = (np.arange(ROWS) - 1) % len(TYPES), np.full(ROWS, 3)
    out = np.asarray(of(rng.stream(0, "x"), x, type, level))
    assert np.isfinite(out[1:]).all() and np.abs(out[1:]).max() <= 1


def test_a_sheet_shows_every_type_and_level(tmp_path, capsys, monkeypatch):
    only(monkeypatch, "jpeg")
    picture, page = tmp_path / "a.png", tmp_path / "sheet.png"
    Image.fromarray(PHOTOS[0]).save(picture)
    assert kadid.main([str(picture), "--sheet", str(page), "--size", "32"]) == 0
    drawn = np.asarray(Image.open(page))
    first = drawn[16:48, :32]
    np.testing.assert_array_equal(first, PHOTOS[0][16:48, 16:48])
    assert drawn.shape == (13 * 52, 2 * 6 * 36 + 12, 3)
    for argv, message in (
        ([str(tmp_path / "none.png")], "no such file"),
        ([str(picture), "--size", "8"], "at least 16 pixels"),
    ):
        assert kadid.main([*argv, "--sheet", str(page)]) == 2
        assert message in capsys.readouterr().err
