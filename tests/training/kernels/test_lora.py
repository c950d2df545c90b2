"""LoRA layers in one pass give what PEFT gives: values and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from iwlora.training.kernels.lora import FusedLoraLinear, fused_lora
from passes import near, outcome, randomize, seeded

pytestmark = pytest.mark.quick
LAYER = LoraConfig(r=3, lora_alpha=7, target_modules=["0"])


def layer(config: LoraConfig = LAYER, dtype: torch.dtype = torch.float64, **shape: Any) -> Any:
    torch.manual_seed(0)
    linear = nn.Linear(shape.get("d_in", 6), shape.get("d_out", 5), bias=shape.get("bias", True))
    made = get_peft_model(nn.Sequential(linear), config)
    randomize(made)
    return made.to(dtype)


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    d_in=st.integers(3, 9),
    d_out=st.integers(3, 9),
    bias=st.booleans(),
)
def test_lora_in_one_pass_is_pefts(shape: list[int], d_in: int, d_out: int, bias: bool) -> None:
    model = layer(d_in=d_in, d_out=d_out, bias=bias)
    x = torch.randn(*shape, d_in, dtype=torch.float64)
    expected = outcome(model, x)
    with fused_lora(model):
        actual = outcome(model, x)
    assert near(actual, expected, 1e-12)
    assert len(actual) == 4


def test_what_follows_may_change_the_output_in_place() -> None:
    """As Longformer does, which divides its queries."""
    model = layer()

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x /= 3.0
            return x

    model.base_model.model.append(Scaled())
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = outcome(model, x)
    with fused_lora(model):
        assert near(outcome(model, x), expected, 1e-12)


def test_a_wrong_gradient_of_the_one_pass_would_be_seen() -> None:
    model = layer()
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = outcome(model, x)
    name = next(name for name in expected if "lora_B" in name)
    assert not near({**expected, name: expected[name] * (1 + 1e-9)}, expected, 1e-12)


def _hooked(model: Any) -> None:
    model.base_model.model[0].base_layer.register_forward_hook(lambda *_: None)


def _off(model: Any) -> None:
    model.disable_adapter_layers()


def _two(model: Any) -> None:
    model.add_adapter("second", LAYER)
    randomize(model)
    model.double()
    model.base_model.set_adapter(["default", "second"])


ELSEWHERE: Mapping[str, tuple[LoraConfig, Callable[[Any], object]]] = {
    "DoRA": (LoraConfig(r=3, target_modules=["0"], use_dora=True), lambda model: None),
    "a bias of B": (LoraConfig(r=3, target_modules=["0"], lora_bias=True), lambda model: None),
    "hooks": (LAYER, _hooked),
    "adapters off": (LAYER, _off),
    "two adapters": (LAYER, _two),
    "merged": (LAYER, lambda model: model.merge_adapter()),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_is_not_plain_goes_pefts_way(case: str) -> None:
    config, change = ELSEWHERE[case]
    model = layer(config)
    change(model)
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = outcome(model, x)
    with fused_lora(model):
        assert not model.base_model.model[0]._is_plain()
        assert near(outcome(model, x), expected, 1e-12)


def test_dropout_of_the_adapter_goes_pefts_way() -> None:
    model = layer(LoraConfig(r=3, target_modules=["0"], lora_dropout=0.5)).train()
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = seeded(0, model, x)
    with fused_lora(model):
        assert torch.equal(seeded(0, model, x), expected)


def test_layers_are_as_they_were_afterwards_and_copies_stay_apart() -> None:
    model = layer()
    lora = model.base_model.model[0]
    before = type(lora)
    with fused_lora(model):
        assert type(lora) is FusedLoraLinear
        twin = copy.deepcopy(model)
        assert twin.base_model.model[0].base_layer is not lora.base_layer
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), fused_lora(model):
        model(torch.randn(4, 5, dtype=torch.float64))
    assert type(lora) is before


def test_under_autocast_the_one_pass_is_near_single_precision() -> None:
    model = layer(dtype=torch.float32, d_in=64, d_out=64)
    x = torch.randn(8, 64)
    expected = outcome(model, x)
    with fused_lora(model), torch.autocast("cpu", torch.bfloat16):
        actual = outcome(model, x)
    assert actual["y"].dtype == torch.bfloat16
    assert {g.dtype for name, g in actual.items() if name != "y"} == {torch.float32}
    for name, value in expected.items():
        assert (actual[name].float() - value).norm() < 0.02 * value.norm(), name
