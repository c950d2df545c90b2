"""The public names together, as a user's script has them: the fast tier's look at each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

import iwlora
from commands import run_settings
from iwlora.methods.tiny_models import tiny_model

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def run(tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public") / "run"
    iwlora.train(iwlora.build_recipe(run_settings(tiny_bert, reviews)), folder)
    return folder


@pytest.mark.parametrize("name", iwlora.__all__)
def test_it_is_there_and_documented(name: str) -> None:
    assert getattr(iwlora, name).__doc__


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'measur'"):
        iwlora.__getattr__("measur")


def test_from_a_measurement_to_a_penalty(tmp_path: Path) -> None:
    model = tiny_model("bert")
    batch = {"input_ids": torch.arange(12).reshape(2, 6), "labels": torch.tensor([0, 1])}
    iwlora.measure(model, [batch] * 3, max_batches=3).save(tmp_path / "importance.json")
    importance = iwlora.Importance(iwlora.Sensitivity.load(tmp_path / "importance.json"))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query"]))
    query = [name for name in importance.weights if name.endswith("query")]
    coefficients = {name: importance.coefficients()[name] for name in query}
    penalty = iwlora.Penalty(adapted, coefficients, alpha=1.0)
    assert penalty() == 0
    with torch.no_grad():
        for name in query:
            layer = adapted.get_submodule(f"base_model.model.{name}")
            layer.lora_B["default"].weight.fill_(1.0)
    change = {
        name: adapted.get_submodule(f"base_model.model.{name}").get_delta_weight("default")
        for name in query
    }
    expected = sum(coefficients[name] * change[name].square().sum() for name in query)
    torch.testing.assert_close(penalty(), expected)


def test_from_a_run_to_predictions_elsewhere(
    run: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    adapter, merged = iwlora.export(run, tmp_path / "a"), iwlora.export(run, tmp_path / "m", True)
    model, tokenizer = iwlora.load_trained(run)
    inputs = tokenizer(["it is a good film", "it is a bad film"], return_tensors="pt")
    base = iwlora.load_recipe(run / "recipe.yaml").model
    models = {
        "merged": AutoModelForSequenceClassification.from_pretrained(merged),
        "PEFT": PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(base, num_labels=2), adapter
        ),
        "load_adapter": iwlora.load_adapter(
            AutoModelForSequenceClassification.from_pretrained(base, num_labels=2), adapter
        ),
    }
    with torch.no_grad():
        logits = model(**inputs).logits
        for name, loaded in models.items():
            torch.testing.assert_close(
                loaded.eval()(**inputs).logits, logits, rtol=1e-4, atol=1e-5, msg=name
            )
    written = iwlora.predict(run, reviews["validation"], tmp_path / "predictions.csv")
    assert len(Path(written).read_text().splitlines()) == 33
