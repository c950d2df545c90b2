"""Cells that begin like formulas: marked for people, and restored as they were."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.inputs.formulas import KEEP, mark_formula, restore_formula
from iwlora.training.prediction.tables import as_csv, joined

STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))  # which csv refuses
CELLS = TEXT | st.text("'=+-@\t\r\n 1.5eEx\uff1d") | st.floats().map(repr)


@settings(max_examples=40, deadline=None)
@given(CELLS)
def test_every_cell_comes_back(cell: str) -> None:
    marked = mark_formula(cell)
    assert restore_formula(marked) == cell
    assert marked in (cell, f"'{cell}")
    try:
        float(cell)
    except ValueError:
        assert marked[:1] not in STARTS or not cell, "no program takes it for a formula"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1), st.tuples(CELLS, CELLS))
def test_a_table_comes_back(rows: list[tuple[str, str]], names: tuple[str, str]) -> None:
    columns = [dict(zip(names, row, strict=True)) for row in rows]
    ours = [{"score": -1.5} for _ in rows]
    table = as_csv(joined(columns, [{} for _ in rows], ours))
    header, *read = csv.reader(io.StringIO(table, newline=""))
    for row, cells in zip(columns, read, strict=True):
        found = dict(zip(map(restore_formula, header), map(restore_formula, cells), strict=True))
        assert {name: found[name] for name in row} == row
        assert found["iwlora_score" if "score" in row else "score"] == "-1.5"


@pytest.mark.parametrize("number", ["-1.5", "+3", "-1e-05", "-.5", "-2."])
def test_numbers_stay_numbers(number: str) -> None:
    assert mark_formula(number) == number


@pytest.mark.parametrize("cell", ["-1+1", "-1e", "--1", "+A1", "@SUM(1)", "=1", "\t=1", "-", "'=1"])
def test_what_is_more_than_a_number_is_marked(cell: str) -> None:
    assert mark_formula(cell) == f"'{cell}"


@settings(max_examples=40, deadline=None)
@given(CELLS)
def test_cells_that_are_left_as_they_are_come_back_too(cell: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEEP, "1")
        written = mark_formula(cell)
        assert restore_formula(written) == cell
    assert restore_formula(written) == cell, "the reader needs no switch"
    assert cell.startswith("'") or written == cell


@pytest.mark.parametrize("cell", ["'=1", "''=1", "'-1.5", "'\t"])
def test_a_cell_with_its_own_quote_keeps_it(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEEP, "1")
    assert mark_formula(cell) == f"'{cell}"
    assert mark_formula("=1") == "=1"
