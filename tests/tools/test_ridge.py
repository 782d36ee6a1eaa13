import json

import numpy as np

from diffv2iqa_jax import convert, report
from diffv2iqa_jax.tools import ridge
from tests import runs, theirs


def test_a_linear_law_is_found_and_the_penalty_is_not_chosen_on_the_test():
    g = np.random.default_rng(0)
    x = g.standard_normal((200, 30)) * g.uniform(0.1, 9, 30) + 3
    y = x[:, :5].sum(1)
    model = ridge.fit(x, y, 1e-6)
    np.testing.assert_allclose(model(x), y, atol=1e-4)
    assert ridge.choose(x, y) == min(ridge.PENALTIES)
    noise = g.standard_normal(200)
    assert ridge.choose(x, noise) >= 10 * min(ridge.PENALTIES)
    np.testing.assert_allclose(ridge.fit(x, noise, 1e12)(x), noise.mean(), atol=1e-6)


def test_a_run_is_written_that_the_tables_take(data, tmp_path, capsys):
    theirs_file, file = tmp_path / "theirs.npz", str(tmp_path / "vit.safetensors")
    np.savez(theirs_file, **theirs.random(theirs.vit()))
    hints = {"normalise": "imagenet", "heads": 4, "image_size": 16}
    convert.convert("vit_timm", str(theirs_file), file, **hints)
    features = ridge.pooled(file)(np.zeros((3, 16, 16, 3), np.uint8))
    assert features.shape == (3, 2 * 2 * 128) and np.isfinite(features).all()

    config = runs.maniqa_run(data, **{"data.pp_test": "grid(16)"})
    results = ridge.run(config, str(tmp_path / "run"), [file])
    assert results["images"] == 16 and results["protocol"]["pp_test"] == "grid(16)"
    assert json.loads((tmp_path / "run" / "results.json").read_text())["ridge"]["features"] == 512
    assert report.main([f"ridge={tmp_path / 'run'}", "--tables", "-o", str(tmp_path)]) == 0
    assert "ridge" in (tmp_path / "tables.md").read_text()
    capsys.readouterr()
    for arguments, message in (
        ([], "no features: give --vit"),
        (["--vit", str(theirs_file)], "theirs.npz"),
        (["--vit", file, "--config", "none.py"], "none.py"),
    ):
        name = ["--name", "builtin/tiny", "--folder", str(data)]
        assert ridge.main([str(tmp_path / "other"), *name, *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "other").exists()
