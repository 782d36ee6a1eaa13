import csv
import json

from diffv2iqa_jax import report


def write(folder, gain, names, task="restoration"):
    """A run whose images have a PSNR of 20 + level, raised by `gain`."""
    folder.mkdir()
    results = {"task": task, "images": len(names), "scores": {}, "per_type": {}}
    results |= {"psnr_image": 20.0, "psnr_restored": 20.0 + gain}
    (folder / "results.json").write_text(json.dumps(results))
    with open(folder / "predictions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            "id name group type level psnr_image psnr_restored ssim_image ssim_restored".split()
        )
        for id, (kind, level) in enumerate(names):
            before = 20.0 + level
            rows.writerow(
                [id, f"{kind} {level}", "a", kind, level, before, before + gain, 0.5, 0.75]
            )
    return str(folder)


NAMES = [("jpeg", 1), ("jpeg", 5), ("none", 0), ("blur", 1)]


def test_one_row_for_each_type_and_one_column_for_each_level(tmp_path, capsys):
    one = write(tmp_path / "one", 1.0, NAMES)
    assert report.main(["--restored", one]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 images; y_0 against x_dis, means"
    assert lines[2] == "| PSNR, dB | level 1 | level 5 | all |"
    assert lines[4:7] == [
        "| blur | 21.0 → 22.0 |  | 21.0 → 22.0 |",
        "| jpeg | 21.0 → 22.0 | 25.0 → 26.0 | 23.0 → 24.0 |",
        "| none |  |  | 20.0 → 21.0 |",
    ]
    assert lines[-2] == "| none | 20.00 | 21.00 | 0.500 | 0.750 |"
    assert lines[-1] == "| all | 21.75 | 22.75 | 0.500 | 0.750 |"


def test_runs_are_compared_on_the_images_they_share(tmp_path, capsys):
    runs = [write(tmp_path / "a", 1.0, NAMES[::-1]), write(tmp_path / "b", 3.0, NAMES[:2])]
    assert report.main(["--restored", *runs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 images") and lines[-1].startswith(
        "| all | 23.00 | 24.00 | 26.00 |"
    )
    other = write(tmp_path / "c", 1.0, [("noise", 2)])
    assert report.main(["--restored", runs[1], other]) == 2
    assert "no image in common" in capsys.readouterr().err


def test_a_run_of_another_task_is_refused_in_a_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"task": "quality"}')
    assert report.main(["--restored", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is no evaluated restoration run" in error and error.count("\n") == 1
