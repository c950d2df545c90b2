"""Lists of JSON objects, read one by one; objects that hold rows; fields inside of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from iwlora.errors import IwloraError
from iwlora.inputs import lines
from iwlora.inputs.tables.records import Problems, columns_of, read_records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
ROWS = st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}), min_size=1, max_size=6)


def saved(folder: Path, content: str, name: str = "a.json") -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


def rows_of(path: str, *columns: str) -> list[list[Any]]:
    return [list(row) for _, row in read_records(path, columns, [])]


def error_of(path: str, *columns: str) -> str:
    with pytest.raises(IwloraError) as refused:
        rows_of(path, *columns)
    return str(refused.value)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, indent=st.sampled_from([None, 0, 2]), size=st.integers(1, 30))
def test_any_list_is_read_in_parts_as_json_reads_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, size: int
) -> None:
    path = saved(tmp_path_factory.mktemp("list"), json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", size)
        assert rows_of(path, "b", "a") == [[row["b"], row["a"]] for row in rows]


@pytest.mark.parametrize("size", [1, 7, 2**20])
@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ('[{"a": 1},\n{"a": 2},,]', "line 2, column 10", "Expecting value"),
        ('[{"a": 1},\n{"a" 2}]', "line 2, column 6", "Expecting ':' delimiter"),
        ('[{"a": 1},\n\n {"a": 2}', "line 3, column 10", "a comma or ] is missing"),
        ('[{"a": 1}\n{"a": 2}]', "line 2, column 1", "a comma or ] is missing"),
        ('[{"a": 1}, ]', "line 1, column 12", "an item is missing after the comma"),
        ('[{"a": 1}]\nmore', "line 2, column 1", "there is something after the list"),
        ("[" * 100_000, "line 1, column 2", "nested too deeply"),
    ],
)
def test_a_damaged_list_names_line_and_column(
    tmp_path: Path, content: str, place: str, reason: str, size: int, monkeypatch: Any
) -> None:
    if size < 7 and len(content) > 1000:
        return
    monkeypatch.setattr(lines, "CHUNK", size)
    path = saved(tmp_path, content)
    assert error_of(path, "a").startswith(f"{path}, {place} is damaged or was cut short ({reason})")


def test_items_that_are_no_objects_are_problems_with_their_number(tmp_path: Path) -> None:
    problems: Problems = []
    path = saved(tmp_path, '[{"a": 1}, ["a", 2], {"b": 3}, {"a": 4}]')
    assert [(n, *row) for n, row in read_records(path, ["a"], problems)] == [(1, 1), (4, 4)]
    assert problems == [
        (2, "a list; each item of the list must be an object"),
        (3, "unknown column 'a'; (accepted: b)"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"n": 2, "rows": [{"a": 1}, {"a": 2}]}', [[1], [2]]),
        ('{"a": [1, 2], "b": ["x", "y"]}', [[1], [2]]),
        ('{"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}}', [[1], [2]]),
        ('{"a": 1, "messages": [{"role": "user"}]}', [[1]]),
        ('{"a": 1}\n{"a": 2}\n', [[1], [2]]),
        ('{"a": 1}\n', [[1]]),
        ('{"a" 1}\n{"a": 2}\n{"a": 3}\n', [[2], [3]]),
    ],
)
def test_what_an_object_holds(tmp_path: Path, content: str, expected: list[list[Any]]) -> None:
    assert rows_of(saved(tmp_path, content), "a") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"train": [{"a": 1}],\n"test": [{"a": 2}]}',
            " holds 2 lists of rows (train, test); save each as a file of its own",
        ),
        ('{"a": 1,\n"b": "x"}', " holds one object (fields: a, b) in which there is no list of"),
        ('{"data":\n[{"paragraphs": [{"qas": [{}]}]}]}', " is not a file of SQuAD: KeyError"),
        ('{"a":\n[1, 2}', " is damaged or was cut short"),
    ],
)
def test_objects_without_a_list_of_rows(tmp_path: Path, content: str, message: str) -> None:
    path = saved(tmp_path, content)
    assert error_of(path, "a").startswith(path + message)


def test_a_broken_question_of_squad_is_a_problem_with_its_id(tmp_path: Path) -> None:
    asked = [{"id": "q1", "question": "Why?", "answers": []}, {"id": "q2", "answers": []}]
    content = {"data": [{"paragraphs": [{"context": "It rains.", "qas": asked}]}]}
    problems: Problems = []
    path = saved(tmp_path, json.dumps(content, indent=1))
    records = list(read_records(path, ["question", "answers"], problems))
    assert records == [(1, ["Why?", {"text": [], "answer_start": []}])]
    assert problems == [(2, "question q2: it has no 'question'")]


NESTED = [{"id": 1, "by": {"name": {"first": "Ann"}, "a.b": 2}}, {"id": 2, "by": {"name": None}}]


def test_fields_inside_of_others(tmp_path: Path) -> None:
    path = saved(tmp_path, "\n".join(map(json.dumps, NESTED)), "a.jsonl")
    assert columns_of(path) == ["id", "by", "by.name", "by.name.first", "by.a.b"]
    problems: Problems = []
    found = list(read_records(path, ["by.name.first", "by.a.b"], problems))
    assert found == [(1, ["Ann", 2])]
    assert problems[0][1].startswith("unknown column 'by.name.first'")


def test_fields_inside_of_a_column_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"id": 1, "by": {"name": "Ann", "age": 3}}, {"id": 2, "by": {"name": "Bo", "age": 4}}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert columns_of(str(path)) == ["id", "by", "by.name", "by.age"]
    assert rows_of(str(path), "by.name", "id", "by.age") == [["Ann", 1, 3], ["Bo", 2, 4]]
    assert "unknown column 'me'" in error_of(str(path), "me.name", "me")
