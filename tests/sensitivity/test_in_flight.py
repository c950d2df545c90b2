"""Reading the sensitivity off the first training steps of a LoRA model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import iwlora
from iwlora.errors import IwloraError
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.running_estimate import MIN_BATCHES
from iwlora.sites import Site, sites
from sensitivity_models import batches, classifier, gradients


def adapted(architecture: str = "bert", r: int = 4, seed: int = 0, **shape: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    model = classifier(architecture, **shape)
    torch.manual_seed(seed)
    targets = [site.name for site in sites(model)]
    config = LoraConfig(r=r, target_modules=targets, fan_in_fan_out=architecture == "gpt2")
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def in_flight(model: Any, data: Sequence[dict[str, Tensor]], **options: Any) -> InFlight:
    flight = InFlight(sites(model), lora_pairs(model), **options)
    for batch in data:
        model(**batch).loss.backward()
        flight.step()
        model.zero_grad()
    return flight


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_reading_the_frozen_layers_equals_measuring_them(architecture: str) -> None:
    model = adapted(architecture)
    data = batches(3)
    expected = iwlora.measure(model, data, tolerance=0)
    measured = in_flight(model, data, estimator="exact", tolerance=0).result()
    assert measured.values == pytest.approx(expected.values, rel=1e-10)
    assert measured.share_error == pytest.approx(expected.share_error)


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_reading_the_frozen_layers_gives_the_norms_of_autograd(architecture: str) -> None:
    (batch,) = batches(1)
    expected = gradients(classifier(architecture), batch)
    measured = in_flight(adapted(architecture), [batch], estimator="exact").result().values
    norms = {name: float(G.norm()) for name, G in expected.items()}
    assert measured == pytest.approx(norms, rel=1e-10)


def mean_square_ratio(wrong: float = 1.0, draws: int = 200) -> float:
    """The mean over draws of A of the estimated ‖G‖², divided by that of autograd.

    ``wrong`` is a factor of the scaling that the reader is told, in a net of one layer.
    """
    torch.manual_seed(0)
    layer = nn.Linear(7, 5, bias=False, dtype=torch.float64)
    x, target = torch.randn(11, 7).double(), torch.randn(11, 5).double()
    (layer(x) - target).tanh().square().mean().backward()
    assert layer.weight.grad is not None
    truth = float(layer.weight.grad.square().sum())
    layer.requires_grad_(False)
    squares = []
    for _ in range(draws):
        A = nn.init.kaiming_uniform_(torch.empty(4, 7, dtype=torch.float64), a=math.sqrt(5))
        B = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)
        pair = LowRankPair("w", A, B, scaling=2.0 * wrong)
        flight = InFlight([Site("w", layer, "w", 7, 5, 0)], [pair], max_batches=1)
        (layer(x) + 2.0 * x @ A.mT @ B.mT - target).tanh().square().mean().backward()
        assert flight.step()
        squares.append(flight.result().values["w"] ** 2)
    return sum(squares) / draws / truth


def test_the_free_sketch_is_exact_on_average() -> None:
    assert mean_square_ratio() == pytest.approx(1.0, abs=0.08)


def test_the_average_shows_a_wrong_scale() -> None:
    """Of 10%, which is 19% of the square."""
    assert mean_square_ratio(wrong=1.1) < 0.92 - 0.02


def test_the_free_sketch_is_near_and_says_how_near() -> None:
    """Over many draws of A: unbiased squares, and errors as large as told."""
    data = batches(1)
    expected = iwlora.measure(adapted(), data).values
    ratios, messages = [], []
    for seed in range(30):
        measured = in_flight(adapted(seed=seed), data * 4, tolerance=0, max_batches=4).result()
        for site in measured.sites:
            assert site.stderr is not None
            ratios.append(site.value / expected[site.name])
            messages.append(site.stderr / expected[site.name])
    spread = torch.tensor(ratios).double()
    assert float(spread.square().mean()) == pytest.approx(1.0, abs=0.05)
    rms = float(torch.tensor(messages).double().square().mean().sqrt())
    assert rms == pytest.approx(float((spread - 1).square().mean().sqrt()), rel=0.25)


def test_the_standard_error_includes_that_of_the_projection() -> None:
    model, data = adapted(), batches(1) * 12  # one batch again and again: its spread is 0
    measured = in_flight(model, data, tolerance=0.01).result()
    assert measured.batches == MIN_BATCHES
    assert measured.share_error is not None
    assert measured.share_bound is not None
    assert 0.01 < measured.share_error < measured.share_bound
    assert not measured.converged
    truth = iwlora.measure(model, data).values
    distance = 0.5 * sum(
        abs(measured.values[name] / sum(measured.values.values()) - value / sum(truth.values()))
        for name, value in truth.items()
    )
    assert distance < measured.share_bound


@pytest.mark.parametrize("estimator", ["lora", "exact"])
def test_training_is_left_alone(estimator: str) -> None:
    """Same gradients, no hook afterwards, and the scale of the loss is taken out."""
    model, data = adapted(), batches(2)
    model(**data[0]).loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    flight = InFlight(sites(model), lora_pairs(model), estimator, max_batches=1)
    model(**data[0]).loss.backward()
    assert flight.step()
    assert expected.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(p._backward_hooks for p in model.parameters())
    model.zero_grad()
    scaled = InFlight(sites(model), lora_pairs(model), estimator, max_batches=1)
    (model(**data[0]).loss * 512).backward()
    scaled.step(scale=512)
    assert scaled.result().values == pytest.approx(flight.result().values, rel=1e-9)


def test_accumulated_passes_count_apart_and_overflow_does_not_count() -> None:
    model, data = adapted(), batches(3)
    flight = InFlight(sites(model), lora_pairs(model), max_batches=8, tolerance=0)
    for batch, factor in zip([*data, data[0]], [1.0, 1.0, 1.0, math.inf], strict=True):
        (model(**batch).loss * factor).backward()  # .grad accumulates and is not read
        assert not flight.step()
    apart = in_flight(adapted(), data, tolerance=0).result()
    assert flight.result().values == pytest.approx(apart.values, rel=1e-9)
    assert flight.result().batches == 3


def test_it_goes_on_reading_while_b_moves() -> None:
    """After some steps the projection is of the gradient at the weights of then."""
    model, data = adapted(r=16), batches(6)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.05)
    for batch in data[:3]:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    measured = in_flight(model, data, tolerance=0).result()
    merged = model.merge_and_unload()
    expected = iwlora.measure(merged, data, tolerance=0).values
    ratios = torch.tensor([measured.values[name] / value for name, value in expected.items()])
    assert float(ratios.square().mean()) == pytest.approx(1.0, abs=0.2)


def test_bad_arguments() -> None:
    model = adapted(r=1)
    places, pairs = sites(model), lora_pairs(model)
    with pytest.raises(IwloraError, match="unknown estimator 'lore'; did you mean 'lora'"):
        InFlight(places, pairs, "lore")
    with pytest.raises(IwloraError, match="rank 1"):
        InFlight(places, pairs)
    with pytest.raises(IwloraError, match="1 of 13 sites have no low-rank pair"):
        InFlight([*places, Site("else", nn.Linear(1, 1), "k", 1, 1, 0)], pairs)
    with pytest.raises(IwloraError, match="no calibration batches"):
        InFlight(places, pairs, "exact").result()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", [["a"]]),
        ("rows", [[1.0]]),
        ("rows", []),
        ("weights", [0.0]),
        ("seen", {"else": [1.0, 1.0]}),
        ("seen", {}),
        ("sites", []),
    ],
)
def test_a_state_that_is_not_its_own_is_refused(field: str, value: object) -> None:
    model = adapted()
    flight = in_flight(model, batches(1), estimator="lora", tolerance=0)
    state = flight.state()
    flight.restore(state)
    assert flight.state() == {**state, "seen": {n: list(v) for n, v in state["seen"].items()}}
    with pytest.raises((IwloraError, ValidationError)):
        flight.restore({**state, field: value})
