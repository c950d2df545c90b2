"""The penalty against autograd on the dense product, and its routes against each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import iwlora
from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.penalty.gram import (
    LowRankPair,
    gradients,
    penalty,
    penalty_gradients,
    squared_norms,
)
from iwlora.penalty.pairs import lora_pairs

shape = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))  # r, d_in, d_out


def pairs_of(
    shapes: list[tuple[int, int, int]], seed: int, dtype: torch.dtype
) -> list[LowRankPair]:
    generator = torch.Generator().manual_seed(seed)
    return [
        LowRankPair(
            f"w{i}",
            torch.randn(r, d_in, generator=generator).to(dtype).requires_grad_(),
            torch.randn(d_out, r, generator=generator).to(dtype).requires_grad_(),
            scaling=0.5 + i,
        )
        for i, (r, d_in, d_out) in enumerate(shapes)
    ]


def dense(pairs: list[LowRankPair], coefficients: list[float]) -> torch.Tensor:
    """The definition, by forming every product."""
    terms = [
        c * (p.scaling * p.B @ p.A).norm() ** 2 for c, p in zip(coefficients, pairs, strict=True)
    ]
    return torch.stack(terms).sum()


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
    found = torch.autograd.grad(3.0 * value, parameters)
    direct = [g for pair in penalty_gradients(pairs, coefficients) for g in pair]

    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, closed, truth in zip(found, direct, expected_gradients, strict=True):
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


def test_matrix_products_do_not_grow_with_depth() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        products = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.products += "mm" in str(func)
            return func(*args, **(kwargs or {}))

    def products(depth: int) -> int:
        pairs = pairs_of([(2, 3, 4), (2, 4, 3)] * depth, 0, torch.float32)
        with Count() as count:
            penalty(pairs, [1.0] * len(pairs)).backward()
        return count.products

    assert products(1) == products(24) > 0


def lora_model(**options: Any) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    names = ["query", "value", "intermediate.dense"]
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": names, **options})
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    named = model.get_base_model().named_modules()
    return {name: layer for name, layer in named if isinstance(layer, LoraLayer)}


def of_model(model: Any, alpha: float = 0.3) -> tuple[iwlora.Penalty, dict[str, float]]:
    coefficients = {name: 0.2 + 0.1 * i for i, name in enumerate(layers(model))}
    return iwlora.Penalty(model, coefficients, alpha=alpha), coefficients


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"rank_pattern": {"value": 2}, "alpha_pattern": {"value": 5}}],
    ids=["plain", "rslora", "patterns"],
)
def test_it_is_the_norm_of_what_peft_would_merge(options: dict[str, Any]) -> None:
    model = lora_model(**options)
    found, coefficients = of_model(model)
    deltas = {name: layer.get_delta_weight("default") for name, layer in layers(model).items()}
    expected = 0.3 * sum(c * deltas[name].norm().item() ** 2 for name, c in coefficients.items())
    assert found().item() == pytest.approx(expected, rel=1e-5)
    assert found.norms() == pytest.approx(
        {name: delta.norm().item() for name, delta in deltas.items()}, rel=1e-5
    )


def test_only_the_active_adapter_is_penalised() -> None:
    from peft import LoraConfig

    model = lora_model()
    one, _ = of_model(model)
    value = one().item()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["query"]))
    assert of_model(model)[0]().item() == pytest.approx(value)
    model.set_adapter("other")
    names = [pair.name for pair in lora_pairs(model)]
    assert names == [name for name in layers(model) if name.endswith("query")]


def test_embedding_layers_are_covered_and_convolutions_refused() -> None:
    from peft import LoraConfig, get_peft_model

    embedding = get_peft_model(
        nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), LoraConfig(target_modules=["0"], r=2)
    )
    layer = layers(embedding)["0"]
    nn.init.normal_(layer.lora_embedding_A["default"])
    found = iwlora.Penalty(embedding, {"0": 1.0}, alpha=1.0)
    assert found().item() == pytest.approx(
        layer.get_delta_weight("default").norm().item() ** 2, rel=1e-5
    )
    convolution = get_peft_model(
        nn.Sequential(nn.Conv2d(2, 3, 3)), LoraConfig(target_modules=["0"], r=2)
    )
    with pytest.raises(IwloraError, match="0 is a Conv2d; the penalty covers LoRA on linear"):
        iwlora.Penalty(convolution, {"0": 1.0})


def trained(route: str | None, steps: int = 4, lr: float = 1e-2) -> dict[str, torch.Tensor]:
    """A short training of one model by AdamW, with the penalty applied by a route."""
    model = lora_model()
    found, _ = of_model(model, alpha=0.05)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    handle = found.attach(optimizer, route=route) if route not in (None, "loss") else None
    ids = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=torch.tensor([0, 1, 0, 1])).loss
        (loss + found() if route == "loss" else loss).backward()
        optimizer.step()
    if handle is not None:
        handle.remove()
        assert not optimizer._optimizer_step_pre_hooks
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_loss_and_gradient_routes_agree_to_rounding() -> None:
    loss, gradient, nothing = trained("loss"), trained("gradient"), trained(None)
    assert distance(loss, gradient) < 1e-5
    assert distance(loss, nothing) > 1e-3
    assert distance(trained("decoupled"), loss) > 1e-4


def test_decoupled_moves_the_parameters_by_lr_times_the_gradient() -> None:
    model = lora_model()
    found, coefficients = of_model(model, alpha=0.05)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    before = copy.deepcopy({n: p.detach() for n, p in trainable.items()})
    value = 0.05 * dense(found.pairs, [coefficients[p.name] for p in found.pairs])
    expected = torch.autograd.grad(value, list(trainable.values()))
    found.attach(optimizer, route="decoupled")
    for parameter in trainable.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for (name, parameter), gradient in zip(trainable.items(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * gradient)


def test_hooks_count_once_whatever_the_micro_batches() -> None:
    """Four backward passes, one step: the penalty's gradient is there once."""
    model = lora_model()
    found, coefficients = of_model(model, alpha=0.05)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    found.attach(optimizer)
    ids = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        (model(input_ids=ids, labels=torch.tensor([0, 1, 0, 1])).loss / 4).backward()
    task = [p.grad.clone() for p in parameters]
    optimizer.step()
    value = 0.05 * dense(found.pairs, [coefficients[p.name] for p in found.pairs])
    expected = torch.autograd.grad(value, parameters)
    for parameter, before, gradient in zip(parameters, task, expected, strict=True):
        torch.testing.assert_close(parameter.grad - before, gradient, rtol=1e-4, atol=1e-7)


def test_bad_arguments() -> None:
    model = lora_model()
    with pytest.raises(IwloraError, match="no coefficient for 6 of 6 adapted sites"):
        iwlora.Penalty(model, {"elsewhere": 1.0})
    for alpha in (-1.0, float("inf"), float("nan")):
        with pytest.raises(IwloraError, match="alpha="):
            of_model(model, alpha)
    with pytest.raises(IwloraError, match="has no active LoRA layer"):
        iwlora.Penalty(nn.Linear(2, 2), {})
    found, _ = of_model(model)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(IwloraError, match=r"unknown route 'gradients'; did you mean 'gradient'"):
        found.attach(optimizer, route="gradients")
