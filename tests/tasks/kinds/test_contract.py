"""Each kind of task on each architecture: train, score, predict, export, load, in one pass."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer

import iwlora
from iwlora.tasks.kinds import KINDS
from iwlora.training.measure_recipe import measure_recipe
from iwlora.training.model.backbone import load_backbone
from kinds import DECODERS, ENCODERS, TASKS, TEXTS, WRITERS, save_model, write_task

ALL = (*ENCODERS, *WRITERS)
PAIRS = [
    pytest.param(kind, architecture, id=f"{kind}-{architecture}")
    for kind in TASKS
    for architecture in (DECODERS if kind == "packed" else WRITERS if kind in TEXTS else ALL)
    if (kind, architecture) != ("token-labels", "bart")  # transformers has no such model
]


def settings(model: Path, task: dict[str, Any], method: str = "lora") -> dict[str, Any]:
    return {
        "model": str(model),
        "task": task,
        "method": {"name": method, "rank": 2},
        "train": {
            "epochs": 2,
            "lr": 1e-2,
            "batch_size": 6,
            "accumulate": 2,
            "max_length": 32,
            "precision": "fp32",
        },
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    return {name: save_model(folder / name, name) for name in ALL}


def saved_predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions" / "validation.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("kind", "architecture"), PAIRS)
def test_train_evaluate_predict_export(
    kind: str, architecture: str, models: dict[str, Path], tmp_path: Path
) -> None:
    task, rows = write_task(tmp_path, kind)
    recipe = iwlora.build_recipe(settings(models[architecture], task))
    result = iwlora.train(recipe, tmp_path / "run")
    assert result["primary_metric"] == next(iter(result["metrics"]))
    assert all(isinstance(value, float) for value in result["metrics"].values())
    assert result["metrics"]["loss"] > 0
    scored = saved_predictions(tmp_path / "run")
    assert len(scored) == len(rows)

    # Rows without labels get the predictions that the rows with labels got.
    new = tmp_path / "new.jsonl"
    new.write_text("".join(json.dumps({k: row[k] for k in result["text"]}) + "\n" for row in rows))
    answers = iwlora.predict(tmp_path / "run", new, tmp_path / "answers.csv")
    with answers.open(newline="", encoding="utf-8") as stream:
        assert [r["prediction"] for r in csv.DictReader(stream)] == [
            row["prediction"] for row in scored
        ]

    # The exported adapter and the merged model are the trained model.
    to = iwlora.export(tmp_path / "run", tmp_path / "adapter")
    merged = iwlora.export(tmp_path / "run", tmp_path / "merged", merge=True)
    trained, tokenizer = iwlora.load_trained(tmp_path / "run")
    auto = KINDS[result["kind"]["name"]]().auto_class(AutoConfig.from_pretrained(merged))
    build_kind = iwlora.build_recipe(settings(models[architecture], task)).task.build_kind
    base, _ = load_backbone(
        str(models[architecture]), result["labels"], build_kind(KINDS[result["kind"]["name"]]())
    )
    batch = tokenizer(["who sees a film ?"], ["it is a good film"], return_tensors="pt")
    expected = first_output(trained, batch)
    for other in (PeftModel.from_pretrained(base, to), auto.from_pretrained(merged)):
        torch.testing.assert_close(first_output(other, batch), expected, rtol=1e-4, atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(to)) == len(tokenizer)


@torch.no_grad()
def first_output(model: Any, batch: Any) -> torch.Tensor:
    inputs = dict(batch)
    if "ForConditionalGeneration" in str(model):
        inputs["decoder_input_ids"] = batch["input_ids"]
    output = model.eval()(**inputs)
    found: torch.Tensor = output["logits"] if "logits" in output else output["start_logits"]
    return found


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_is_measured(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    task, _ = write_task(tmp_path, kind)
    for architecture in ("llama",) if kind == "packed" else ("t5", "llama"):
        recipe = iwlora.build_recipe(settings(models[architecture], task, "iw-lora"))
        found = measure_recipe(recipe, max_batches=2)
        assert sum(value > 0 for value in found.values.values()) >= len(found.values) / 2


@pytest.mark.parametrize("kind", ["seq2seq", "instruction"])
def test_an_encoder_writes_no_text(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    task, _ = write_task(tmp_path, kind)
    with pytest.raises(iwlora.IwloraError, match="is an encoder and cannot generate text; use an"):
        iwlora.train(iwlora.build_recipe(settings(models["bert"], task)), tmp_path / "run")


def test_no_kind_is_left_out() -> None:
    assert set(KINDS) == set(TASKS) - {"chat", "packed"}
