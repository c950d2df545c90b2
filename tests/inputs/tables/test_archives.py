"""Compressed files and spreadsheets: small ones that unfold into huge tables are refused."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs import limits
from iwlora.inputs.tables import spreadsheets
from iwlora.inputs.tables.reading import Reading
from iwlora.inputs.tables.records import columns_of, notes_on, read_records

openpyxl = pytest.importorskip("openpyxl")
opendocument = pytest.importorskip("odf.opendocument")
table = pytest.importorskip("odf.table")
text = pytest.importorskip("odf.text")

MIB = 2**20
ROWS = [["text", "label", "n"], ["NA", "null", 3], ["None", "n/a", 2.5], ["#N/A", "", True]]


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen MiB are a large table in these tests, so that bombs are made at once."""
    monkeypatch.setattr(limits, "SMALL_TABLE", 2**24)
    monkeypatch.setattr(spreadsheets, "MOST_ROWS", 2**12)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    made = openpyxl.Workbook()
    for row in ROWS:
        made.active.append([cell if cell != "" else None for cell in row])
    made.save(tmp_path / "a.xlsx")
    return tmp_path / "a.xlsx"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    made, sheet = opendocument.OpenDocumentSpreadsheet(), table.Table(name="one")
    for row in ROWS:
        line = table.TableRow()
        for cell in row:
            line.addElement(cell_of(cell))
        sheet.addElement(line)
    made.spreadsheet.addElement(sheet)
    made.save(str(tmp_path / "a.ods"))
    return tmp_path / "a.ods"


def cell_of(value: object) -> Any:
    if value == "":
        return table.TableCell()
    if value is True:
        return table.TableCell(valuetype="boolean", booleanvalue="true")
    if not isinstance(value, str):
        return table.TableCell(valuetype="float", value=value)
    cell = table.TableCell(valuetype="string")
    cell.addElement(text.P(text=value))
    return cell


def rows_of(path: Path, *columns: str) -> list[list[object]]:
    return [list(row) for _, row in read_records(str(path), columns, [])]


def edit(archive: Path, part: str, change: Callable[[str], str]) -> None:
    """Rewrite a part of an archive."""
    with zipfile.ZipFile(archive) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts[part] = change(parts[part].decode()).encode()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in parts.items():
            new.writestr(name, content)


SHEET, CONTENT = "xl/worksheets/sheet1.xml", "content.xml"


@pytest.mark.quick
def test_no_text_of_a_spreadsheet_is_missing_for_its_spelling(book: Path, document: Path) -> None:
    expected = [["NA", "null", 3], ["None", "n/a", 2.5], ["#N/A", None, True]]
    assert rows_of(book, "text", "label", "n") == expected
    assert rows_of(document, "text", "label", "n") == expected


def test_the_first_sheet_is_read_and_a_note_says_so(book: Path) -> None:
    made = openpyxl.load_workbook(book)
    made.create_sheet("other").append(["x"])
    made.save(book)
    assert rows_of(book, "label")[0] == ["null"]
    assert notes_on(str(book)) == [
        f"{book}: the sheet 'Sheet' is read, the first of 2; save another one as a file of its own"
    ]


def test_a_sheet_without_a_header_and_with_empty_rows(tmp_path: Path) -> None:
    made = openpyxl.Workbook()
    for row in ([None], ["a", "x"], [None], ["b", "y", None], ["c", "z", "more"]):
        made.active.append(row)
    made.save(tmp_path / "a.xlsx")
    path, reading = str(tmp_path / "a.xlsx"), Reading(header=False)
    assert columns_of(path, reading=reading) == ["column1", "column2"]
    problems: list[tuple[int, str]] = []
    records = read_records(path, ["column2", "column1"], problems, reading=reading)
    assert [(number, list(row)) for number, row in records] == [(2, ["x", "a"]), (4, ["y", "b"])]
    assert [(number, problem.partition(";")[0]) for number, problem in problems] == [
        (5, "3 cells, the header has 2")
    ]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.json.gz", "a.conll.gz"])
def test_a_small_file_that_unpacks_into_a_huge_one_is_refused(tmp_path: Path, name: str) -> None:
    bomb = tmp_path / name
    with gzip.open(bomb, "wb") as stream:
        stream.write(b"[" if "json" in name else b"text,label\n")
        for _ in range(40):
            stream.write(b'{"text": "a", "label": "b"},\n' * 37_000)
    assert bomb.stat().st_size < MIB / 4
    with pytest.raises(IwloraError, match=r"a\.\w+\.gz has .* MB and unfolds into") as refused:
        list(read_records(str(bomb), columns_of(str(bomb)), []))
    assert "MB are read of such a file" in str(refused.value)


@pytest.mark.quick
def test_without_openpyxl_the_extra_is_named(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(IwloraError) as refused:
        rows_of(book, "text")
    assert str(refused.value) == f"{book} needs openpyxl; pip install 'iwlora[spreadsheets]'"


def many_rows(xml: str) -> str:
    row = '<row r="9"><c r="A9" t="inlineStr"><is><t>a</t></is></c></row>'
    return xml.replace("</sheetData>", row * 600_000 + "</sheetData>")


def wide_rows(xml: str) -> str:
    rows = "".join(f'<row r="{n}"><c r="ZZZ{n}"><v>1</v></c></row>' for n in range(9, 3000))
    return xml.replace("</sheetData>", f"{rows}</sheetData>")


def a_far_row(xml: str) -> str:
    row = '<row r="999999999"><c r="A999999999"><v>1</v></c></row>'
    return xml.replace("</sheetData>", f"{row}</sheetData>")


def entities(xml: str) -> str:
    laughs = '<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;&l;">]>'
    return re.sub(r"^(<\?xml.*?\?>)?", lambda found: found[0] + laughs, xml)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (many_rows, "unfolds into"),
        (wide_rows, "unfolds into"),
        (a_far_row, "has more than 4,096 rows"),
        (entities, "defines entities of XML"),
    ],
)
def test_a_small_xlsx_file_that_unfolds_is_refused(
    book: Path, change: Callable[[str], str], message: str
) -> None:
    edit(book, SHEET, change)
    assert book.stat().st_size < MIB / 4
    with pytest.raises(IwloraError, match=message):
        rows_of(book, "text")


def test_what_an_archive_says_of_its_parts_is_not_believed(book: Path) -> None:
    edit(book, SHEET, many_rows)
    with zipfile.ZipFile(book) as archive:
        size = archive.getinfo(SHEET).file_size
    content = book.read_bytes().replace(size.to_bytes(4, "little"), (9000).to_bytes(4, "little"))
    book.write_bytes(content)
    with pytest.raises(IwloraError, match=r"a\.xlsx is not a \.xlsx file that can be read"):
        rows_of(book, "text")


def repeated_cells(xml: str) -> str:
    return xml.replace(
        "<table:table-cell ", '<table:table-cell table:number-columns-repeated="99999999" '
    )


def repeated_rows(xml: str) -> str:
    return xml.replace(
        "<table:table-row>", '<table:table-row table:number-rows-repeated="99999999">'
    )


@pytest.mark.parametrize("change", [repeated_cells, repeated_rows])
def test_a_small_ods_file_that_unfolds_is_refused(
    document: Path, change: Callable[[str], str]
) -> None:
    edit(document, CONTENT, change)
    with pytest.raises(IwloraError, match=r"unfolds into|has more than"):
        list(islice(read_records(str(document), ["text"], []), 10**7))
