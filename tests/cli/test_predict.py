"""``iwlora predict``."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from commands import Outcome, call
from iwlora.inputs import places

pytestmark = pytest.mark.quick


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        return rows
    with path.open(newline="", encoding="utf-8") as stream:
        is_csv = path.suffix == ".csv"
        return [*csv.DictReader(stream)] if is_csv else [json.loads(line) for line in stream]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predict(
    finished: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: str,
) -> None:
    out = tmp_path / f"predictions.{ending}"
    outcome = call(capsys, "predict", finished, "--input", reviews["validation"], "--output", out)
    assert outcome.code == 0
    assert outcome.out == f"{out}\n"
    rows = read(out)
    with Path(reviews["validation"]).open(newline="") as stream:
        given = list(csv.DictReader(stream))
    assert [row["text"] for row in rows] == [row["text"].strip() for row in given]
    assert [str(row["id"]) for row in rows] == [row["id"] for row in given]
    assert [row["label"] for row in rows] == [row["mood"] for row in given]
    assert [int(row["row"]) for row in rows] == list(range(32))
    assert [int(row["line"]) for row in rows] == list(range(2, 34))
    # What the run itself predicted on these rows is the truth.
    with (finished / "predictions" / "validation.csv").open(newline="") as stream:
        for row, known in zip(rows, csv.DictReader(stream), strict=True):
            assert row["prediction"] == known["prediction"]
            shares = {name: float(row[f"probability_{name}"]) for name in ("neg", "pos")}
            assert sum(shares.values()) == pytest.approx(1)
            assert max(shares, key=lambda name: shares[name]) == row["prediction"]


def piped(
    text: str | bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *arguments: object,
) -> Outcome:
    """``iwlora predict`` of standard input."""
    content = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return call(capsys, "predict", *arguments)


def test_from_standard_input_to_standard_output(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    through = (finished, "--input", "-", "--output", "-")
    lines = '{"text": "a good film", "Id": 7}\n\n{"text": "=awful", "mood": "neg", "Id": [1]}\n'
    outcome = piped(lines, capsys, monkeypatch, *through)
    assert outcome.code == 0, outcome.err
    one, two = map(json.loads, outcome.out.splitlines())
    assert (one["line"], one["Id"], one["text"]) == (1, 7, "a good film")
    assert (two["line"], two["Id"], two["text"]) == (3, [1], "=awful")
    assert one["probability_neg"] + one["probability_pos"] == pytest.approx(1)
    assert "label" not in one, "the first row decides which columns there are"
    tabs = "\ufefftext\tmood\na good, good film\tpos\n=awful\t\n"
    for text, options in (
        (tabs, []),
        (tabs, ["--input-format", "tsv"]),
        ('mood,text\r\npos,"a good, good film"\r\n,=awful\r\n', []),
    ):
        outcome = piped(text, capsys, monkeypatch, *through, *options)
        rows = list(csv.DictReader(outcome.out.splitlines()))
        assert [row["text"] for row in rows] == ["a good, good film", "'=awful"]
        assert [row["label"] for row in rows] == ["pos", ""]
        same = [float(row["probability_pos"]) for row in rows][1]
        assert same == pytest.approx(two["probability_pos"], abs=1e-6)


def test_what_is_wrong_with_standard_input(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through = (finished, "--input", "-", "--output", tmp_path / "out.csv")
    for text, options, message in (
        ("text\ngood\n\n,\n", [], "standard input, line 4: 2 fields, the header has 1"),
        ("", [], "standard input is empty"),
        ("film\ngood\n", [], "standard input: unknown column 'text'"),
        (b"text\n\xff\n", [], "standard input, line 2: not UTF-8"),
        ("text\ngood\n", ["--input-format", "docx"], "unknown format 'docx'"),
        ("text\ngood\n", ["--id", "name"], "standard input: --id: unknown column 'name'"),
    ):
        outcome = piped(text, capsys, monkeypatch, *through, *options)
        assert outcome.code == 2
        assert message in outcome.err
    monkeypatch.setattr(places, "MOST_BYTES", {**places.MOST_BYTES, "standard input": 100_000})
    outcome = piped("text\n" + "\n" * 90_000 + "good\n", capsys, monkeypatch, *through)
    assert outcome.code == 0, outcome.err
    outcome = piped("text\n" + "\n" * 110_000 + "good\n", capsys, monkeypatch, *through)
    assert outcome.code == 2
    assert "standard input: it gives more than" in outcome.err


def test_the_first_rows_with_ids_of_another_column(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("text,row,id\ngood,x1,1\n\nbad,x2,2\nbroken\n")
    out = tmp_path / "out.csv"
    command = ("predict", finished, "--input", tmp_path / "in.csv", "--output", out)
    assert call(capsys, *command).code == 2, "the last row is broken"
    assert call(capsys, *command, "--max-rows", 2, "--id", "row").code == 0
    header = out.read_text().splitlines()[0]
    assert header == "iwlora_row,line,row,text,prediction,probability_neg,probability_pos"
    found = [(row["iwlora_row"], row["line"], row["row"], row["text"]) for row in read(out)]
    assert found == [("0", "2", "x1", "good"), ("1", "4", "x2", "bad")]
    refused = call(capsys, *command, "--max-rows", 0)
    assert "--max-rows 0: at least 1 is needed" in refused.err
    refused = call(capsys, *command, "--input-format", "csv")
    assert "--input-format is for --input -" in refused.err
