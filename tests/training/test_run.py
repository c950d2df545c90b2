"""A run from the recipe to the result."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from conftest import WORDS
from families.checkpoints import save_checkpoint
from iwlora.training.loop.task_loss import task_loss
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from iwlora.training.state.artifacts import load_trained
from runs import RUN, logged, logits, predictions, recipe, status, weights
from tiny_tasks import write_task

HEAD = 16 * 2 + 2
SITES = 2 * (4 * (16 + 16) + 2 * (16 + 24))  # Σ (d_in + d_out) of the tiny BERT
ROWS = 2 * (5 * 16 + 24)  # Σ d_out


@pytest.fixture(scope="module", params=RUN)
def finished(
    request: pytest.FixtureRequest,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Recipe, Path, dict[str, Any]]:
    """(recipe, folder, result) of a run of 2 × 5 steps, of which the fifth is short."""
    run_recipe = recipe(tiny_bert, reviews, request.param, batch_size=20)
    folder = tmp_path_factory.mktemp("runs") / request.param
    return run_recipe, folder, train(run_recipe, folder)


def test_the_result_is_written_and_describes_the_run(
    finished: tuple[Recipe, Path, dict[str, Any]],
) -> None:
    run_recipe, folder, result = finished
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == result
    expected = {
        "method": run_recipe.method.name,
        "label": run_recipe.method.name,
        "model": run_recipe.model,
        "task": run_recipe.task.train,
        "seed": 0,
        "primary_metric": "accuracy",
        "evaluated_on": "validation",
        "selected_on": "last checkpoint",
        "train_examples": 96,
        "epochs": 2.0,
        "learning_rate": 1e-2,
        "rank": run_recipe.method.size,
        "resumed_at_step": 0,
        "labels": ["neg", "pos"],
        "text": ["text"],
        "notes": [
            "validation: 32 of 32 rows have the texts of a training row, 0 of them with another "
            "label"
        ],
        "head_parameters": HEAD,
    }
    assert {key: result[key] for key in expected} == expected
    measured = {
        "metrics",
        "trainable_parameters",
        "adapter_parameters",
        "train_seconds",
        "measure_seconds",
        "examples_per_second",
        "peak_memory_bytes",
    }
    assert result.keys() >= expected.keys() | measured
    assert result["train_seconds"] > 0
    measures = run_recipe.method.calibration() is not None or run_recipe.method.name == "eva"
    assert (result["measure_seconds"] > 0.001) == measures
    assert result["examples_per_second"] == pytest.approx(2 * 96 / result["train_seconds"])
    assert result["peak_memory_bytes"] > 2**20


def test_parameters_are_those_counted_by_hand(
    finished: tuple[Recipe, Path, dict[str, Any]], tiny_bert: Path
) -> None:
    run_recipe, folder, result = finished
    backbone = load_file(tiny_bert / "model.safetensors")
    whole = sum(tensor.numel() for tensor in backbone.values())
    initial = {
        "full": whole,
        "dora": 4 * SITES + ROWS,
        "svd-lora": 4 * (SITES + 12),
        "adalora": 6 * (SITES + 12),
    }
    name = run_recipe.method.name
    short = result["trainable_parameters"] - HEAD - initial.get(name, 4 * SITES)
    assert -32 < short <= 0 if name.endswith("-ranks") else short == 0
    written = sum(t.numel() for name, t in weights(folder).items() if "classifier" not in name)
    assert result["adapter_parameters"] == (written / 2 if name == "pissa" else written)
    if name not in initial:
        assert result["adapter_parameters"] == 4 * SITES + short


def test_ranks_are_reported_where_they_differ(
    finished: tuple[Recipe, Path, dict[str, Any]],
) -> None:
    _, folder, result = finished
    file = folder / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    pattern = config.get("rank_pattern") or {}
    assert len(result["ranks"]) == (12 if pattern else 0)
    assert {site["name"]: site["rank"] for site in result["ranks"] if site["rank"]} == pattern
    for site in result["ranks"]:
        block = site["name"].split(".layer.")[1].split(".")[0]
        assert (site["depth"], site.keys()) == (int(block), {"name", "kind", "depth", "rank"})


def test_the_metrics_are_those_of_the_saved_predictions(
    finished: tuple[Recipe, Path, dict[str, Any]], reviews: dict[str, str]
) -> None:
    _, folder, result = finished
    rows = predictions(folder)
    with Path(reviews["validation"]).open(encoding="utf-8") as stream:
        assert [row["label"] for row in rows] == [row["mood"] for row in csv.DictReader(stream)]
    assert [row["row"] for row in rows] == [str(number) for number in range(32)]
    assert [row["line"] for row in rows] == [str(line) for line in range(2, 34)]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert result["metrics"]["accuracy"] == right / 32
    values = np.array(logits(folder))
    assert [row["prediction"] for row in rows] == [["neg", "pos"][k] for k in values.argmax(1)]
    truth = [["neg", "pos"].index(row["label"]) for row in rows]
    log_p = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    assert result["metrics"]["loss"] == pytest.approx(-log_p[range(32), truth].mean(), rel=1e-6)


def test_the_saved_model_gives_the_saved_predictions(
    finished: tuple[Recipe, Path, dict[str, Any]], reviews: dict[str, str]
) -> None:
    _, folder, _ = finished
    with Path(reviews["validation"]).open(encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    expected = torch.tensor(logits(folder))
    for merge in (False, True):
        model, tokenizer = load_trained(folder, merge=merge)
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-5)


def twice(task: dict[str, str]) -> dict[str, str]:
    """The task with its validation rows as the test split too, so that both are scored."""
    return {**task, "test": task["validation"]}


def test_a_reported_split_is_scored_once(finished: tuple[Recipe, Path, dict[str, Any]]) -> None:
    _, folder, result = finished
    assert result["evaluated_on"] == "validation"
    assert not [record for record in logged(folder) if record.get("evaluation")]


def test_the_log_has_every_epochs_scores_and_the_loss_between(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    result = train(recipe(tiny_bert, twice(reviews), batch_size=20), folder)
    records = logged(folder)
    evaluations = [record for record in records if record.get("evaluation")]
    assert [(r["step"], r["epoch"], r["split"]) for r in evaluations] == [
        (5, 1.0, "validation"),
        (10, 2.0, "validation"),
    ]
    assert evaluations[-1]["accuracy"] == result["metrics"]["accuracy"]
    assert evaluations[-1]["loss"] == pytest.approx(result["metrics"]["loss"], rel=1e-5)
    (training,) = [record for record in records if not record.get("evaluation")]
    assert training.keys() >= {"step", "epoch", "loss", "grad_norm", "learning_rate"}
    assert training["step"] == 10
    assert status(folder) == {"state": "done"}


def test_a_finished_run_is_not_repeated(finished: tuple[Recipe, Path, dict[str, Any]]) -> None:
    run_recipe, folder, result = finished

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = times()
    assert train(run_recipe, folder) == result
    assert times() == before


def test_lora_learns(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> None:
    result = train(recipe(tiny_bert, reviews, epochs=8, batch_size=8), tmp_path / "run")
    assert result["metrics"]["accuracy"] > 0.9  # chance is 0.5
    assert result["metrics"]["loss"] < 0.5  # and 0.69


def test_the_same_recipe_gives_the_same_result(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    run_recipe = recipe(tiny_bert, reviews, epochs=1)
    results = [train(run_recipe, tmp_path / name)["metrics"] for name in ("a", "b")]
    assert results[0] == results[1]
    assert predictions(tmp_path / "a") == predictions(tmp_path / "b")


def test_each_validation_split_has_its_scores_and_predictions(
    tiny_bert: Path, tmp_path: Path
) -> None:
    labels = ("entailment", "neutral", "contradiction")
    (tmp_path / "MNLI").mkdir()
    for name, count in (("train", 24), ("dev_matched", 12), ("dev_mismatched", 9)):
        lines = ["index\tsentence1\tsentence2\tgold_label"]
        for row in range(count):
            text = " ".join(WORDS[(row * 5 + k) % len(WORDS)] for k in range(6))
            lines.append(f"{row}\t{text}\t{name}\t{labels[row % 3]}")
        (tmp_path / "MNLI" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = {"name": "glue/mnli", "data_dir": str(tmp_path)}
    result = train(recipe(tiny_bert, task, epochs=1), tmp_path / "run")
    assert list(result["metrics"]) == [
        "accuracy",
        "loss",
        "accuracy_mismatched",
        "loss_mismatched",
    ]
    assert (result["evaluated_on"], result["labels"]) == ("validation", list(labels))
    for split, end, count in (
        ("validation", "", 12),
        ("validation_mismatched", "_mismatched", 9),
    ):
        rows = predictions(tmp_path / "run", split)
        right = sum(row["label"] == row["prediction"] for row in rows)
        assert len(rows) == count
        assert result["metrics"][f"accuracy{end}"] == right / count


def test_a_labeled_test_split_is_scored_instead_of_validation(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    lines = Path(reviews["validation"]).read_text(encoding="utf-8").splitlines()
    (tmp_path / "test.csv").write_text("\n".join(lines[:8]) + "\n", encoding="utf-8")
    task = {**reviews, "test": str(tmp_path / "test.csv")}
    result = train(recipe(tiny_bert, task, epochs=1), tmp_path / "run")
    assert result["evaluated_on"] == "test"
    assert len(predictions(tmp_path / "run", "test")) == 7
    assert not (tmp_path / "run" / "predictions" / "validation.csv").exists()
    assert [record["split"] for record in logged(tmp_path / "run")] == ["validation"]


def test_a_budget_sets_the_size(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> None:
    settings = recipe(tiny_bert, reviews, epochs=1).settings() | {"budget": "1.3K"}
    result = train(build(settings), tmp_path / "run")
    assert result["rank"] == 3
    assert result["adapter_parameters"] == 3 * SITES == 1248


def test_bfloat16_rounds_the_products_and_keeps_the_parameters(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    for precision in ("fp32", "bf16"):
        train(recipe(tiny_bert, reviews, epochs=1, precision=precision), tmp_path / precision)
    assert {tensor.dtype for tensor in weights(tmp_path / "bf16").values()} == {torch.float32}
    exact, rounded = (np.array(logits(tmp_path / precision)) for precision in ("fp32", "bf16"))
    difference = np.abs(exact - rounded).max()
    assert 0 < difference < 0.05


def test_the_losses_of_micro_batches_add_up_to_that_of_the_batch() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(7, 3, dtype=torch.float64), torch.randint(3, (7,))

    class Output:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    loss = task_loss(lambda: torch.tensor(0.25))
    whole = loss(Output(scores), labels)
    assert_close(whole, (cross_entropy(scores.float(), labels) + 0.25).to(whole))
    pieces = [loss(Output(scores[part]), labels[part], 7) for part in (slice(0, 5), slice(5, 7))]
    assert_close(sum(pieces), whole)
    with torch.no_grad():  # what is scored is the task alone
        assert_close(loss(Output(scores), labels), cross_entropy(scores.float(), labels))


def test_matrices_without_a_gradient_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LiLT's last block computes a layout that nothing reads."""
    model = save_checkpoint(tmp_path / "model", "lilt", "classification")
    task, _ = write_task(tmp_path / "task", "classification")
    result = train(recipe(model, task, epochs=1, batch_size=4), tmp_path / "run")
    (note,) = (note for note in result["notes"] if "gradient" in note)
    assert note.startswith("4 of 24 matrices had no gradient in training, so their adapters have")
    assert "lilt.encoder.layer.1.layout_output.dense" in note
    assert note in caplog.text
