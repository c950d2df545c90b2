"""Budgets: what a text means in parameters, and which size comes nearest to it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Method
from iwlora.methods.budget import backbone_parameters, fit_to_budget, parse_budget
from iwlora.methods.low_rank.adalora import AdaLora
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.lora_variants import Dora
from iwlora.methods.selective.full_fine_tuning import Full
from iwlora.sites import Site
from iwlora.sites import sites as find_sites

OF_CODES = "prompt-generator"  # adapts no classifier; its own test has its budgets
SIZED = [name for name, row in METHODS.items() if row.size_knob and name != OF_CODES]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return AutoModelForSequenceClassification.from_config(tiny_config("bert"))


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
    assert parse_budget(budget, backbone=184_000_000) == parameters


@pytest.mark.parametrize(
    "budget", ["", "M", "-1M", "1.33 G", "1,330,000", "half", "0", 0, "0%", "0.4", -5, "1e6", "5%%"]
)
def test_what_is_no_budget_is_refused(budget: str | float) -> None:
    with pytest.raises(IwloraError, match=r"was given; accepted are .* 0\.5%, .* 1\.33M or 300K"):
        parse_budget(budget, backbone=184_000_000)


@pytest.mark.parametrize("name", SIZED)
@settings(deadline=None, max_examples=60)
@given(budget=st.integers(1, 12_000))
def test_the_size_nearest_to_the_budget_is_taken(name: str, tiny: Any, budget: int) -> None:
    sites, method = find_sites(tiny), METHODS[name]()
    largest, counts = counts_by_size(name, tiny)
    nearest = min({0: 0, **counts}.items(), key=lambda size: abs(size[1] - budget))[0]
    if 1 <= nearest <= largest:
        assert fit_to_budget(method, tiny, sites, budget).size == nearest
        return
    limit = "needs at least" if nearest == 0 else "has at most"
    bound = counts[1] if nearest == 0 else counts[largest]
    with pytest.raises(IwloraError, match=rf"is {budget:,} parameters; .* {limit} {bound:,} on"):
        fit_to_budget(method, tiny, sites, budget)


@cache
def counts_by_size(name: str, tiny: Any) -> tuple[int, dict[int, int]]:
    """The largest size that the method accepts, and the parameters up to the size after it."""
    sites, method = find_sites(tiny), METHODS[name]()
    accepted = [size for size in range(1, 400) if accepts(method, sites, size)]
    assert accepted == list(range(1, len(accepted) + 1))
    sizes = range(1, len(accepted) + 2)
    return len(accepted), {n: method.sized(n).parameters(tiny, sites) for n in sizes}


def accepts(method: Method, sites: list[Site], size: int) -> bool:
    try:
        method.sized(size).check(sites)
    except IwloraError:
        return False
    return True


def test_the_smallest_size_must_be_near_the_budget(tiny: Any) -> None:
    sites = find_sites(tiny)
    assert fit_to_budget(Lora(), tiny, sites, 400).size == 1
    with pytest.raises(IwloraError, match=r"budget=0\.2K is 200 parameters; lora needs .* 416 on"):
        fit_to_budget(Lora(), tiny, sites, "0.2K")


def test_a_budget_above_the_largest_size_is_refused(tiny: Any) -> None:
    sites = find_sites(tiny)
    assert fit_to_budget(Lora(), tiny, sites, 16 * 416 + 200).size == 16
    with pytest.raises(
        IwloraError, match=r"1,000,000 parameters; lora has at most 6,656 on .* \(rank=16: .* 16,"
    ):
        fit_to_budget(Lora(), tiny, sites, "1M")


def test_solving_is_fast(deberta_v3_base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    parameters = Lora.parameters

    def counting(self: Lora, model: Any, sites: Any) -> int:
        asked.append(self.rank)
        return parameters(self, model, sites)

    monkeypatch.setattr(Lora, "parameters", counting)
    assert fit_to_budget(Lora(), deberta_v3_base, find_sites(deberta_v3_base), "60%").size > 500
    assert len(asked) < 30


def test_a_method_without_a_size_has_no_budget(tiny: Any) -> None:
    with pytest.raises(IwloraError, match="full has no size to set; remove budget=1M"):
        fit_to_budget(Full(), tiny, find_sites(tiny), "1M")


def test_a_part_is_of_the_backbone(tiny: Any) -> None:
    backbone = Full().parameters(tiny, [])
    assert backbone_parameters(tiny) == backbone < sum(p.numel() for p in tiny.parameters())
    sites = find_sites(tiny)
    assert (
        fit_to_budget(Lora(), tiny, sites, "25%").size
        == fit_to_budget(Lora(), tiny, sites, backbone // 4).size
    )


def test_the_budgets_of_the_adalora_paper(deberta_v3_base: Any) -> None:
    """Zhang et al. 2023, table 1: LoRA of rank 8 on all matrices is 1.33M, of rank 2 0.33M."""
    sites = find_sites(deberta_v3_base)
    assert len(sites) == 72
    by_hand = 12 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert Lora(rank=8).parameters(deberta_v3_base, sites) == 8 * by_hand == 1_327_104
    assert Lora(rank=2).parameters(deberta_v3_base, sites) == 2 * by_hand == 331_776
    for method in (Lora(), AdaLora()):
        assert fit_to_budget(method, deberta_v3_base, sites, "1.33M").size == 8
        assert fit_to_budget(method, deberta_v3_base, sites, "0.33M").size == 2
    assert Full().parameters(deberta_v3_base, sites) == pytest.approx(184e6, rel=0.01)


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("budget", ["0.08%", "0.16%", "0.32%", "0.65%", "1.1%", "2.2%"])
def test_the_papers_range_of_budgets_is_solved(
    name: str, budget: str, deberta_v3_base: Any
) -> None:
    sites, method = find_sites(deberta_v3_base), METHODS[name]()
    size = fit_to_budget(method, deberta_v3_base, sites, budget).size
    target = parse_budget(budget, backbone_parameters(deberta_v3_base))
    smaller, chosen, larger = (
        method.sized(near).parameters(deberta_v3_base, sites) if near else 0
        for near in (size - 1, size, size + 1)
    )
    assert (smaller + chosen) / 2 <= target <= (chosen + larger) / 2


def test_doras_magnitudes_count(deberta_v3_base: Any) -> None:
    sites = find_sites(deberta_v3_base)
    rows = 12 * (4 * 768 + 3072 + 768)
    lora, dora = (m.parameters(deberta_v3_base, sites) for m in (Lora(rank=8), Dora(rank=8)))
    assert dora == lora + rows
