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
from iwlora.tasks import load
from iwlora.tasks.kinds import KINDS
from iwlora.training.measure_recipe import measure_recipe
from iwlora.training.model.backbone import load_backbone
from kinds import DECODERS, ENCODERS, WRITERS, save_model
from tiny_tasks import TASKS, TEXTS, write_task

ALL = (*ENCODERS, *WRITERS)
# The whole pass. Kinds that share a head or an encoding need an encoder, an encoder-decoder and a
# decoder; on the other architectures one step is enough, see below.
WHOLE_PASS = {
    "classification": ALL,
    "multi-label": ("roberta", "t5"),
    "regression": ("electra", "llama"),
    "token-labels": ("bert", "deberta-v2", "t5", "gpt2"),
    "question-answering": ("bert", "t5", "gpt2", "llama"),
    "seq2seq": WRITERS,
    "instruction": ("bart", "gpt2"),
    "chat": ("t5", "llama"),
    "packed": DECODERS,
    "language-modeling": ("gpt2",),
}
OF_DECODERS = ("packed", "language-modeling")
STEP = {
    kind: DECODERS if kind in OF_DECODERS else WRITERS if kind in TEXTS else ALL for kind in TASKS
}


def pairs(architectures: dict[str, tuple[str, ...]]) -> list[Any]:
    return [
        pytest.param(kind, name, id=f"{kind}-{name}")
        for kind, names in architectures.items()
        for name in names
        if (kind, name) != ("token-labels", "bart")  # transformers has no such model
    ]


def recipe(model: Path, task: dict[str, Any], method: str = "lora") -> Any:
    train = {"epochs": 1, "lr": 1e-2, "batch_size": 6, "accumulate": 2, "max_length": 32}
    return iwlora.build_recipe(
        {
            "model": str(model),
            "task": task,
            "method": {"name": method, "rank": 2},
            "train": {**train, "precision": "fp32"},
        }
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    return {name: save_model(folder / name, name) for name in ALL}


def saved_predictions(file: Path, name: str) -> list[str]:
    with file.open(newline="", encoding="utf-8") as stream:
        return [row[name] for row in csv.DictReader(stream)]


@pytest.mark.parametrize(("kind", "architecture"), pairs(WHOLE_PASS))
def test_train_evaluate_predict_export(
    kind: str, architecture: str, models: dict[str, Path], tmp_path: Path
) -> None:
    task, rows = write_task(tmp_path, kind)
    if kind == "regression" and architecture in DECODERS:  # whose head cannot hold a mean
        task["kind"]["standardize"] = False
    trained_recipe = recipe(models[architecture], task)
    result = iwlora.train(trained_recipe, tmp_path / "run")
    assert result["primary_metric"] == next(iter(result["metrics"]))
    assert all(isinstance(value, float) for value in result["metrics"].values())
    assert result["metrics"]["loss"] > 0
    column = "perplexity" if kind == "language-modeling" else "prediction"
    scored = saved_predictions(tmp_path / "run" / "predictions" / "validation.csv", column)
    assert len(scored) == len(rows)

    # Rows without labels get the predictions that the rows with labels got.
    new = tmp_path / "new.jsonl"
    new.write_text("".join(json.dumps({k: row[k] for k in result["text"]}) + "\n" for row in rows))
    predicted = iwlora.predict(tmp_path / "run", new, tmp_path / "predicted.csv")
    again = saved_predictions(predicted, column)
    # Of a regression the saved head is in the units of the targets, the trained one not.
    if kind in ("regression", "language-modeling"):
        assert list(map(float, again)) == pytest.approx(list(map(float, scored)), rel=1e-5)
    else:
        assert again == scored

    # The exported adapter and the merged model are the trained model.
    adapter = iwlora.export(tmp_path / "run", tmp_path / "adapter")
    merged = iwlora.export(tmp_path / "run", tmp_path / "merged", merge=True)
    trained, tokenizer = iwlora.load_trained(tmp_path / "run")
    options = trained_recipe.task.build_kind(KINDS[result["kind"]["name"]]())
    auto_class = options.auto_class(AutoConfig.from_pretrained(merged))
    base, _ = load_backbone(str(models[architecture]), result["labels"], options)
    batch = tokenizer(["who sees a film ?"], ["it is a good film"], return_tensors="pt")
    expected = first_output(trained, batch)
    for other in (PeftModel.from_pretrained(base, adapter), auto_class.from_pretrained(merged)):
        torch.testing.assert_close(first_output(other, batch), expected, rtol=1e-4, atol=1e-5)
    assert len(AutoTokenizer.from_pretrained(adapter)) == len(tokenizer)


@torch.no_grad()
def first_output(model: Any, batch: Any) -> torch.Tensor:
    inputs = dict(batch)
    if "ForConditionalGeneration" in str(model):
        inputs["decoder_input_ids"] = batch["input_ids"]
    output = model.eval()(**inputs)
    logits: torch.Tensor = output["logits"] if "logits" in output else output["start_logits"]
    return logits


@pytest.mark.parametrize(("kind", "architecture"), pairs(STEP))
def test_one_step(kind: str, architecture: str, models: dict[str, Path], tmp_path: Path) -> None:
    """The head loads, and the loss of a batch is finite and has a gradient in every layer."""
    task = load(recipe(models[architecture], write_task(tmp_path, kind)[0]).task, seed=0)
    model, tokenizer = load_backbone(str(models[architecture]), task.labels, task.kind)
    rows = task.encode(tokenizer, 32, model.config)["train"]
    batch = task.kind.collator(tokenizer, model)([rows[k] for k in range(min(4, len(rows)))])
    loss = task.kind.batch_loss(model, batch)
    loss.backward()
    assert torch.isfinite(loss)
    blocks = [p for name, p in model.named_parameters() if ".0." in name and p.ndim == 2]
    assert blocks
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in blocks)


MEASURED = [
    *[(kind, "llama") for kind in ("classification", "regression", "seq2seq", "chat", "packed")],
    ("language-modeling", "llama"),
    *[(kind, "t5") for kind in ("multi-label", "token-labels", "seq2seq", "instruction")],
    ("question-answering", "llama"),
]


@pytest.mark.parametrize(("kind", "architecture"), MEASURED)
def test_every_kind_is_measured(
    kind: str, architecture: str, models: dict[str, Path], tmp_path: Path
) -> None:
    measured = recipe(models[architecture], write_task(tmp_path, kind)[0], "iw-lora")
    values = measure_recipe(measured, max_batches=2).values
    assert sum(value > 0 for value in values.values()) >= len(values) / 2


@pytest.mark.quick
@pytest.mark.parametrize("kind", ["seq2seq", "instruction"])
def test_an_encoder_generates_no_text(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    task, _ = write_task(tmp_path, kind)
    with pytest.raises(iwlora.IwloraError, match="is an encoder and cannot generate text; use an"):
        iwlora.train(recipe(models["bert"], task), tmp_path / "run")


def test_no_kind_is_left_out() -> None:
    of_texts = {name for name, kind in KINDS.items() if not kind().reads_images}
    assert of_texts == set(TASKS) - {"chat", "packed"}
    assert set(WHOLE_PASS) == set(TASKS) == {kind for kind, _ in MEASURED}
