"""Frozen weights are cast once, give what autocast gives, and a changed weight is cast again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from iwlora.training.kernels import fast_kernels
from iwlora.training.kernels.casts import cast, casts_kept

pytestmark = pytest.mark.quick


class _Casts(TorchDispatchMode):
    """Counts, by their shape, the tensors that are cast to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.shapes[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).requires_grad_(False)
    model[2].requires_grad_(True)
    return model


def _pass(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of its sum by the input."""
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    y.float().sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("kept", [True, False])
def test_only_frozen_weights_are_cast_once_for_many_passes(kept: bool) -> None:
    model, x = _model(), torch.randn(5, 4)
    with fast_kernels(model, kept), _Casts() as casts:
        for _ in range(3):
            _pass(model, x)
    assert casts.shapes[6, 4] == (1 if kept else 3)
    assert casts.shapes[3, 6] == 3  # it trains: each step has another one


def test_outputs_and_gradients_are_those_of_autocast_to_the_bit() -> None:
    model, x = _model(), torch.randn(5, 4)
    expected = _pass(model, x)
    with fast_kernels(model, True):
        for _ in range(2):
            assert all(map(torch.equal, _pass(model, x), expected))


def test_a_weight_that_was_changed_or_replaced_is_cast_again() -> None:
    model, x = _model(), torch.randn(5, 4)
    weight = model[0].weight
    with fast_kernels(model, True):
        before, _ = _pass(model, x)
        weight.mul_(2)
        changed, _ = _pass(model, x)
        weight.data = weight.data / 2
        replaced, _ = _pass(model, x)
    assert not torch.equal(changed, before)
    assert torch.equal(replaced, before)


def test_casts_end_with_the_block_and_with_the_weight() -> None:
    weight = nn.Parameter(torch.ones(2), requires_grad=False)
    with casts_kept(nn.Module()):
        first = cast(weight, torch.bfloat16)
        assert cast(weight, torch.bfloat16) is first
        assert cast(weight, torch.float16).dtype == torch.float16
    assert cast(weight, torch.bfloat16) is not first


def test_no_cast_is_kept_with_gradient_checkpointing() -> None:
    """There the casts of all blocks are never needed at once, and memory is what is short."""
    model = _model()
    model.is_gradient_checkpointing = True  # type: ignore[assignment]
    weight = model[0].weight
    with fast_kernels(model, True):
        assert cast(weight, torch.bfloat16) is not cast(weight, torch.bfloat16)
