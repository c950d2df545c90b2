"""Budgets: what a text means in parameters, and which size comes nearest to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, DebertaV2Config

from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.adalora import AdaLora
from iwlora.methods.budget import parse, solve
from iwlora.methods.full import Full
from iwlora.methods.lora import Lora
from iwlora.sites import sites as find_sites

SIZED = [name for name, row in METHODS.items() if row.size_knob]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return AutoModelForSequenceClassification.from_config(tiny_config("bert"))


@pytest.fixture(scope="module")
def deberta_v3_base() -> Any:
    """The shape of microsoft/deberta-v3-base, without its weights."""
    config = DebertaV2Config(
        vocab_size=128100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        relative_attention=True,
        position_buckets=256,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
        position_biased_input=False,
    )
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize(
    ("budget", "parameters"),
    [
        ("1.33M", 1_330_000),
        ("300K", 300_000),
        ("300k", 300_000),
        ("2 B", 2_000_000_000),
        (" 0.5 % ", 920_000),
        (".5%", 920_000),
        ("100%", 184_000_000),
        ("7", 7),
        (1664, 1664),
        (1664.0, 1664),
        ("0.0015K", 2),
    ],
)
def test_budgets_are_read(budget: str | float, parameters: int) -> None:
    assert parse(budget, backbone=184_000_000) == parameters


@pytest.mark.parametrize(
    "budget", ["", "M", "-1M", "1.33 G", "1,330,000", "half", "0", 0, "0%", "0.4", -5, "1e6", "5%%"]
)
def test_what_is_no_budget_is_refused(budget: str | float) -> None:
    with pytest.raises(IwloraError, match=r"was given; accepted are .* 0\.5%, .* 1\.33M or 300K"):
        parse(budget, backbone=184_000_000)


@pytest.mark.parametrize("name", SIZED)
@settings(deadline=None)
@given(budget=st.integers(416, 20_000))
def test_the_largest_size_within_the_budget_is_taken(name: str, tiny: Any, budget: int) -> None:
    sites, method = find_sites(tiny), METHODS[name]()
    size = solve(method, tiny, sites, budget)
    assert size is not None
    assert method.parameters(tiny, sites, size) <= budget
    method.check(sites, size)
    if method.parameters(tiny, sites, size + 1) <= budget:
        with pytest.raises(IwloraError, match="accepted are 1 to"):
            method.check(sites, size + 1)


def test_the_smallest_size_must_be_within_the_budget(tiny: Any) -> None:
    sites = find_sites(tiny)
    assert solve(Lora(), tiny, sites, 416) == 1
    with pytest.raises(IwloraError, match=r"budget=0\.4K is 400 parameters; lora needs .* 416 on"):
        solve(Lora(), tiny, sites, "0.4K")


def test_a_method_without_a_size_has_no_budget(tiny: Any) -> None:
    with pytest.raises(IwloraError, match="full has no size to set; remove budget=1M"):
        solve(Full(), tiny, find_sites(tiny), "1M")


def test_a_part_is_of_the_whole_model(tiny: Any) -> None:
    whole = sum(parameter.numel() for parameter in tiny.parameters())
    sites = find_sites(tiny)
    assert solve(Lora(), tiny, sites, "25%") == solve(Lora(), tiny, sites, whole // 4)


def test_the_budgets_of_the_adalora_paper(deberta_v3_base: Any) -> None:
    """Zhang et al. 2023, table 1: LoRA of rank 8 on all matrices is 1.33M, of rank 2 0.33M."""
    sites = find_sites(deberta_v3_base)
    assert len(sites) == 72
    by_hand = 12 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert Lora().parameters(deberta_v3_base, sites, 8) == 8 * by_hand == 1_327_104
    assert Lora().parameters(deberta_v3_base, sites, 2) == 2 * by_hand == 331_776
    for method in (Lora(), AdaLora()):
        assert solve(method, deberta_v3_base, sites, "1.33M") == 8
        assert solve(method, deberta_v3_base, sites, "0.34M") == 2
    assert Full().parameters(deberta_v3_base, sites, None) == pytest.approx(184e6, rel=0.01)
