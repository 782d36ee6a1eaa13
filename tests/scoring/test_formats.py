"""What a file of scores is written as: what its name says, or it is refused."""

import csv
import gc
import html.parser
import importlib.util
import json
import os
import pathlib
import tempfile
import tracemalloc

import pytest

from diffv2iqa_jax import score
from diffv2iqa_jax.data.sets import labels
from diffv2iqa_jax.errors import UsageError
from diffv2iqa_jax.scoring import formats, output
from diffv2iqa_jax.scoring.result import Score
from tests import disk

MARK = {"weights": "0123", "protocol": '{"pp":"grid(16)"}'}
HERE = [
    name
    for name in formats.FORMATS
    if importlib.util.find_spec(formats.PACKAGES.get(name, "json")) is not None
]
# Names of files that some format could take for more than text; the last is no UTF-8.
NAMES = ["a.png", "=cmd().png", "b,\t\"c'.png", "<b>&.png", "d\ne.png", os.fsdecode(b"\xff.png")]


def rows_of(count: int = len(NAMES)) -> list[dict]:
    scored = [
        Score(NAMES[i % len(NAMES)], score=i / 7, branches={"guidance": -i / 3}, width=20, height=9)
        for i in range(count - 1)
    ]
    failed = Score("x.jpg", status="failed", error="E_DECODE", reason="x.jpg: damaged")
    return [output.row_of(one, MARK) for one in [*scored, failed]]


def write(path, rows, *, resume=False, overwrite=False, safe=False) -> None:
    format = formats.format_of(str(path), None)
    table = output.Table(str(path), format=format, resume=resume, overwrite=overwrite, safe=safe)
    try:
        for row in rows[table.kept :]:
            table.add(row)
        table.finish()
    finally:
        table.leave()


