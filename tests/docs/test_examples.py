"""The worked examples run, by every route, count a step once and leave plain LoRA adapters."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import iwlora

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"with_lightning": "lightning"}

pytestmark = [
    pytest.mark.usefixtures("needs_minilm"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:the penalty d"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example by name, with few rows."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("data", *(path.stem for path in EXAMPLES.glob("*.py"))):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def imported(name: str) -> Any:
        pytest.importorskip(NEEDS.get(name, "torch"))
        module = importlib.import_module(name)
        load = module.load
        monkeypatch.setattr(module, "load", lambda: load(32))
        return module

    return imported


@pytest.mark.parametrize("route", ["loss", "gradient", "decoupled"])
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "data")
)
def test_it_runs_and_its_adapter_loads(
    name: str, route: str, examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    added: list[int] = []
    original = iwlora.Penalty._act

    def counted(self: Any, *args: Any) -> None:
        added.append(self.step)
        original(self, *args)

    monkeypatch.setattr(iwlora.Penalty, "_act", counted)
    module = examples(name)
    module.main(str(tmp_path), route=route, steps=2, micro_batches=2)
    assert added == [0, 1]
    base, _ = sys.modules["data"].load(4)
    adapter = PeftModel.from_pretrained(base, str(tmp_path))
    moved = [p for n, p in adapter.named_parameters() if "lora_B" in n]
    assert all(float(p.abs().max()) > 0 for p in moved)


@pytest.mark.parametrize("route", ["gradient", "decoupled"])
@pytest.mark.parametrize("name", ["plain_pytorch", "with_accelerate", "with_lightning"])
def test_the_penalty_shows(
    name: str, route: str, examples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strong penalty keeps the updates small, so it was neither cleared nor lost."""
    module, strength = examples(name), [0.0]
    sizes = {}
    original = iwlora.Penalty.__init__

    def strong(self: Any, model: Any, coefficients: Any, alpha: float) -> None:
        original(self, model, coefficients, strength[0])
        sizes[strength[0]] = self

    monkeypatch.setattr(iwlora.Penalty, "__init__", strong)
    for strength[0] in (0.0, 200.0):
        module.main(str(tmp_path), route=route, steps=3, micro_batches=1)
    found = {alpha: sum(penalty.norms().values()) for alpha, penalty in sizes.items()}
    assert found[200.0] < 0.9 * found[0.0]
    assert all(torch.isfinite(pair.A).all() for penalty in sizes.values() for pair in penalty.pairs)
