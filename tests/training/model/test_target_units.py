"""Heads of regression that return targets in their units, and those that cannot."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import PeftModel

import iwlora
from conftest import tiny_config
from iwlora.methods import METHODS
from iwlora.results import layout
from iwlora.sites import sites as find_sites
from iwlora.tasks.kinds.target_scale import TargetScale
from iwlora.training.model.target_units import (
    head_in_target_units,
    scale_for_head,
    undo_target_units,
)
from runs import as_foreign

SCALE = TargetScale(mean=2005.0, sd=7.5)
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ALONE: dict[str, Any] = {
    "distilbert": {"vocab_size": 50, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    "albert": {**SMALL, "intermediate_size": 16, "embedding_size": 8},
    "xlnet": {"vocab_size": 50, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16},
}


def model_of(name: str) -> Any:
    config = hf.AutoConfig.for_model(name, **ALONE[name]) if name in ALONE else tiny_config(name)
    config.num_labels, config.pad_token_id = 1, 0
    torch.manual_seed(0)
    return hf.AutoModelForSequenceClassification.from_config(config).eval()


@torch.no_grad()
def answers(model: Any) -> torch.Tensor:
    end = model.config.eos_token_id or 3
    tokens = torch.tensor([[5, 6, 7, end], [8, 9, 5, end]])
    logits: torch.Tensor = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return logits.double()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        *((name, True) for name in ("bert", "roberta", "bart")),
        *((name, False) for name in ("deberta-v2", "t5", *ALONE)),
    ],
)
def test_the_head_answers_in_units(name: str, wrapped: bool) -> None:
    model = model_of(name)
    if wrapped:
        model = METHODS["lora"](rank=2).attach(model, find_sites(model), seed=0).model.eval()
    scale = scale_for_head(SCALE, model)
    assert scale.not_in_head is None
    before, state = answers(model), {k: v.clone() for k, v in model.state_dict().items()}
    with head_in_target_units(model, scale):
        torch.testing.assert_close(
            answers(model), SCALE.mean + SCALE.sd * before, atol=1e-3, rtol=0
        )
        saved = {k: v.clone() for k, v in model.state_dict().items()}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), "restored"
    model.load_state_dict(saved)
    undo_target_units(model, scale)
    torch.testing.assert_close(answers(model), before, atol=1e-4, rtol=0)


@pytest.mark.quick
def test_heads_that_cannot() -> None:
    for name in ("llama", "gpt2"):
        reason = scale_for_head(SCALE, model_of(name)).not_in_head
        assert reason is not None
        assert "ForSequenceClassification has no bias that could hold their mean" in reason
    centered = TargetScale(mean=0.0, sd=2.0)
    assert scale_for_head(centered, model_of("llama")).not_in_head is None
    bert = model_of("bert")
    assert "float32" in str(scale_for_head(TargetScale(mean=1e9, sd=1.0), bert).not_in_head)
    assert scale_for_head(TargetScale(mean=1e9, sd=1e6), bert).not_in_head is None
    assert "2 layers" in str(scale_for_head(SCALE, _TwoOutputs()).not_in_head)


class _TwoOutputs(torch.nn.Module):
    base_model_prefix = "body"

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate, self.score = (torch.nn.Linear(4, 1) for _ in range(3))


# --- whole runs ---


def years(folder: Path, offset: float = 2000.0, unit: float = 10.0) -> dict[str, Any]:
    """Texts whose adjective says the target: years, or whatever offset and unit make of them."""
    lines = ["text,year"]
    for i in range(32):
        word, animal = ("good", "bad")[i % 2], ("dog", "cat", "man")[i % 3]
        lines.append(f"the {animal} sees a {word} film,{offset + unit * (i % 2) + 0.1 * (i % 5)}")
    for name in ("train", "validation"):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation")}
    return {**files, "text": "text", "label": "year", "kind": {"name": "regression"}}


def run_recipe(model: Path, task: dict[str, Any], **method: Any) -> Any:
    train = {"epochs": 4, "lr": 1e-2, "batch_size": 16, "max_length": 32, "precision": "fp32"}
    method = {"name": "lora", "rank": 2, **method}
    return iwlora.build_recipe(
        {"model": str(model), "task": task, "method": method, "train": train}
    )


def predictions(path: Path) -> list[float]:
    with path.open(newline="", encoding="utf-8") as stream:
        return [float(row["prediction"]) for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def finished(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("years")
    iwlora.train(run_recipe(tiny_bert, years(folder)), folder / "run")
    return folder


@pytest.mark.quick
def test_a_run_learns_targets_with_a_large_offset(finished: Path) -> None:
    """Raw targets collapse: after 8 steps the predictions are near 0, 2005 away from them."""
    result = json.loads((finished / "run" / layout.RESULT).read_text())
    assert result["metrics"]["rmse"] < 6
    assert result["metrics"]["loss"] == pytest.approx(result["metrics"]["rmse"] ** 2)
    assert result["metrics"]["pearson"] > 0.2
    scored = predictions(finished / "run" / "predictions" / "validation.csv")
    assert min(scored) > 1990
    new = iwlora.predict(finished / "run", finished / "train.csv", finished / "new.csv")
    assert predictions(new) == pytest.approx(scored, rel=1e-6)


def test_every_exported_form_answers_in_units(finished: Path, tiny_bert: Path) -> None:
    run = finished / "run"
    adapter = iwlora.export(run, finished / "adapter")
    merged = iwlora.export(run, finished / "merged", merge=True)
    trained, tokenizer = iwlora.load_trained(run)
    auto = hf.AutoModelForSequenceClassification
    plain = auto.from_pretrained(merged)
    loaded = [trained, plain, iwlora.load_trained(run, merge=True)[0]]
    for folder in (adapter, run / layout.ADAPTER):
        base = auto.from_pretrained(tiny_bert, num_labels=1)
        loaded.append(PeftModel.from_pretrained(base, folder))
    text = ["the dog sees a good film", "the cat sees a bad film"]
    batch = tokenizer(text, return_tensors="pt")
    scored = predictions(run / "predictions" / "validation.csv")
    for model in loaded:
        with torch.no_grad():
            logits = model.eval()(**batch).logits[:, 0].tolist()
        assert logits == pytest.approx([scored[0], scored[1]], abs=5e-3)


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_other_methods(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    recipe = run_recipe(tiny_bert, years(tmp_path), rank=2)
    settings = {**recipe.settings(), "method": {"name": method}}
    settings["train"]["epochs"] = 1
    result = iwlora.train(iwlora.build_recipe(settings), tmp_path / "run")
    assert result["metrics"]["rmse"] < 20
    model, tokenizer = iwlora.load_trained(tmp_path / "run")
    batch = tokenizer(["the dog sees a good film"], return_tensors="pt")
    scored = predictions(tmp_path / "run" / "predictions" / "validation.csv")
    with torch.no_grad():
        assert model(**batch).logits.item() == pytest.approx(scored[0], abs=5e-3)


def test_what_cannot_be_exported_is_predicted(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = years(tmp_path, offset=1.0)
    task["kind"] |= {"transform": "log", "loss_function": "huber"}
    result = iwlora.train(run_recipe(tiny_bert, task), tmp_path / "run")
    reason = "task.kind.transform=log is not linear"
    assert reason in result["notes"][-1]
    scored = predictions(tmp_path / "run" / "predictions" / "validation.csv")
    new = iwlora.predict(tmp_path / "run", task["train"], tmp_path / "new.csv")
    assert predictions(new) == scored
    assert 0 < min(scored) < max(scored) < 12
    for merge in (False, True):
        with pytest.raises(iwlora.IwloraError, match=f"cannot be exported.*{reason}"):
            iwlora.export(tmp_path / "run", tmp_path / "exported", merge=merge)
    assert "another scale" not in caplog.text
    iwlora.load_trained(tmp_path / "run")
    assert "returns its targets on another scale" in caplog.text


def test_a_result_without_a_scale_predicts_as_it_did(finished: Path, tmp_path: Path) -> None:
    """Of a version that learned the targets as they are."""
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    as_foreign(run, kind={"name": "regression"})
    new = iwlora.predict(run, finished / "train.csv", tmp_path / "new.csv")
    scored = predictions(run / "predictions" / "validation.csv")
    assert predictions(new) == pytest.approx(scored, rel=1e-5), "the saved head is in units"
