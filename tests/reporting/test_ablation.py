import copy
import json

from diffv2iqa_jax import report

BASE = {
    "task": "quality",
    "seed": 0,
    "loss": "mse",
    "model": {"w2": 1.0, "branches": {"guidance": {"width": 8}, "difference": {"tab": {"n": 1}}}},
}


def write(folder, srcc, changes=(), protocol=None):
    config = copy.deepcopy(BASE)
    for key, value in dict(changes).items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        if value is None:
            del node[last]
        else:
            node[last] = value
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    scores = {"score": {"srcc": srcc, "plcc_fit": 0.5, "rmse_fit": 0.1}}
    results = {"task": "quality", "images": 9, "scores": scores}
    results["protocol"] = {"name": "set", "split_sha256": "a", "pp_test": "grid(8)"}
    results["protocol"] |= protocol or {}
    (folder / "results.json").write_text(json.dumps(results))
    return str(folder)


def printed(capsys, *runs):
    status = report.main(["--ablation", *runs])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def test_each_row_says_what_it_changes_and_what_that_does(tmp_path, capsys):
    runs = [
        write(tmp_path / "base", 0.8),
        write(tmp_path / "base2", 0.7, {"seed": 1}),
        write(tmp_path / "w2", 0.85, {"model.w2": 5.0, "loss": "l1"}),
        write(tmp_path / "none" / "quality", 0.6, {"model.branches.difference": None}),
    ]
    runs[3] = str(tmp_path / "none")  # the folder of both stages
    status, lines, _ = printed(capsys, *runs)
    assert status == 0 and len(lines) == 2 + 3
    assert lines[0].startswith("| change | runs | SRCC | Δ | PLCC, fitted |")
    assert lines[2].startswith("| (base) | 2 | 0.750 ± 0.071 |  |")
    assert lines[3].startswith('| `loss` = "l1", `model.w2` = 5.0 | 1 | 0.850 | +0.100 |')
    assert lines[4].startswith("| `model.branches.difference` left out | 1 | 0.600 | −0.150 |")


def test_runs_that_do_not_compare_are_refused(tmp_path, capsys):
    base = write(tmp_path / "base", 0.8)
    other = write(tmp_path / "other", 0.8, protocol={"split_sha256": "b"})
    status, lines, err = printed(capsys, base, other)
    assert status == 2 and not lines and "other: not tested as" in err and err.count("\n") == 1
    (tmp_path / "base" / "results.json").unlink()
    assert "is no evaluated quality run" in printed(capsys, base)[2]
    assert "is not a folder" in printed(capsys, str(tmp_path / "lost"))[2]
