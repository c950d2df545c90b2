"""The examples run with every route, apply the penalty once per step and save plain adapters."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

import iwlora

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"with_lightning": "lightning"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:the penalty (had no effect|dominates)"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def tiny_load(folder: Path) -> Any:
    """What the examples load, with a tiny model and few rows."""
    rows = {"input_ids": torch.arange(5, 5 + 32 * 6).view(32, 6) % 40 + 5}
    rows["attention_mask"] = torch.ones_like(rows["input_ids"])
    rows["labels"] = torch.arange(32) % 2
    return AutoModelForSequenceClassification.from_pretrained(folder), rows


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path) -> Any:
    """Imports an example by name, with a tiny model."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("data", *(path.stem for path in EXAMPLES.glob("*.py"))):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def imported(name: str) -> Any:
        pytest.importorskip(NEEDS.get(name, "torch"))
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "load", lambda: tiny_load(tiny_bert))
        return module

    return imported


@pytest.mark.parametrize("route", ["loss", "gradient", "decoupled"])
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "data")
)
def test_an_example_applies_the_penalty_once_per_step_and_saves_an_adapter(
    name: str,
    route: str,
    examples: Any,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    original = iwlora.Penalty._apply

    def record(self: Any, *args: Any) -> None:
        steps.append(self.step)
        original(self, *args)

    monkeypatch.setattr(iwlora.Penalty, "_apply", record)
    # In flight, these two steps would only be measured.
    before = partial(iwlora.IWLoraCallback, measure="before")
    monkeypatch.setattr(iwlora, "IWLoraCallback", before)
    examples(name).main(str(tmp_path), route=route, steps=2, micro_batches=2)
    assert steps == [0, 1]
    adapter = PeftModel.from_pretrained(tiny_load(tiny_bert)[0], str(tmp_path))
    trained = [p for n, p in adapter.named_parameters() if "lora_B" in n]
    assert all(float(p.abs().max()) > 0 for p in trained)


@pytest.mark.usefixtures("needs_minilm")
def test_an_example_runs_with_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("data", "plain_pytorch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("plain_pytorch")
    load = module.load
    monkeypatch.setattr(module, "load", lambda: load(32))
    module.main(str(tmp_path), steps=1, micro_batches=1)
    assert (tmp_path / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("route", ["gradient", "decoupled"])
@pytest.mark.parametrize("name", ["plain_pytorch", "with_accelerate", "with_lightning"])
def test_a_strong_penalty_keeps_updates_small(
    name: str, route: str, examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, strength = examples(name), [0.0]
    sizes = {}
    original = iwlora.Penalty.__init__

    def strong(self: Any, model: Any, coefficients: Any, alpha: float) -> None:
        original(self, model, coefficients, strength[0])
        sizes[strength[0]] = self

    monkeypatch.setattr(iwlora.Penalty, "__init__", strong)
    for strength[0] in (0.0, 200.0):
        module.main(str(tmp_path), route=route, steps=3, micro_batches=1)
    norms = {alpha: sum(penalty.norms().values()) for alpha, penalty in sizes.items()}
    assert norms[200.0] < 0.9 * norms[0.0]
    assert all(torch.isfinite(pair.A).all() for penalty in sizes.values() for pair in penalty.pairs)
