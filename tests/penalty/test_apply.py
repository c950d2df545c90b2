"""What the penalty is on the layers that PEFT adapts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import iwlora
from iwlora.errors import IwloraError
from iwlora.penalty.lora_pairs import lora_pairs
from lora_models import layers, lora_model, of_model, one_layer

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"rank_pattern": {"value": 2}, "alpha_pattern": {"value": 5}}],
    ids=["plain", "rslora", "patterns"],
)
def test_it_is_the_norm_of_what_peft_would_merge(options: dict[str, Any]) -> None:
    model = lora_model(**options)
    term, coefficients = of_model(model)
    deltas = {name: layer.get_delta_weight("default") for name, layer in layers(model).items()}
    expected = 0.3 * sum(c * deltas[name].norm().item() ** 2 for name, c in coefficients.items())
    assert term().item() == pytest.approx(expected, rel=1e-5)
    assert term.norms() == pytest.approx(
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


@pytest.mark.parametrize(
    "layer",
    [
        nn.Embedding(9, 5),
        nn.Conv1d(3, 5, 3),
        nn.Conv2d(3, 5, (3, 2), stride=2, padding=1),
        nn.Conv2d(6, 5, 1),
        nn.Conv3d(2, 5, 2),
    ],
    ids=lambda layer: str(layer).split("(")[0],
)
def test_embeddings_and_convolutions(layer: nn.Module) -> None:
    model, adapted = one_layer(layer)
    term = iwlora.Penalty(model, {"0": 1.0}, alpha=0.5)
    delta = adapted.get_delta_weight("default")
    assert delta.shape == layer.weight.shape
    expected = 0.5 * delta.square().sum()
    assert term().item() == pytest.approx(expected.item(), rel=1e-5)
    factors = [term.pairs[0].A, term.pairs[0].B]
    truth = torch.autograd.grad(expected, factors)
    term.add_gradient()
    for factor, gradient in zip(factors, truth, strict=True):
        assert factor.shape == gradient.shape
        torch.testing.assert_close(factor.grad, gradient, rtol=1e-4, atol=1e-5)
        factor.grad = None
    term().backward()
    for factor, gradient in zip(factors, truth, strict=True):
        torch.testing.assert_close(factor.grad, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
def test_a_grouped_convolution_is_the_norm_of_its_response() -> None:
    """PEFT does not merge these, so Δ is read off unit impulses."""
    model, adapted = one_layer(nn.Conv1d(4, 6, 3, groups=2, bias=False), use_rslora=True)
    impulses = torch.eye(12).reshape(12, 4, 3)
    A, B = adapted.lora_A["default"], adapted.lora_B["default"]
    response = adapted.scaling["default"] * B(A(impulses))
    term = iwlora.Penalty(model, {"0": 1.0}, alpha=1.0)
    assert term().item() == pytest.approx(response.square().sum().item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_of_dora_it_is_the_low_rank_part() -> None:
    model, adapted = one_layer(nn.Linear(6, 5), use_dora=True)
    low_rank = adapted.scaling["default"] * (
        adapted.lora_B["default"].weight @ adapted.lora_A["default"].weight
    )
    term = iwlora.Penalty(model, {"0": 1.0}, alpha=1.0)
    assert term().item() == pytest.approx(low_rank.square().sum().item(), rel=1e-5)
    assert not any("magnitude" in name for name in term.coefficients)


def test_an_adapter_may_cover_a_part_of_what_was_measured_but_no_more() -> None:
    model = lora_model()
    names = [pair.name for pair in lora_pairs(model)]
    alone = iwlora.Penalty(model, dict.fromkeys(names, 1.0))().item()
    among_others = {"bert.elsewhere": 5.0, **dict.fromkeys(names, 1.0)}
    assert iwlora.Penalty(model, among_others)().item() == alone
    part = dict.fromkeys(names[1:], 1.0)
    with pytest.raises(IwloraError, match=f"for 1 of 6 adapted sites, the first is '{names[0]}'"):
        iwlora.Penalty(model, part)


def test_what_is_no_product_of_two_factors_is_refused() -> None:
    from peft import AdaLoraConfig, get_peft_model

    config = AdaLoraConfig(target_modules=["0"], total_step=10)
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4)), config)
    with pytest.raises(IwloraError, match="does not train a product B A"):
        iwlora.Penalty(model, {"0": 1.0})


def test_relative_to_the_frozen_weight() -> None:
    model, adapted = one_layer(nn.Linear(6, 5))
    weight = adapted.get_base_layer().weight
    expected = (adapted.get_delta_weight("default").norm() / weight.norm()) ** 2
    term = iwlora.Penalty(model, {"0": 0.5}, alpha=1.0, relative=True)
    assert term().item() == pytest.approx(0.5 * expected.item(), rel=1e-5)
    nn.init.zeros_(weight)
    with pytest.raises(IwloraError, match=r"‖W‖² of 0 is 0\.0"):
        iwlora.Penalty(model, {"0": 1.0}, relative=True)
    adapted.get_base_layer().weight = nn.Parameter(torch.zeros(15, 1, dtype=torch.uint8), False)
    with pytest.raises(IwloraError, match=r"0 is a Linear whose weights \(torch.uint8\)"):
        iwlora.Penalty(model, {"0": 1.0}, relative=True)


@pytest.mark.parametrize("bits", [4, 8])
def test_relative_to_a_quantised_weight(bits: int) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    plain = nn.Linear(64, 64, bias=False)
    quantised = (
        bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32)
        if bits == 4
        else bnb.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False)
    )
    quantised.load_state_dict(plain.state_dict())
    quantised.to("cpu")
    model, _ = one_layer(quantised)
    term = iwlora.Penalty(model, {"0": 1.0}, relative=True)
    assert term.coefficients["0"] == pytest.approx(plain.weight.norm().item() ** -2, rel=0.05)


@pytest.mark.quick
def test_the_decoupled_route_takes_the_step_that_adafactor_takes() -> None:
    """First -lr·∇R, then Adafactor's own step; rates that Adafactor chooses are refused."""
    from transformers.optimization import Adafactor

    def train(route: str | None) -> dict[str, torch.Tensor]:
        model, _ = one_layer(nn.Linear(6, 5))
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = Adafactor(parameters, lr=0.1, relative_step=False, scale_parameter=False)
        term = iwlora.Penalty(model, {"0": 1.0}, alpha=0.5)
        gradients = torch.autograd.grad(term(), parameters)
        if route:
            term.attach(optimizer, route)
        else:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.data -= 0.1 * gradient
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.linspace(-1, 1 + number, parameter.numel()).view_as(parameter)
        optimizer.step()
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    expected, decoupled = train(None), train("decoupled")
    for name, value in expected.items():
        torch.testing.assert_close(decoupled[name], value)
    model, _ = one_layer(nn.Linear(6, 5))
    term = iwlora.Penalty(model, {"0": 1.0})
    with pytest.raises(IwloraError, match="Adafactor with relative_step, scale_parameter chooses"):
        term.attach(Adafactor(p for p in model.parameters() if p.requires_grad), "decoupled")


