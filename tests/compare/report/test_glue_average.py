"""GLUE's average: against the table of a paper, and as the command prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import call
from iwlora.compare.report.glue_average import every_number, task_first

pytestmark = pytest.mark.quick

# AdaLoRA paper (arXiv 2303.10512), table 1: MNLI m/mm, SST-2, CoLA, QQP acc/F1, QNLI, RTE, MRPC,
# STS-B, and the average that it prints.
PUBLISHED = {
    "full": ([89.90, 90.12], 95.63, 69.19, [92.40, 89.80], 94.03, 83.75, 89.46, 91.60, 88.09),
    "bitfit": ([89.37, 89.91], 94.84, 66.96, [88.41, 84.95], 92.24, 78.70, 87.75, 91.35, 86.02),
    "lora": ([90.65, 90.69], 94.95, 69.82, [91.99, 89.38], 93.87, 85.20, 89.95, 91.60, 88.34),
    "adalora": ([90.76, 90.79], 96.10, 71.45, [92.23, 89.74], 94.55, 88.09, 90.69, 91.84, 89.31),
}


@pytest.mark.parametrize("arm", PUBLISHED)
def test_the_average_of_the_papers(arm: str) -> None:
    *columns, printed = PUBLISHED[arm]
    scores = {
        str(k): value if isinstance(value, list) else [value] for k, value in enumerate(columns)
    }
    assert task_first(scores) == pytest.approx(printed, abs=0.0101)
    assert every_number(scores) > task_first(scores) + 0.2


def result(folder: Path, task: str, seed: int, label: str = "lora", **metrics: float) -> None:
    folder.mkdir(parents=True)
    record: dict[str, Any] = {
        "method": label,
        "label": label,
        "model": "m",
        "task": task,
        "seed": seed,
        "metrics": metrics,
        "primary_metric": next(iter(metrics)),
        "evaluated_on": "validation",
        "selected_on": "last checkpoint",
        "trainable_parameters": 1,
        "adapter_parameters": 1,
        "head_parameters": 0,
        "train_seconds": 1.0,
        "measure_seconds": 0.0,
        "examples_per_second": 1.0,
        "peak_memory_bytes": 1,
        "train_examples": 1,
        "epochs": 1.0,
        "learning_rate": 1e-3,
        "rank": 1,
    }
    (folder / "result.json").write_text(json.dumps(record))


def test_average_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(tmp_path / "a", "glue/mnli", 0, accuracy=0.9, accuracy_mismatched=0.7, loss=1.0)
    result(tmp_path / "b", "glue/rte", 0, accuracy=0.6, f1=0.1)
    result(tmp_path / "c", "glue/rte", 1, accuracy=0.8, f1=0.1)
    done = call(capsys, "tasks", "average", *(tmp_path / name for name in "abc"))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["arm", "mnli", "rte", "task-first", "every-number"]
    assert lines[1].split() == ["lora", "90.00/70.00", "70.00", "75.00", "76.67"]
    assert lines[3].startswith("over 2 of GLUE's 9 tasks, without cola, sst2")

    result(tmp_path / "d", "glue/rte", 1, accuracy=0.8)
    result(tmp_path / "e", "glue/rte", 0, label="full", accuracy=0.8)
    result(tmp_path / "f", "builtin/entailment", 0, accuracy=0.8)
    for folders, message in (
        ("acd", "two runs of glue/rte with seed 1"),
        ("abe", "full has no run of glue/mnli"),
        ("f", "builtin/entailment is not a GLUE task"),
    ):
        refused = call(capsys, "tasks", "average", *(tmp_path / name for name in folders))
        assert refused.code == 2
        assert message in refused.err


def test_runs_that_are_not_scored_alike_are_in_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, digest in enumerate("ab"):
        result(tmp_path / str(seed), "glue/rte", seed, accuracy=0.8, f1=0.1)
        path = tmp_path / str(seed) / "result.json"
        parts = {"texts of validation": "x", "labels of validation": digest}
        stored = json.loads(path.read_text())
        path.write_text(json.dumps(stored | {"fingerprint": {"parts": parts}}))
    refused = call(capsys, "tasks", "average", tmp_path / "0", tmp_path / "1")
    assert refused.code == 2
    assert "1 does not compare with" in refused.err
    assert "the labels of the data (validation) changed" in refused.err
