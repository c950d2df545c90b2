"""Which kernels a model gets, what a run with them gives, and versions that no longer fit them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import layer as peft_layers
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.deberta_v2 import modeling_deberta_v2

from iwlora.methods.tiny_models import tiny_model
from iwlora.training import kernels
from iwlora.training.kernels import fast_kernels
from iwlora.training.run import train
from runs import recipe, weights

_KERNELS = ("cpu", "deberta", "lora")


@pytest.mark.parametrize("method", ["lora", "adalora", "full"])
def test_a_run_takes_the_same_path_with_and_without(
    method: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    for fast in (True, False):
        train(recipe(tiny_bert, reviews, method, epochs=1, fast_kernels=fast), tmp_path / str(fast))
    fast, plain = (weights(tmp_path / name) for name in ("True", "False"))
    assert fast.keys() == plain.keys()
    assert max(float((fast[name] - plain[name]).abs().max()) for name in plain) < 1e-4


@pytest.fixture
def fresh_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that are imported again, and warn again, in this test."""
    kernels.warn_once.cache_clear()
    for name in _KERNELS:
        monkeypatch.delitem(sys.modules, f"iwlora.training.kernels.{name}", raising=False)
        monkeypatch.delattr(kernels, name, raising=False)
    yield
    kernels.warn_once.cache_clear()


def with_lora(architecture: str = "bert") -> tuple[nn.Module, dict[str, Tensor]]:
    """A tiny model with LoRA on its queries, and a batch for it."""
    names = ["query"] if architecture == "bert" else ["query_proj"]
    model = get_peft_model(tiny_model(architecture), LoraConfig(target_modules=names))
    return model.eval(), {"input_ids": torch.tensor([[1, 2, 3, 4]])}


def imported() -> set[str]:
    return {name for name in _KERNELS if f"iwlora.training.kernels.{name}" in sys.modules}


@pytest.mark.quick
@pytest.mark.usefixtures("fresh_kernels")
def test_only_kernels_that_a_model_can_use_are_imported() -> None:
    with fast_kernels(tiny_model("bert"), False):
        assert imported() == set()
    with fast_kernels(tiny_model("bert").to("meta"), True):
        assert imported() == set()
    with fast_kernels(tiny_model("bert"), True):
        assert imported() == {"cpu"}
    model, _ = with_lora("deberta-v2")
    with fast_kernels(model.to("meta"), True):
        assert imported() == {"cpu", "lora", "deberta"}


def lora_layer_is_gone(patch: pytest.MonkeyPatch, model: nn.Module) -> None:
    patch.delattr(peft_layers, "Linear")


def lora_forward_has_another_signature(patch: pytest.MonkeyPatch, model: nn.Module) -> None:
    forward = peft_layers.Linear.forward

    def other(self: Any, hidden: Tensor, mask: Tensor | None = None) -> Any:
        return forward(self, hidden)

    patch.setattr(peft_layers.Linear, "forward", other)


def lora_layers_lack_an_attribute(patch: pytest.MonkeyPatch, model: nn.Module) -> None:
    for layer in (m for m in model.modules() if isinstance(m, peft_layers.Linear)):
        patch.delattr(layer, "lora_variant")


def deberta_attention_is_gone(patch: pytest.MonkeyPatch, model: nn.Module) -> None:
    patch.delattr(modeling_deberta_v2, "DisentangledSelfAttention")


def deberta_bias_has_another_signature(patch: pytest.MonkeyPatch, model: nn.Module) -> None:
    attention = modeling_deberta_v2.DisentangledSelfAttention
    bias = attention.disentangled_attention_bias

    def other(self: Any, query_layer: Any, key_layer: Any, *others: Any) -> Any:
        return bias(self, query_layer, key_layer, *others)

    patch.setattr(attention, "disentangled_attention_bias", other)


MISMATCHES = {
    "PEFT without its LoRA layer": ("bert", "lora", lora_layer_is_gone),
    "PEFT with another forward": ("bert", "lora", lora_forward_has_another_signature),
    "PEFT without an attribute": ("bert", "lora", lora_layers_lack_an_attribute),
    "transformers without DeBERTa's": ("deberta-v2", "deberta", deberta_attention_is_gone),
    "transformers with another bias": ("deberta-v2", "deberta", deberta_bias_has_another_signature),
}


@pytest.mark.quick
@pytest.mark.usefixtures("fresh_kernels")
@pytest.mark.parametrize("case", MISMATCHES)
def test_a_version_that_does_not_fit_is_one_warning_and_the_ordinary_path(
    case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    architecture, kernel, change = MISMATCHES[case]
    model, batch = with_lora(architecture)
    with torch.no_grad():
        expected = model(**batch).logits
        change(monkeypatch, model)
        for _ in range(2):
            with fast_kernels(model, True):
                files = {type(module).__module__ for module in model.modules()}
                assert f"iwlora.training.kernels.{kernel}" not in files
                if "attribute" not in case:  # PEFT itself needs the attribute
                    torch.testing.assert_close(model(**batch).logits, expected)
    (warning,) = [record.message for record in caplog.records if "fast kernel" in record.message]
    assert f"fast kernel {kernel} does not fit" in warning
    assert "ordinary path" in warning


@pytest.mark.quick
def test_calls_with_arguments_that_the_cpu_kernel_does_not_know_go_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a newer torch would have."""
    from iwlora.training.kernels import cpu

    calls: list[dict[str, Any]] = []

    def dropout(x: Tensor, p: float = 0.5, **kwargs: Any) -> Tensor:
        calls.append(kwargs)
        return x

    assert cpu._ARGUMENTS[functional.dropout] == {"input", "p", "training", "inplace"}
    mode = cpu.FastCpuFunctions()
    monkeypatch.setitem(cpu._REPLACEMENTS, dropout, lambda *args, **kwargs: pytest.fail("taken"))
    monkeypatch.setitem(cpu._ARGUMENTS, dropout, cpu._ARGUMENTS[functional.dropout])
    mode.__torch_function__(dropout, (), (torch.ones(2),), {"p": 0.1, "generator": None})
    assert calls == [{"generator": None}]
