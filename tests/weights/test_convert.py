import pickle
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from diffv2iqa_jax import convert
from diffv2iqa_jax.weights import files
from tests import theirs

TENSORS = theirs.random(theirs.vit())


@pytest.fixture
def vit_file(tmp_path):
    np.savez(tmp_path / "vit.npz", **TENSORS)
    return tmp_path / "vit.npz"


def test_a_checkpoint_is_converted_and_every_tensor_reported(vit_file, tmp_path, capsys):
    dest = tmp_path / "ours.safetensors"
    options = ["--normalise", "imagenet", "--heads", "4", "--image_size", "16"]
    assert convert.main(["vit_timm", str(vit_file), str(dest), *options]) == 0
    weights, card = files.load(dest)
    assert card["settings"]["heads"] == 4 and card["settings"]["image_size"] == 16
    assert card["normalise"]["mean"] == [0.485, 0.456, 0.406]
    assert card["source"]["file"] == "vit.npz" and len(card["source"]["sha256"]) == 64
    kernel = weights.params["blocks_1"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel, TENSORS["blocks.1.mlp.fc1.weight"].T)
    lines = capsys.readouterr().out.splitlines()
    assert "blocks.1.mlp.fc1.weight (16, 128) -> params/blocks_1/fc1/kernel" in lines
    assert len(lines) == len(TENSORS) + 1
    assert lines[-1].endswith(f"{len(TENSORS)} tensors, 0 dropped")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, jnp.bfloat16])
def test_safetensors_of_any_float_become_float32(dtype, tmp_path):
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file({k: x.astype(dtype) for k, x in TENSORS.items()}, path)
    convert.convert("vit_timm", str(path), str(tmp_path / "ours.safetensors"))
    weights, _ = files.load(tmp_path / "ours.safetensors")
    assert weights.params["norm"]["bias"].dtype == np.float32
    want = TENSORS["norm.bias"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(weights.params["norm"]["bias"], want)


def no_tensors(path):
    np.savez(path)


def pickled(path):
    path.write_bytes(pickle.dumps(TENSORS))


def objects(path):
    np.savez(path, **{k: x.astype(object) for k, x in TENSORS.items()})


def text(path):
    path.write_text("weights")


def cut(path):
    np.savez(path, **TENSORS)
    path.write_bytes(path.read_bytes()[:5000])


def missing(path):
    np.savez(path, **{k: x for k, x in TENSORS.items() if k != "norm.bias"})


def extra(path):
    np.savez(path, **TENSORS, dist_token=np.zeros(3))


def absent(path):
    pass


@pytest.mark.parametrize(
    "make, words",
    [
        (no_tensors, "not a .npz of arrays"),
        (pickled, "cannot be read as .npz"),
        (objects, "cannot be read as .npz"),
        (text, "cannot be read as .npz"),
        (cut, "cannot be read as .npz"),
        (missing, "1 missing: params/norm/bias"),
        (extra, "1 unknown: dist_token"),
        (absent, "no such file"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_bad_file_ends_in_one_line_and_leaves_nothing(make, words, tmp_path, capsys):
    source, dest = tmp_path / "in" / "vit.npz", tmp_path / "out" / "ours.safetensors"
    source.parent.mkdir()
    dest.parent.mkdir()
    make(source)
    assert convert.main(["vit_timm", str(source), str(dest)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("convert: ") and error.count("\n") == 1 and words in error
    assert not list(dest.parent.iterdir())


@pytest.mark.parametrize(
    "source, dest, words",
    [
        ("vit.h5", "ours.safetensors", "unknown type; known are .safetensors, .npz, .pth"),
        ("vit.npz", "ours.npz", "named .safetensors"),
        ("vit.npz", "nowhere/ours.safetensors", "nowhere is no folder; make it first"),
    ],
)
def test_bad_names_are_refused(source, dest, words, tmp_path, capsys, vit_file):
    assert convert.main(["vit_timm", str(tmp_path / source), str(tmp_path / dest)]) == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["vit.npz"]


def test_a_pytorch_file_without_pytorch_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "vit.pth").write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"pip install 'diffv2iqa_jax\[torch\]'"):
        convert.read(str(tmp_path / "vit.pth"))


def test_a_pytorch_file_is_read_by_the_loader_of_plain_tensors(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = {k: torch.from_numpy(x) for k, x in TENSORS.items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "vit.pth")
    for name, x in convert.read(str(tmp_path / "vit.pth")).items():
        np.testing.assert_array_equal(x, TENSORS[name])
    torch.save({"model": object()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="not a file of plain tensors"):
        convert.read(str(tmp_path / "code.pth"))


def test_a_resnet_can_be_cut_after_a_stage(tmp_path, monkeypatch):
    names = ["conv1.weight", "layer1.0.conv1.weight", "layer3.0.conv1.weight", "fc.bias"]
    np.savez(tmp_path / "r.npz", **{name: np.ones(1, np.float32) for name in names})
    seen = []
    monkeypatch.setattr(convert.published, "convert", lambda k, t: (seen.append(set(t)), {}, []))
    monkeypatch.setattr(convert.files, "save", lambda *args: None)
    source, dest = str(tmp_path / "r.npz"), str(tmp_path / "r.safetensors")
    report = convert.convert("resnet50", source, dest, stages=2)
    assert seen == [{"conv1.weight", "layer1.0.conv1.weight"}]
    assert report == [("layer3.0.conv1.weight", (1,), "dropped"), ("fc.bias", (1,), "dropped")]
    with pytest.raises(ValueError, match="only for resnet50"):
        convert.convert("vit_timm", source, dest, stages=2)
