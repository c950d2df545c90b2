"""Tables of predictions in their formats; ``tests/inputs/test_formulas.py`` tests the CSV."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from iwlora.training.prediction.tables import as_json_lines, write_table

pytestmark = pytest.mark.quick


def test_parquet_keeps_types_and_writes_mixed_cells_as_json(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": "=a", "label": ["x", "y"], "score": 0.5},
        {"id": "b", "text": "b", "label": [], "score": 1.0},
    ]
    write_table(tmp_path / "p.parquet", rows)
    found = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [json.loads(row.pop("id")) for row in found] == [1, "b"]
    assert found == [{k: v for k, v in row.items() if k != "id"} for row in rows]


def test_json_lines_take_what_json_has_no_notation_for() -> None:
    (line,) = as_json_lines([{"id": datetime.date(2020, 1, 2), "text": "ä"}]).splitlines()
    assert line == '{"id": "2020-01-02", "text": "ä"}'