def test_bad_arguments() -> None:
    model = lora_model()
    with pytest.raises(IwloraError, match="no coefficient for 6 of 6 adapted sites"):
        iwlora.Penalty(model, {"elsewhere": 1.0})
    for alpha in (-1.0, float("inf"), float("nan")):
        with pytest.raises(IwloraError, match="alpha="):
            of_model(model, alpha)
        names = [pair.name for pair in lora_pairs(model)]
        with pytest.raises(IwloraError, match=f"the coefficient of {names[0]} is {alpha}"):
            iwlora.Penalty(model, dict.fromkeys(names, alpha))
    with pytest.raises(IwloraError, match=r"coefficients is a list; .*Importance\(sensitivity\)"):
        iwlora.Penalty(model, [1.0])  # type: ignore[arg-type]
    with pytest.raises(IwloraError, match="schedule='cosine' was given; accepted is a function"):
        iwlora.Penalty(model, dict.fromkeys(names, 1.0), schedule="cosine")  # type: ignore[arg-type]
    with pytest.raises(IwloraError, match="has no active LoRA layer"):
        iwlora.Penalty(nn.Linear(2, 2), {})
    term, _ = of_model(model)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(IwloraError, match=r"unknown route 'gradients'; did you mean 'gradient'"):
        term.attach(optimizer, route="gradients")
