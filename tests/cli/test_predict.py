"""``iwlora predict``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from commands import call

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
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
    with out.open(newline="", encoding="utf-8") as stream:
        rows: list[dict[str, Any]] = (
            list(csv.DictReader(stream))
            if ending == "csv"
            else [json.loads(line) for line in stream]
        )
    with Path(reviews["validation"]).open(newline="") as stream:
        texts = [row["text"].strip() for row in csv.DictReader(stream)]
    assert [row["text"] for row in rows] == texts
    assert [int(row["row"]) for row in rows] == list(range(32))
    # What the run itself predicted on these rows is the truth.
    with (finished / "predictions" / "validation.csv").open(newline="") as stream:
        for row, known in zip(rows, csv.DictReader(stream), strict=True):
            assert row["prediction"] == known["prediction"]
            shares = {name: float(row[f"probability_{name}"]) for name in ("neg", "pos")}
            assert sum(shares.values()) == pytest.approx(1)
            assert max(shares, key=lambda name: shares[name]) == row["prediction"]
