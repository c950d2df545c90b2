"""Faster functions on a CPU give what torch gives: values, gradients, the dropped fraction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from iwlora.training.kernels import cpu
from iwlora.training.kernels.cpu import FastCpuFunctions, keep_mask
from passes import near, outcome, randomize, seeded

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_and_each_on_its_own(p: float) -> None:
    torch.manual_seed(0)
    count = 400_000
    mask, kept = keep_mask((count,), p)
    assert kept == pytest.approx(1 - p, abs=2**-15)
    ones = (mask == -1).double()
    assert set(mask.tolist()) == {-1, 0}
    deviation = math.sqrt(p * (1 - p) / count)
    assert abs(float(ones.mean()) - kept) < 5 * deviation
    # Neighbors share a random number of 64 bits: they must not share its luck.
    centered = ones - ones.mean()
    for distance in (1, 2, 3, 4, 64):
        together = float((centered[:-distance] * centered[distance:]).mean()) / (p * (1 - p))
        assert abs(together) < 5 / math.sqrt(count)


def test_the_border_of_what_is_dropped_is_exact() -> None:
    """One number in 2¹⁵ too many or too few would show in a dozen of these."""
    torch.manual_seed(0)
    mask, kept = keep_mask((400_000,), 2**-17)  # rounds to nothing
    assert kept == 1
    assert bool((mask == -1).all())


def test_dropout_of_nearly_everything_keeps_something_to_scale_by() -> None:
    torch.manual_seed(0)
    _, kept = keep_mask((1,), 0.999_999)
    assert kept == 2**-15
    assert bool(cpu.dropout(torch.ones(400_000), 0.999_999).isfinite().all())


def test_a_mask_of_too_few_random_bits_would_be_seen() -> None:
    torch.manual_seed(0)
    mask, _ = keep_mask((100_000,), 0.1)
    ones = (mask.repeat_interleave(4) == -1).double()
    centered = ones - ones.mean()
    assert float((centered[:-1] * centered[1:]).mean()) / 0.09 > 5 / math.sqrt(400_000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dropout_scales_what_it_keeps_and_its_gradient(dtype: torch.dtype) -> None:
    # Not contiguous, and drawn in float32, since torch 2.11 draws some zeros in bfloat16.
    x = torch.randn(50, 60).to(dtype).t().requires_grad_()
    with FastCpuFunctions():
        y = nn.Dropout(0.25)(x)
    y.backward(torch.full_like(y, 2.0))
    dropped = y == 0
    assert 0.2 < float(dropped.double().mean()) < 0.3
    factor = 1 / 0.75  # exact until it has multiplied
    assert torch.equal(y, torch.where(dropped, 0, x * factor))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(dropped, 0, torch.full_like(x.grad, 2) * factor))


def test_dropout_follows_the_seed_and_leaves_evaluation_alone() -> None:
    x = torch.randn(64, 8)
    with FastCpuFunctions():
        one, other, again = (seeded(seed, functional.dropout, x, 0.5) for seed in (0, 1, 0))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert torch.equal(functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(functional.dropout(x, 0.0), x)
        assert not functional.dropout(x, 1.0).any()


HEADS, QUERIES, KEYS, WIDTH = 3, 5, 7, 4
PADDED = torch.ones(2, 1, 1, KEYS, dtype=torch.bool)
PADDED[1, ..., 4:] = False
MASKS: Mapping[str, dict[str, Any]] = {
    "none": {},
    "padding": {"attn_mask": PADDED},
    "added": {"attn_mask": torch.randn(2, HEADS, QUERIES, KEYS, dtype=torch.float64)},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
}


def heads() -> list[Tensor]:
    torch.manual_seed(3)
    shapes = [(2, HEADS, QUERIES, WIDTH), *[(2, HEADS, KEYS, WIDTH)] * 2]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("mask", MASKS)
def test_attention_that_drops_next_to_nothing_is_torchs_own(mask: str) -> None:
    # 2⁻¹⁶ rounds to no dropout at all, but goes the way of dropout.
    actual, expected = heads(), heads()
    with FastCpuFunctions():
        attention = functional.scaled_dot_product_attention
        y = attention(*actual, dropout_p=2**-17, **MASKS[mask])
    z = functional.scaled_dot_product_attention(*expected, **MASKS[mask])
    assert torch.allclose(y, z, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(z)
    y.backward(seed)
    z.backward(seed)
    for one, other in zip(actual, expected, strict=True):
        assert one.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-11, atol=1e-12)


def test_attention_drops_weights_after_the_softmax() -> None:
    query, key, value = heads()
    with FastCpuFunctions():
        attention = functional.scaled_dot_product_attention
        actual = seeded(0, attention, query, key, value, dropout_p=0.5)
    torch.manual_seed(0)
    mask, kept = keep_mask((2, HEADS, QUERIES, KEYS), 0.5)
    weights = (query @ key.transpose(-1, -2) / math.sqrt(WIDTH)).softmax(-1) * -mask / kept
    assert torch.allclose(actual, weights @ value, rtol=1e-12)


def test_attention_in_half_precision_is_near_torchs_own() -> None:
    single = [x.detach().float() for x in heads()]
    expected = functional.scaled_dot_product_attention(*single, attn_mask=PADDED)
    with FastCpuFunctions(), torch.autocast("cpu", torch.bfloat16):
        actual = functional.scaled_dot_product_attention(*single, attn_mask=PADDED)
    assert actual.dtype == torch.bfloat16
    assert torch.allclose(actual.float(), expected, atol=0.03)


def normalized(dtype: torch.dtype, autocast: bool, trains: bool, fast: bool) -> dict[str, Tensor]:
    """Output and gradients of a normalization."""
    torch.manual_seed(0)
    layer = nn.LayerNorm(64)
    randomize(layer)
    x = (3 * torch.randn(4, 7, 64) + 1).to(dtype)
    layer.to(dtype).requires_grad_(trains)
    functions = FastCpuFunctions() if fast else nullcontext()
    with functions, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return outcome(layer, x)


def test_frozen_normalization_under_autocast_rounds_only_what_goes_in_and_out() -> None:
    rounded = normalized(torch.float32, autocast=True, trains=False, fast=True)
    exact = normalized(torch.float64, autocast=False, trains=False, fast=False)
    assert [rounded[name].dtype for name in ("y", "x")] == [torch.bfloat16, torch.float32]
    assert rounded.keys() == exact.keys()
    for name, value in exact.items():
        assert (rounded[name] - value).norm() < 0.005 * value.norm(), name


@pytest.mark.parametrize(
    ("dtype", "autocast", "trains"),
    [
        (torch.float32, False, False),
        (torch.float64, True, False),
        (torch.float32, True, True),  # its gradient must not be summed in bfloat16
    ],
)
def test_normalization_elsewhere_is_torchs_own(
    dtype: torch.dtype, autocast: bool, trains: bool
) -> None:
    expected, actual = (normalized(dtype, autocast, trains, fast) for fast in (False, True))
    assert actual["y"].dtype == dtype
    assert near(actual, expected, 0)


def test_a_models_dropout_and_attention_go_this_way(
    with_dropout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(with_dropout).train()
    taken = []
    for name in ("dropout", "attention"):
        ours = getattr(cpu, name)
        theirs = next(theirs for theirs, own in cpu._REPLACEMENTS.items() if own is ours)

        def noted(*args: Any, name: str = name, ours: Any = ours, **kwargs: Any) -> Tensor:
            taken.append(name)
            result: Tensor = ours(*args, **kwargs)
            return result

        monkeypatch.setitem(cpu._REPLACEMENTS, theirs, noted)
    ids = torch.randint(5, 10, (2, 6))
    model(ids)
    assert not taken
    with FastCpuFunctions():
        model(ids)
    assert taken.count("attention") == 2
    assert taken.count("dropout") == 5
