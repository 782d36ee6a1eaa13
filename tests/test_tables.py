"""Tables as people and their programs write them: read as meant, or refused with the row."""

import zipfile

import pytest

from diffv2iqa_jax import tables
from diffv2iqa_jax.errors import TableError, UsageError
from diffv2iqa_jax.scoring import inputs
from tests import twins

ROWS = [("a.png", "1.5", "first"), ("b c.png", "2", "x, y; z")]
CELLS = [list(row) for row in ROWS]


def text(separator: str, ends: str = "\n") -> str:
    quoted = [("image", "mos", "note"), *ROWS]
    return "".join(separator.join(f'"{c}"' for c in row) + ends for row in quoted)


FORMS = {
    "commas": text(",").encode(),
    "semicolons": text(";").encode(),
    "bars": text("|").encode(),
    "tabs of Excel": text("\t", "\r\n").encode("utf-16"),
    "big end first": b"\xfe\xff" + text("\t").encode("utf-16-be"),
    "four bytes": text(",").encode("utf-32"),
    "marked": text(",", "\r\n").encode("utf-8-sig"),
    "old Macintosh": text(",", "\r").encode(),
    "said": b"sep=;\r\n" + text(";", "\r\n").encode(),
    "said loudly": b"SEP=;\r\n" + text(";", "\r\n").encode(),
    "said and marked": ("sep=|\n" + text("|")).encode("utf-8-sig"),
    "blank": b"\n\n" + text(",").replace("\n", "\n\n,,\n").encode(),
    "commented": b"# by the laboratory\n" + text(",").encode(),
    "empty columns": text(",").replace("\n", ",,\n").encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(form, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(FORMS[form])
    found = tables.read(path)
    assert found.columns == ("image", "mos", "note") and [row for _, row in found.rows] == CELLS


def test_a_comma_in_a_heading_does_not_make_commas_the_separator(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("image;MOS (1,0 to 5,0: n=9)\n" + "a.png;3,5\nb.png;4\n")
    assert tables.read(path).columns == ("image", "MOS (1,0 to 5,0: n=9)")


def test_rows_have_the_number_of_their_first_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'image,mos\n\n"new\nline.png",1\r\nb.png,2\n')
    assert tables.read(path).rows == [(3, ["new\nline.png", "1"]), (5, ["b.png", "2"])]
    path.write_bytes(b"sep=,\nimage,mos\na,1\n")
    assert tables.read(path).rows == [(3, ["a", "1"])]


def test_an_excel_file_is_read_whatever_it_is_called(tmp_path):
    for name in ("x.xlsx", "x.csv"):
        twins.excel(tmp_path / name, [["image", "mos"], ["a.png", 1.5], ["b.png", 2]])
        found = tables.read(tmp_path / name)
        assert found.columns == ("image", "mos")
        assert [(row[0], float(row[1])) for _, row in found.rows] == [("a.png", 1.5), ("b.png", 2)]
    assert [number for number, _ in found.rows] == [2, 3]


SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def book(path, *parts):
    """An Excel file of sheets in the order of its tabs: (path of the part, rows as XML)."""
    tabs = "".join(f'<sheet name="{i}" r:id="rId{i}"/>' for i in range(len(parts)))
    links = "".join(f'<Relationship Id="rId{i}" Target="{p}"/>' for i, (p, _) in enumerate(parts))
    with zipfile.ZipFile(path, "w") as file:
        start = f'<workbook xmlns="{SHEET}" xmlns:r="http://{SHEET[7:].split("/")[0]}/r">'
        file.writestr("xl/workbook.xml", f"{start}<sheets>{tabs}</sheets></workbook>")
        rels = f'<Relationships xmlns="http://rels">{links}</Relationships>'
        file.writestr("xl/_rels/workbook.xml.rels", rels)
        for part, rows in parts:
            sheet = f'<worksheet xmlns="{SHEET}"><sheetData>{rows}</sheetData></worksheet>'
            file.writestr(part.strip("/") if part[0] == "/" else f"xl/{part}", sheet)


def rows_of(*values):
    """A column as XML: numbers, or whole cells."""
    cells = (v if str(v).startswith("<") else f"<c><v>{v}</v></c>" for v in values)
    return "".join(f"<row>{cell}</row>" for cell in cells)


def test_the_first_sheet_is_that_of_the_first_tab_whatever_its_part_is_called(tmp_path):
    path = tmp_path / "x.xlsx"
    book(path, ("worksheets/sheet2.xml", rows_of(1, 2)), ("worksheets/sheet1.xml", rows_of(3, 4)))
    assert tables.read(path).columns == ("1",)
    book(path, ("/xl/worksheets/data.xml", rows_of(5, 6)))
    assert tables.read(path).rows == [(2, ["6"])]
    book(path, ("worksheets/sheet1.xml", rows_of(7)), ("worksheets/sheet2.xml", rows_of(8, 9)))
    assert tables.read(path).columns == ("8",)  # a note alone is no table


def test_cells_of_excel_that_hold_no_number_are_none(tmp_path):
    truth, formula = '<c t="b"><v>1</v></c>', "<c><f>A1+1</f></c>"
    book(tmp_path / "x.xlsx", ("worksheets/sheet1.xml", rows_of(1, truth, formula)))
    assert [row for _, row in tables.read(tmp_path / "x.xlsx").rows] == [["TRUE"], ["=A1+1"]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n,,\n", "is empty"),
        (b"image,mos,mos\na,1,2\n", "names 'mos' twice; rename one"),
        (b"image , mos, image\na,1,2\n", "names 'image' twice"),
        (b"image,mos\na,1\nb\n", "1 rows do not fit its columns: row 3: 1 fields instead of 2"),
        (b"image,mos\na,1,5\n", "row 2: 3 fields instead of 2 (a comma in a number?"),
        (b'image,mos\na,"1\nb,2\n', "row 2: a quote opens and does not end"),
        (b'image,mos\n"a"b,1\n', "row 2: "),
        (b"image,mos\nb,1\n\xe9,1\n", "row 3: is not UTF-8"),
        (b"image,mos\n\0\0,1\n", "holds zero bytes"),
        ("image,mos\na,1\n".encode("utf-16-le"), "save it as UTF-8"),
        (b"My study,,\nimage,mos,x\na,1,2\n", "fit its first row, which must name the columns"),
        (b"My study\nimage,mos,x\na,1,2\n", "fit its first row, which must name the columns"),
        (tables.OLD_EXCEL + b"\0" * 500, "old Excel"),
        (b"PK\3\4 no archive", "cannot be read as an Excel file"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(data, message, tmp_path):
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(TableError) as caught:
        tables.read(tmp_path / "x.csv")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_columns_that_are_not_there_name_the_nearest(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("File Name,MOS\na.png,1\n")
    for name, message in (("mos", "mean 'MOS'"), ("file_name", "mean 'File Name'"), ("x", "are")):
        with pytest.raises(UsageError, match=f"no column '{name}'; .*{message}"):
            list(inputs.expand([str(path)], column=name))
    path.write_text("File Name,MOS\na.png,1\n,2\n")
    with pytest.raises(UsageError, match="is empty in 1 rows: row 3: no path"):
        list(inputs.expand([str(path)], column="File Name"))


def test_scoring_finds_the_pictures_that_tables_name(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/b.png", "in/c.png"):
        (tmp_path / name).write_bytes(b"")
    path = tmp_path / "x.txt"
    own = tmp_path.name
    names = ["a.png", r"in\b.png", rf"{own}\in\c.png", "./none.png"]
    path.write_text("\n".join(["file", *names]), encoding="utf-16")
    found = list(inputs.expand([str(path)], column="file"))
    assert found == [f"{tmp_path}/{n}" for n in ("a.png", "in/b.png", "in/c.png", "./none.png")]
