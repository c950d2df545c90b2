"""What measuring in flight adds to a run, by counted operations, and what is planned from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iwlora.penalty.in_flight_plan import LIMIT, plan_in_flight, reading_share
from iwlora.penalty.lora_pairs import lora_pairs, projects_at_random
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sites import Site, sites
from sensitivity_models import classifier

SHAPES = {
    "wide": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3},
    "narrow": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
    "one block": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 1},
}


def adapted(shape: str, targets: str | list[str] = "all", **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    model = classifier("bert", **SHAPES[shape]).float()
    names = [site.name for site in sites(model, targets)]
    config = LoraConfig(**{"r": 4, "target_modules": names, **options})
    return get_peft_model(model, config)


def adapted_sites(model: Any) -> list[Site]:
    names = {pair.name for pair in lora_pairs(model)}
    return [site for site in sites(model) if site.name in names]


def operations(model: Any, tokens: int, estimator: str | None = None) -> int:
    """Of the matrix products of a step's forward and backward pass, with reading if asked for."""
    ids = torch.randint(5, 20, (4, tokens), generator=torch.Generator().manual_seed(0))
    flight = None
    if estimator:
        flight = InFlight(adapted_sites(model), lora_pairs(model), estimator, max_batches=1)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=torch.zeros(4, dtype=torch.long)).loss.backward()
        if flight:
            assert flight.step()
    model.zero_grad()
    return int(counter.get_total_flops())


@pytest.mark.quick
@pytest.mark.parametrize(
    ("shape", "targets", "tokens"),
    [
        ("wide", "all", 16),
        ("wide", ["query", "value"], 8),
        ("narrow", "all", 32),
        ("one block", "all", 8),
        ("one block", ["ffn_down"], 24),
    ],
)
def test_the_planned_reading_stays_below_the_limit(shape: str, targets: Any, tokens: int) -> None:
    """In counted operations, for runs of 20 steps and more; ``lora`` adds no matrix product."""
    model = adapted(shape, targets)
    step = operations(model, tokens)
    places = adapted_sites(model)
    added = {e: operations(model, tokens, e) - step for e in ("exact", "sketch", "lora")}
    assert added["lora"] == 0
    for estimator in ("exact", "sketch"):
        assert 0 < added[estimator] <= reading_share(places, estimator) * step
    for steps in (20, 60, 400, 2000, 20_000):
        for is_random in (True, False):
            estimator, count = plan_in_flight(places, steps, 1, is_random)
            if steps == 20 and added[estimator] > 20 * LIMIT * step:
                assert count == 1  # not free, and so narrow that one sketch is more
                continue
            assert count * added[estimator] <= LIMIT * steps * step


def test_the_check_sees_a_plan_that_costs_too_much() -> None:
    """Eight exact batches in 20 steps, as the stopping rule wants at least."""
    model = adapted("wide")
    step = operations(model, 16)
    assert 8 * (operations(model, 16, "exact") - step) > 5 * LIMIT * 20 * step


def test_the_most_exact_that_fits_is_planned() -> None:
    """``lora`` reads two steps, whatever the number of their passes."""
    places = adapted_sites(adapted("wide"))
    assert [plan_in_flight(places, steps, 1, projects_at_random=True) for steps in (1, 2, 20)] == [
        *(("lora", 1), ("lora", 2), ("lora", 2))
    ]
    assert plan_in_flight(places, 20, 4, projects_at_random=True) == ("lora", 8)
    for is_random in (True, False):
        estimator, count = plan_in_flight(places, 1000, 2, is_random)
        assert estimator == "exact"
        assert 20 < count < 40
    assert plan_in_flight(places, 20, 1, projects_at_random=False) == ("sketch", 1)
    assert plan_in_flight(places, 60, 1, projects_at_random=False)[0] == "sketch"


@pytest.mark.parametrize(
    ("options", "free"),
    [
        ({}, True),
        ({"init_lora_weights": "gaussian"}, True),
        ({"use_rslora": True}, True),
        ({"r": 1}, False),
        ({"lora_dropout": 0.1}, False),
        ({"init_lora_weights": "orthogonal"}, False),
        ({"init_lora_weights": False}, False),  # B is not 0
    ],
)
def test_only_a_random_projection_is_free(options: dict[str, Any], free: bool) -> None:
    assert projects_at_random(adapted("narrow", **options)) == free
