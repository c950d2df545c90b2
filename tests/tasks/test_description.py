"""The first look at a task, and the averages of GLUE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import call
from iwlora.compare.report.glue_average import every_number, task_first
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.description import duplicates

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
    for folders, told in (
        ("acd", "two runs of glue/rte with seed 1"),
        ("abe", "full has no run of glue/mnli"),
        ("f", "builtin/entailment is no task of GLUE"),
    ):
        refused = call(capsys, "tasks", "average", *(tmp_path / name for name in folders))
        assert refused.code == 2
        assert told in refused.err


def test_show(tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        "sentence,label",
        *(f"the dog {'sees a cat ' * k} {k},{'ab'[k % 2]}" for k in range(12)),
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "dev.csv").write_text("\n".join([rows[0], rows[3], rows[4][:-1] + "a", "new,a"]))
    files = [f"task.train={tmp_path / 'train.csv'}", f"task.validation={tmp_path / 'dev.csv'}"]
    shown = call(capsys, "tasks", "show", "--model", tiny_bert, *files, "train.max_length=16")
    assert shown.code == 0, shown.err
    # "the dog", 3 k words, a digit that is [UNK], [CLS] and [SEP]: 3 k + 5 tokens, 16 up to k = 3.
    text = " ".join(shown.out.split())
    for told in (
        f"inferred from {tmp_path / 'train.csv'}: text=sentence, label=label",
        "train: 12 rows labels a 6 (50.0%), b 6 (50.0%)",
        "tokens 5 to 38, median",
        "at 16 8 rows are longer (66.7%), 35.7% of all tokens are cut off",
        "validation: 2 of 3 rows have the texts of a training row, 1 of them with another label",
    ):
        assert told in text, shown.out


@pytest.mark.parametrize(("name", "shared"), [("glue/cola", 16), ("glue/sst2", 0)])
def test_real_duplicates(name: str, shared: int, glue_dir: Path) -> None:
    told = duplicates(load(TaskSpec(name=name, data_dir=str(glue_dir)), seed=0))[1]
    assert told.startswith(f"validation: {shared} of ")
