import json
import re

import jax
import jax.numpy as jnp
import pytest

from diffv2iqa_jax import bench
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.models.resnet import ResNet
from diffv2iqa_jax.tools import bench_score

NETS = ("unet_forward", "views", "vit", "resnet", "tab", "score")
QUICK = ["--small", "--repeat", "5", "--steps", "4", "--batch", "2"]


def test_every_row_is_timed_and_counted(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench.main([*NETS, *QUICK, "--json", str(file)]) == 0
    out = json.loads(file.read_text())
    rows = out["rows"]
    assert out["device"] == jax.devices()[0].device_kind and out["jax"] == jax.__version__
    assert out["options"]["batch"] == 2
    tabs = {"tab/plain", "tab/blocks", "tab/plain_gradient", "tab/blocks_gradient"}
    assert set(rows) == {*NETS, *tabs} - {"tab"}
    for row in rows.values():
        assert all(row[name] > 0 for name in ("ms", "gflop", "gflop_per_s", "parameters"))
        assert row["aa_percent"] >= 0 and row["temp_mib"] >= 0
    # A scan is counted by its steps, blocks as what they replace.
    assert rows["views"]["gflop"] == pytest.approx(4 * rows["unet_forward"]["gflop"])
    assert rows["score"]["gflop"] > rows["views"]["gflop"]
    assert rows["tab/blocks"]["gflop"] == rows["tab/plain"]["gflop"]
    image = jnp.zeros((1, 16, 16, 3))
    net = jax.eval_shape(ResNet(blocks=(1,), width=8).init, jax.random.key(0), image)
    assert rows["resnet"]["parameters"] == sum(x.size for x in jax.tree.leaves(net["params"]))
    assert "over" in rows["views"] and "over" in rows["tab/blocks_gradient"]
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in rows)


def test_a_training_step_counts_more_than_two_forwards():
    options = [*QUICK, "--size", "8"]
    o = bench.parse(["unet_forward", "unet_train", *options])
    rows = bench.run(o)
    assert rows["unet_train"]["gflop"] > 2 * rows["unet_forward"]["gflop"]
    assert rows["unet_train"]["parameters"] == rows["unet_forward"]["parameters"]


def test_the_data_set_is_read_in_batches():
    pytest.importorskip("tensorflow")
    rows = bench.run(bench.parse(["data", *QUICK]))
    assert rows["data"]["images_per_s"] > 0
    reading = bench.run(bench.parse(["reading", *QUICK]))["reading"]
    assert reading["images_per_s"] > 0 and reading["prepared_per_s"] > 0 and reading["cores"] > 0


def test_distortions_are_timed_beside_the_hosts_and_photos_by_the_core(monkeypatch):
    pytest.importorskip("tensorflow")

    def negative(key, x, level):  # all types compile for long
        return 1.0 - x

    monkeypatch.setattr(kadid, "FUNCTIONS", dict.fromkeys(kadid.TYPES, negative))
    rows = bench.run(bench.parse(["distort", "photos", *QUICK]))
    assert rows["distort"]["host_ms"] > 0 and rows["distort"]["temp_mib"] > 0
    assert rows["distort"]["faster"].endswith("times than Pillow and SciPy")
    assert rows["photos"]["crops_per_core_s"] > 0 and "% of a step" in rows["photos"]["input_wait"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unet"], r"\['unet'\]: known are \['unet_forward', .*'reading'\]"),
        (["unet_forward", "--size", "20"], "sides must divide by 16"),
        (["vit", "--size", "30"], "patch 8: does not divide image_size 30"),
        (["score", "--size", "208"], "window 4: does not divide the 26 x 26"),
        (["views", "--steps", "2"], r"keep \(1, 2\)"),
        (["views", "--inner", "48"], r"groups 32: does not divide the width\(s\) \[48\]"),
        (["vit", "--repeat", "4"], "--repeat 4: must be at least 5"),
        (["vit", "--batch", "0"], "--batch 0: must be at least 1"),
        (["vit", "--json", "no/such/folder.json"], "no/such is no folder; make it first"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_compiled(arguments, message, capsys):
    assert bench.main(arguments) == 2
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1
    assert re.search(message, error)


def test_scoring_is_timed_as_a_user_meets_it(packed, apart, monkeypatch, tmp_path, capsys):
    for name, value in apart.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bench_score, "SIDES", (96, 128))
    monkeypatch.setattr(bench_score, "LARGE", (150, 200))
    file = tmp_path / "rows.json"
    assert bench_score.main([str(packed), "--repeat", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert rows.keys() == bench_score.ROWS.keys()
    assert rows["warm"]["crops"] == 6 * 8 and rows["large"]["crops"] == 10 * 13
    assert 0 < rows["warm"]["s"] < rows["first"]["s"] and rows["large"]["peak_gib"] > 0
    assert rows["folder"]["images_per_s"] > 0
    assert bench_score.main([str(tmp_path / "none"), "folder"]) == 2
    assert "no such file" in capsys.readouterr().err
