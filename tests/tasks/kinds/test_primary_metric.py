"""Perplexity and errors as the primary metric, and the scores of each class."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import precision_recall_fscore_support
from transformers import GenerationMixin

import iwlora
from iwlora.results.layout import BEST_EPOCH
from iwlora.tasks import TaskSpec, load
from iwlora.training.recipe import Recipe
from iwlora.training.state import best_epoch
from kinds import save_model
from runs import evaluations

LONG = "the dog sees a film and the cat sleeps in the old house while it rains and it is very good"
SHORT = "the cat sees a dog"


def rows_of(targets: Sequence[Any], file: Path) -> str:
    rows = [{"prompt": f"who runs {k} ?", "completion": t} for k, t in enumerate(targets)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def recipe(model: Path, task: Mapping[str, Any], epochs: int = 1) -> Recipe:
    train = {"epochs": epochs, "lr": 0.05, "batch_size": 4, "max_length": 64, "precision": "fp32"}
    method = {"name": "lora", "rank": 2}
    return iwlora.build_recipe(
        {"model": str(model), "task": dict(task), "method": method, "train": train}
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("metric") / "llama", "llama")


def test_targets_are_ranked_by_perplexity_without_a_generated_text(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = rows_of([LONG] * 4 + [SHORT], tmp_path / "rows.jsonl")
    kind = {"name": "instruction", "max_target": 32, "metric": "perplexity"}
    task = {"train": file, "validation": file, "selection": 0.4, "kind": kind}
    with monkeypatch.context() as patch:
        patch.setattr(GenerationMixin, "generate", lambda *_, **__: pytest.fail("generated"))
        wanted = recipe(llama, task, epochs=3)
        result = iwlora.train(wanted, tmp_path / "run")
    assert result["primary_metric"] == result["task_metrics"][0] == "perplexity"
    assert result["kind"]["metric"] == "perplexity"
    assert result["signatures"] == {}

    # The perplexity of all tokens follows from that of each row.
    with (tmp_path / "run/predictions/validation.csv").open(newline="") as stream:
        scored = list(csv.DictReader(stream))
    tokens = [int(row["tokens"]) for row in scored]
    losses = [math.log(float(row["perplexity"])) for row in scored]
    mean = sum(n * loss for n, loss in zip(tokens, losses, strict=True)) / sum(tokens)
    assert result["metrics"]["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)

    # The epoch with the lowest perplexity is kept.
    epochs = [record["perplexity"] for record in evaluations(tmp_path / "run")]
    assert len(epochs) == 3
    score, _ = best_epoch.score_and_epoch(tmp_path / "run/checkpoints" / BEST_EPOCH)
    assert score == -min(epochs)

    # Predictions of new rows are texts.
    new = iwlora.predict(tmp_path / "run", file, tmp_path / "new.csv")
    with new.open(newline="") as stream:
        assert all(isinstance(row["prediction"], str) for row in csv.DictReader(stream))


@pytest.mark.quick
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_the_primary_metric_of_numbers(metric: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"a {k},{k}.5\n" for k in range(5)))
    spec = TaskSpec(
        train=str(file), validation=str(file), kind={"name": "regression", "metric": metric}
    )
    task = load(spec, 0)
    assert task.metrics[0] == metric
    assert sorted(task.metrics) == ["mae", "pearson", "rmse", "spearman"]


@pytest.mark.parametrize("kind", ["classification", "multi-label"])
def test_the_scores_of_each_class(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    labels = ["sad", "good", "good", "old", "good", "sad"]
    cells = labels if kind == "classification" else [f"{one};good" for one in labels]
    file = tmp_path / "rows.csv"
    file.write_text(
        "text,label\n" + "".join(f"the dog sees {k},{c}\n" for k, c in enumerate(cells))
    )
    task = {"train": str(file), "validation": str(file), "kind": kind}
    result = iwlora.train(recipe(tiny_bert, task, epochs=3), tmp_path / "run")
    with (tmp_path / "run/predictions/validation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = result["labels"]
    assert list(result["label_scores"]) == names
    for name, scores in result["label_scores"].items():
        if kind == "classification":
            truth, said = ([row[c] == name for row in rows] for c in ("label", "prediction"))
        else:
            truth, said = (
                [name in json.loads(row[c]) for row in rows] for c in ("label", "prediction")
            )
        p, r, f, _ = precision_recall_fscore_support(
            truth, said, average="binary", zero_division=0.0
        )
        expected = {"f1": f, "precision": p, "recall": r, "rows": sum(truth)}
        assert scores == pytest.approx(expected)
    if kind == "multi-label":
        mean = sum(scores["f1"] for scores in result["label_scores"].values()) / len(names)
        assert result["metrics"]["macro_f1"] == pytest.approx(mean)