class Cells(html.parser.HTMLParser):
    """The rows of a page's only table, and the addresses that the page fetches."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.fetched, self._in = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        self._in = tag in ("th", "td")
        if tag == "tr":
            self.rows.append([])
        if self._in:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._in = False

    def handle_data(self, data):
        if self._in:
            self.rows[-1][-1] += data


def read(path: pathlib.Path) -> list[dict]:
    """The rows of a file, by a reader that is not ours where there is one."""
    format = formats.ENDINGS[path.suffix.lower()]
    if format == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    if format == "xlsx":
        return labels.below(path, *output.COLUMNS)
    if format == "html":
        head, *cells = Cells(path.read_text()).rows
        return [dict(zip(head, row, strict=True)) for row in cells]
    with open(path, **output.TEXT) as file:
        if format == "json":

            def refuse(name):
                raise AssertionError(f"{name} is no JSON")

            return json.load(file, parse_constant=refuse)
        if format in formats.SEPARATORS:
            return list(csv.DictReader(file, delimiter=formats.SEPARATORS[format]))
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("format", HERE)
def test_a_file_holds_what_its_name_says(tmp_path, format):
    path, rows = tmp_path / f"s.{format.upper()}", rows_of()
    write(path, rows)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    held = read(path)
    assert len(held) == len(rows)
    lossless = format in ("csv", "tsv", "jsonl", "json")
    for row, want in zip(held, rows, strict=True):
        assert row["path"] == (want["path"] if lossless else formats.plain(want["path"]))
        for key in ("score", "score_guidance", "width"):
            number = None if row[key] in (None, "") else float(row[key])
            assert number == pytest.approx(want[key], abs=1e-6)
        assert (row["error"] or None) == want["error"]


def test_a_page_fetches_nothing_and_shows_names_as_text(tmp_path):
    write(tmp_path / "s.html", rows_of())
    text = (tmp_path / "s.html").read_text()
    assert Cells(text).fetched == [] and "<b>&.png" not in text
    assert MARK["weights"] in text


@pytest.mark.parametrize("format", [x for x in HERE if x not in ("jsonl", "json", "parquet")])
def test_no_cell_becomes_a_formula_if_that_is_asked_for(tmp_path, format):
    write(tmp_path / f"s.{format}", rows_of(), safe=True)
    assert [row["path"] for row in read(tmp_path / f"s.{format}")][1] == "'=cmd().png"


@pytest.mark.skipif("xlsx" not in HERE, reason="xlsxwriter is not installed")
def test_a_sheet_holds_no_formula_even_so(tmp_path):
    import zipfile

    write(tmp_path / "s.xlsx", rows_of())
    with zipfile.ZipFile(tmp_path / "s.xlsx") as book:
        assert "<f>" not in book.read("xl/worksheets/sheet1.xml").decode()


@pytest.mark.parametrize("format", [x for x in HERE if x in formats.WRITERS])
def test_a_killed_file_goes_on_and_a_complete_one_is_kept(tmp_path, monkeypatch, format):
    monkeypatch.setattr(output, "CHUNK", 2)
    rows = rows_of()
    write(tmp_path / f"whole.{format}", rows)
    path = tmp_path / f"s.{format}"
    table = output.Table(str(path), format=format, resume=True, overwrite=False, safe=False)
    for row in rows[:5]:
        table.add(row)
    table.leave()
    assert not path.exists()
    write(path, rows, resume=True)
    assert read(path) == read(tmp_path / f"whole.{format}")
    before = path.read_bytes()
    for options, message in (({"resume": True}, "takes no further rows"), ({}, "is there")):
        with pytest.raises(UsageError, match=message):
            write(path, rows, **options)
    assert path.read_bytes() == before
    write(path, rows[:1], overwrite=True)
    assert len(read(path)) == 1


@pytest.mark.parametrize(
    "argv, message",
    [
        (["-o", "s.csv.gz"], "s.csv.gz: .gz is not written; name a file that ends in .csv, "),
        (["-o", "s.txt"], ".txt is not written"),
        (["-o", "s.pdf"], ".pdf is not written"),
        (["-o", "s.json", "--format", "csv"], "the name says json"),
        (["--format", "parquet"], "needs -o FILE"),
        (["-o", "none/s.csv"], "none is no folder"),
        (["-o", "/dev/null"], "is no file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    argv, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(b"")
    done = [
        score.main(["x.png", "--weights", "none", *argv])
    ]  # no such weights: 5, if it came so far
    err = capsys.readouterr().err
    assert done == [score.USAGE] and message in err and err.count("\n") == 1
    assert os.listdir(tmp_path) == ["x.png"]


def test_a_name_without_an_ending_is_csv_and_a_format_names_any_other():
    assert formats.format_of("scores", None) == formats.format_of(None, None) == "csv"
    assert formats.format_of("s.dat", "jsonl") == formats.format_of("s.ndjson", None) == "jsonl"


def test_more_rows_than_a_sheet_holds_are_refused_before_any_work():
    formats.check("csv", 2_000_000)
    formats.MOST_ROWS["csv"] = 3
    try:
        formats.check("csv", 3)
        with pytest.raises(UsageError, match="4 rows: a sheet of csv holds 3"):
            formats.check("csv", 4)
    finally:
        del formats.MOST_ROWS["csv"]


@pytest.mark.parametrize("format", HERE)
def test_a_full_disk_is_one_line_and_leaves_rows_to_go_on_with(tmp_path, format):
    path, rows = tmp_path / f"s.{format}", rows_of()
    with disk.full(200), pytest.raises(UsageError, match="cannot be written .File too large") as e:
        write(path, rows)
    assert "\n" not in str(e.value) and {p.name for p in tmp_path.iterdir()} == {
        f"{path.name}.part"
    }
    write(path, rows, resume=True)
    assert len(read(path)) == len(rows)


@pytest.mark.skipif("xlsx" not in HERE, reason="needs xlsxwriter")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # xlsxwriter's own
def test_a_sheet_that_does_not_fit_leaves_no_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = rows_of(2)[:1] * 500
    with disk.full(1000), pytest.raises(OSError, match="File too large"):
        formats.write_xlsx(iter(rows), str(tmp_path / "x"), output.COLUMNS, False)
    gc.collect()
    assert os.listdir(tmp_path) in ([], ["x"])


@pytest.mark.parametrize("format", [x for x in HERE if x in formats.WRITERS])
def test_many_rows_take_no_more_memory(tmp_path, format):
    def peak(count: int) -> int:
        row = rows_of(2)[0]
        tracemalloc.start()
        formats.WRITERS[format](iter([row] * count), str(tmp_path / "x"), output.COLUMNS, False)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    formats.AT_ONCE, before = 100, formats.AT_ONCE
    try:
        peak(10)  # imports
        assert peak(2000) < peak(200) + 200_000
    finally:
        formats.AT_ONCE = before
