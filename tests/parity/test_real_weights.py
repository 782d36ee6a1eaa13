"""Converted real weights still see what they were trained to see."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data

from diffv2iqa_jax import convert
from diffv2iqa_jax.weights import files, published
from tests.parity import nets

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"
VIT = SHARED / "weights" / "deit_tiny_patch16_224.npz"
RESNET = SHARED / "weights" / "resnet50_imagenet1k_v1_stem_layer1_layer2.npz"
KODAK = SHARED / "pristine" / "kodak"
CID22 = SHARED / "pristine" / "cid22"


def needs(*paths):
    return pytest.mark.skipif(
        not all(p.exists() for p in paths),
        reason="the real weights and photos in ../shared are absent",
    )


# ImageNet's classes, by index.
CATS = {281, 282, 283, 284, 285}  # tabby, tiger cat, Persian, Siamese, Egyptian
ESPRESSO, TRIPOD, MACAW, BEACON = 967, 872, 88, 437  # a lighthouse is a "beacon"
TWO_WHEELS = {665, 670}  # moped, motor scooter


def crop(image: Image.Image, card: dict, size: int) -> np.ndarray:
    """The shorter side to 8/7 of `size`, then its centre: (1, size, size, 3), normalised."""
    share = size * 8 / 7 / min(image.size)
    image = image.convert("RGB").resize([round(n * share) for n in image.size], Image.BICUBIC)
    left, top = ((n - size) // 2 for n in image.size)
    pixels = np.asarray(image.crop((left, top, left + size, top + size))) / 255
    mean, std = (np.array(card["normalise"][key]) for key in ("mean", "std"))
    return ((pixels - mean) / std)[None].astype(np.float32)


@needs(VIT, KODAK)
@pytest.mark.parametrize("image_size, patch", [(224, 16), (288, 16), (448, 32)])
def test_a_vit_names_what_photos_show(image_size, patch, tmp_path):
    path = str(tmp_path / "vit.safetensors")
    hints = {"normalise": "imagenet", "image_size": image_size, "patch": patch}
    convert.convert("vit_timm", str(VIT), path, **hints)
    weights, card = files.load(path)
    apply = jax.jit(published.module(card).apply)

    def best(image) -> int:
        _, logits, _ = apply(nets.variables(weights), crop(image, card, image_size))
        return int(logits.argmax())

    def photo(name):
        return Image.open(KODAK / f"{name}.webp")

    assert best(Image.fromarray(data.chelsea())) in CATS
    assert best(Image.fromarray(data.coffee())) == ESPRESSO
    assert best(Image.fromarray(data.camera())) == TRIPOD
    assert best(Image.fromarray(data.stereo_motorcycle()[0])) in TWO_WHEELS
    assert best(photo("kodim23")) == MACAW
    assert best(photo("kodim21")) == BEACON


@needs(RESNET, KODAK, CID22)
def test_resnet50_sees_activations_as_its_batchnorms_remember_them():
    """Of each norm: the input's mean and variance per channel over photos, against the stored.

    Measure: median over channels of |mean - stored| / stored deviation, median of the ratio of
    variances, and the correlation of both means over the channels. With pixels in [-1, 1] in
    place of ImageNet's normalisation, the ratio falls to 0.25.
    """

    def whole(name):
        return not name.startswith(("layer3", "layer4", "fc"))

    tensors = {k: v for k, v in convert.read(str(RESNET)).items() if whole(k)}
    weights, card, _ = published.convert("resnet50", tensors)
    assert card["settings"]["blocks"] == (3, 4)
    paths = [*sorted(KODAK.glob("*.webp")), *sorted(CID22.glob("*.webp"))[:12]]
    photos = np.concatenate([crop(Image.open(p), card, 224) for p in paths])
    _, taps = nets.apply(published.module(card), weights, photos)
    stats = files.flatten(weights)
    norms = [k[6:-11] for k in stats if k.startswith("stats/") and k.endswith("/batch/mean")]
    assert len(norms) == 1 + 3 * 7 + 2
    for name in norms:
        mean, var = (stats[f"stats/{name}/batch/{key}"] for key in ("mean", "var"))
        convolution = name.replace("bn", "conv").replace("downsample_1", "downsample_0")
        x = np.asarray(taps[convolution][0])
        got_mean, got_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        assert np.median(abs(got_mean - mean) / np.sqrt(var)) < 0.2, name
        assert 0.75 < np.median(got_var / var) < 1.5, name
        if name != "bn1":  # the stem's means are all near zero
            assert np.corrcoef(got_mean, mean)[0, 1] > 0.9, name
