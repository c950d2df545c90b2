"""Pools of each kind of task, from runs to the file of predictions: texts, tokens and images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import transformers
from scipy.special import softmax

from iwlora.compose.compose import compose
from iwlora.compose.predict import predict
from iwlora.compose.prototypes import Prototypes, embeddings, load_prototypes, weights_by_distance
from iwlora.errors import IwloraError
from iwlora.methods.tiny_models import IMAGE_SIZE, tiny_model
from iwlora.training.prediction.new_rows import evaluate_rows, load_for_rows
from iwlora.training.prediction.new_rows import predict as predict_run
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import recipe
from tiny_tasks import write_task
from training.test_image_runs import draw

Rows = list[dict[str, Any]]


def lines(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def trained(folder: Path, model: Path, task: dict[str, Any], methods: dict[str, str]) -> list[Path]:
    """A run of each method, in a folder of its name."""
    for seed, (name, method) in enumerate(methods.items()):
        train(recipe(model, task, method, lr=2e-2, seed=seed, batch_size=4), folder / name)
    return [folder / name for name in methods]


def probabilities(rows: Rows) -> Any:
    """(rows, classes)."""
    names = [name for name in rows[0] if name.startswith("probability_")]
    return np.array([[row[name] for name in names] for row in rows])


def singles(runs: list[Path], rows: Path, folder: Path) -> Any:
    """(runs, rows, classes), as ``iwlora predict`` writes them of each run; they differ."""
    found = [
        probabilities(lines(predict_run(run, rows, folder / f"{run.name}.jsonl"))) for run in runs
    ]
    assert np.ptp(found, axis=0).max() > 1e-4
    return np.array(found)


def test_each_class_of_several_has_the_mean_of_its_probabilities(
    tiny_bert: Path, tmp_path: Path
) -> None:
    task, _ = write_task(tmp_path / "task", "multi-label")
    runs = trained(tmp_path, tiny_bert, task, {"a": "lora", "b": "head"})
    rows = Path(task["validation"])
    answers = lines(predict(compose(runs, tmp_path / "pool"), rows, tmp_path / "pool.jsonl"))
    mean = singles(runs, rows, tmp_path).mean(axis=0)
    assert np.abs(probabilities(answers) - mean).max() < 1e-6
    names = [name.removeprefix("probability_") for name in answers[0] if "probability_" in name]
    for row, of_row in zip(answers, mean, strict=True):
        assert row["prediction"] == [n for n, p in zip(names, of_row, strict=True) if p > 0.5]


def test_each_token_has_the_class_of_the_mean(tiny_bert: Path, tmp_path: Path) -> None:
    task, scored = write_task(tmp_path / "task", "token-labels")
    runs = trained(tmp_path, tiny_bert, task, {"a": "lora", "b": "head"})
    rows = datasets.Dataset.from_dict({"tokens": [row["tokens"] for row in scored]})
    evaluations = [
        evaluate_rows(run, *load_for_rows(run), rows) for run in map(RunDir.finished, runs)
    ]
    mean = np.mean([softmax(e.outputs["logits"], axis=-1) for e in evaluations], axis=0)
    labels = evaluations[0].schema.labels
    expected = [
        [labels[of_row[token].argmax()] for token in tokens]
        for of_row, tokens in zip(mean, evaluations[0].encoded["first_tokens"], strict=True)
    ]
    pool = compose(runs, tmp_path / "pool")
    answers = lines(predict(pool, task["validation"], tmp_path / "pool.jsonl"))
    assert [row["prediction"] for row in answers] == expected
    with pytest.raises(IwloraError, match="kind token-labels have none"):
        compose(runs, tmp_path / "other", weights="prototypes")


@pytest.fixture(scope="module")
def image_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """(two runs of apt and one of LoRA on a tiny ViT, the folder of the scored images)."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(24):
        split = "train" if number < 16 else "validation"
        name = ("square", "disc")[number % 2]
        draw(folder / "images" / split / name / f"{number}.png", number, bool(number % 2))
    tiny_model("vit").save_pretrained(folder / "vit")
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    transformers.ViTImageProcessorPil(size=size).save_pretrained(folder / "vit")
    task = {"train": str(folder / "images"), "kind": {"name": "image-classification"}}
    runs = trained(folder, folder / "vit", task, {"a": "apt", "b": "apt", "c": "lora"})
    return runs, folder / "images" / "validation"


def test_images_have_the_mean_of_the_probabilities(
    image_runs: tuple[list[Path], Path], tmp_path: Path
) -> None:
    runs, images = image_runs
    answers = lines(predict(compose(runs, tmp_path / "pool"), images, tmp_path / "pool.jsonl"))
    mean = singles(runs, images, tmp_path).mean(axis=0)
    assert np.abs(probabilities(answers) - mean).max() < 1e-6


def test_images_are_weighed_by_prototypes(
    image_runs: tuple[list[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs have the same rows here, so other prototypes are put into the place of b's."""
    runs, images = image_runs
    found: list[Any] = []
    keep: Callable[..., Any] = embeddings

    def note(*arguments: Any, **options: Any) -> Any:
        found.append(keep(*arguments, **options))
        return found[-1]

    def of_rows(name: str, *_: Any) -> Prototypes:
        rows = found[0] if found else np.eye(2, 16)
        return Prototypes.of(rows + (name == "b"))

    monkeypatch.setattr("iwlora.compose.prototypes.embeddings", note)
    pool = compose(runs[:1], tmp_path / "one", weights="prototypes")
    assert found[0].shape == (16, 16)
    monkeypatch.setattr("iwlora.compose.compose.source_prototypes", of_rows)
    monkeypatch.setattr("iwlora.compose.predict.embeddings", note)
    pool = compose(runs, tmp_path / "pool", weights="prototypes")
    answers = lines(predict(pool, images, tmp_path / "pool.jsonl"))
    folders = [pool / "sources" / run.name for run in runs]
    prototypes = [load_prototypes(folder / "prototypes.safetensors") for folder in folders]
    weights = weights_by_distance(prototypes, found[-1])
    assert weights[1].max() < 0.2 < weights[0].min()
    mean = np.einsum("sr,src->rc", weights, singles(runs, images, tmp_path))
    assert np.abs(probabilities(answers) - mean).max() < 1e-6
