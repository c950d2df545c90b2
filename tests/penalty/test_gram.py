"""The closed form against autograd on the dense product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from iwlora.penalty.gram import (
    LowRankPair,
    gradients,
    penalty,
    penalty_gradients,
    squared_norms,
)
from lora_models import dense, pairs_of

pytestmark = pytest.mark.quick

shape = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))  # r, d_in, d_out


@settings(max_examples=60, deadline=None)
@given(shapes=st.lists(shape, min_size=1, max_size=6), seed=st.integers(0, 10**6))
def test_value_and_gradient_equal_autograd_on_the_dense_product(
    shapes: list[tuple[int, int, int]], seed: int
) -> None:
    shapes = shapes + shapes[:2]  # some shapes occur more than once and are stacked
    pairs = pairs_of(shapes, seed, torch.float64)
    coefficients = [0.1 * (i + 1) for i in range(len(pairs))]
    parameters = [factor for pair in pairs for factor in (pair.A, pair.B)]

    expected = dense(pairs, coefficients)
    expected_gradients = torch.autograd.grad(3.0 * expected, parameters)
    value = penalty(pairs, coefficients)
    computed = torch.autograd.grad(3.0 * value, parameters)
    direct = [g for pair in penalty_gradients(pairs, coefficients) for g in pair]

    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, closed, truth in zip(computed, direct, expected_gradients, strict=True):
        scale = max(float(truth.abs().max()), 1e-12)
        assert float((ours - truth).abs().max()) <= 1e-12 * scale
        assert float((3.0 * closed - truth).abs().max()) <= 1e-12 * scale


def test_the_comparison_sees_a_wrong_gradient() -> None:
    pair = pairs_of([(2, 3, 4)], 0, torch.float64)[0]
    truth = torch.autograd.grad((pair.B @ pair.A).norm() ** 2, (pair.A, pair.B))
    halved = [g / 2 for g in gradients(pair.A.detach(), pair.B.detach())]
    assert not torch.allclose(halved[0], truth[0])
    assert not torch.allclose(halved[1], truth[1])


def test_leading_dimensions_are_batches() -> None:
    A, B = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 2, 6, 4).double()
    expected = (B @ A).flatten(-2).norm(dim=-1) ** 2
    assert squared_norms(A, B) == pytest.approx(expected)
    stacked = penalty([LowRankPair("w", A, B, 2.0)], [0.5])
    assert float(stacked) == pytest.approx(float(0.5 * 4.0 * expected.sum()))


def test_low_precision_parameters_are_accumulated_in_float32() -> None:
    pairs = pairs_of([(8, 64, 64)], 0, torch.bfloat16)
    value = penalty(pairs, [1.0])
    wide = [LowRankPair(p.name, p.A.double(), p.B.double(), p.scaling) for p in pairs]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(dense(wide, [1.0]).item(), rel=1e-5)
    value.backward()
    assert pairs[0].A.grad is not None
    assert pairs[0].A.grad.dtype == torch.bfloat16


def test_autocast_does_not_reach_the_gram_matrices() -> None:
    pairs = pairs_of([(8, 64, 64)], 0, torch.float32)
    expected = penalty(pairs, [1.0])
    with torch.autocast("cpu", torch.bfloat16):
        value = penalty(pairs, [1.0])
    value.backward()
    assert value.item() == expected.item()


class Count(TorchDispatchMode):
    """Counts what PyTorch dispatches, views apart."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels += not func.is_view
        return func(*args, **(kwargs or {}))


def test_kernels_do_not_grow_with_depth() -> None:
    def kernels(depth: int) -> list[int]:
        pairs = pairs_of([(2, 3, 4), (2, 4, 3)] * depth, 0, torch.float32)
        factors = [factor for pair in pairs for factor in (pair.A, pair.B)]
        with Count() as term:
            torch.autograd.grad(penalty(pairs, [1.0] * len(pairs)), factors)
        with Count() as direct:
            penalty_gradients(pairs, [1.0] * len(pairs))
        with Count() as products:
            dense(pairs, [1.0] * len(pairs))
        return [term.kernels, direct.kernels, products.kernels]

    *ours, one_by_one = kernels(1)
    *ours_deep, one_by_one_deep = kernels(24)
    assert ours == ours_deep
    assert one_by_one_deep > 20 * one_by_one
