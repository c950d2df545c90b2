"""Weights, coefficients and ranks against their formulas."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import iwlora
from iwlora.errors import IwloraError
from iwlora.importance import NORMALIZATIONS
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sites import sites

pytestmark = pytest.mark.quick


def sensitivity(values: list[float], shapes: list[tuple[int, int]] | None = None) -> Sensitivity:
    shapes = shapes or [(16, 16)] * len(values)
    return Sensitivity(
        tuple(
            SiteSensitivity(f"block.{i}", "query", i, d_in, d_out, value, 0.0)
            for i, (value, (d_in, d_out)) in enumerate(zip(values, shapes, strict=True))
        ),
        "exact",
        8,
        0.01,
        True,
        1.0,
    )


def test_weights_follow_the_table() -> None:
    computed = sensitivity([1.0, 3.0, 4.0, 0.0])
    expected = {
        "sum": [0.125, 0.375, 0.5, 0.0],
        "max": [0.25, 0.75, 1.0, 0.0],
        "rank": [0.375, 0.625, 0.875, 0.125],
    }
    for normalize, weights in expected.items():
        assert list(iwlora.Importance(computed, normalize).weights.values()) == weights
    mean = iwlora.Importance(sensitivity([1.0, 3.0, 8.0]), "mean")
    assert list(mean.weights.values()) == [0.25, 0.75, 2.0]


def test_ties_share_a_place() -> None:
    weights = iwlora.Importance(sensitivity([2.0, 1.0, 2.0]), "rank").weights
    assert list(weights.values()) == pytest.approx([2 / 3, 1 / 6, 2 / 3])


positive = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=12)


@given(values=positive, beta=st.floats(0, 4))
def test_coefficients_follow_the_table(values: list[float], beta: float) -> None:
    total = sum(values)
    computed = sensitivity(values)
    assert list(iwlora.Importance(computed).coefficients(beta).values()) == pytest.approx(
        [(1 - value / total) ** beta for value in values]
    )
    inverse = [(total / len(values) / value) ** beta for value in values]
    scale = len(values) / sum(inverse)
    assert list(iwlora.Importance(computed, "mean").coefficients(beta).values()) == pytest.approx(
        [scale * value for value in inverse]
    )


@given(values=positive, normalize=st.sampled_from(sorted(NORMALIZATIONS)))
def test_a_more_important_matrix_is_never_penalised_more(
    values: list[float], normalize: str
) -> None:
    coefficients = iwlora.Importance(sensitivity(values), normalize).coefficients()
    ordered = [c for _, c in sorted(zip(values, coefficients.values(), strict=True))]
    assert all(a >= b - 1e-12 for a, b in pairwise(ordered))
    assert all(c >= 0 for c in ordered)


@given(
    values=positive,
    r=st.integers(1, 12),
    shapes=st.lists(st.sampled_from([(16, 16), (16, 64), (64, 16), (24, 12)]), min_size=12),
)
def test_ranks_cost_what_the_uniform_rank_costs(
    values: list[float], r: int, shapes: list[tuple[int, int]]
) -> None:
    shapes = shapes[: len(values)]
    ranks, alphas = iwlora.Importance(sensitivity(values, shapes)).rank_pattern(r, lora_alpha=16)
    ranks = {f"block.{i}": ranks[f"block.{i}"] for i in range(len(values))}
    cost = [d_in + d_out for d_in, d_out in shapes]
    assert sum(rank * c for rank, c in zip(ranks.values(), cost, strict=True)) == r * sum(cost)
    assert all(1 <= rank <= min(s) for rank, s in zip(ranks.values(), shapes, strict=True))
    assert [alphas[name] / ranks[name] for name in ranks] == pytest.approx([16 / r] * len(ranks))


def test_ranks_are_in_proportion_to_the_sensitivity() -> None:
    ranks, _ = iwlora.Importance(sensitivity([1.0, 2.0, 5.0], [(64, 64)] * 3)).rank_pattern(r=8)
    assert list(ranks.values()) == [3, 6, 15]


def test_remainders_floors_and_caps() -> None:
    def ranks(values: list[float], r: int, **more: int) -> list[int]:
        computed, _ = iwlora.Importance(sensitivity(values)).rank_pattern(r, **more)
        return [computed.get(f"block.{i}", 0) for i in range(len(values))]

    assert ranks([4.3, 2.4, 2.3], 3) == [4, 3, 2]  # 4.3, 2.4, 2.3: the .4 gets the last one
    assert ranks([1.0, 1.0, 1e-9], 4) == [6, 5, 1]  # the floor is paid by the others
    assert ranks([1.0, 1.0, 1e-9], 4, minimum=0) == [6, 6, 0]
    assert ranks([1.0, 1.0, 1e-9], 4, minimum=2) == [5, 5, 2]
    assert ranks([1e9, 1.0, 1.0], 8) == [16, 4, 4]  # the cap gives to the others
    for minimum in (-1, 5):
        with pytest.raises(IwloraError, match="a number from 0 to the rank, 4, got minimum="):
            ranks([1.0, 2.0], 4, minimum=minimum)


def test_peft_applies_the_pattern_where_one_name_ends_in_another() -> None:
    from peft import LoraConfig, get_peft_model
    from torch import nn

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(16, 16)])
            self.inner = nn.Module()
            self.inner.blocks = nn.ModuleList([nn.Linear(16, 16)])

    model = Nested()
    places = sites(model)
    assert [site.name for site in places] == ["blocks.0", "inner.blocks.0"]
    computed = tuple(
        SiteSensitivity(site.name, site.kind, site.depth, 16, 16, value, None)
        for site, value in zip(places, [1.0, 3.0], strict=True)
    )
    measured = Sensitivity(computed, "exact", 8, 0.0, True, 1.0)
    ranks, alphas = iwlora.Importance(measured).rank_pattern(r=4)
    config = LoraConfig(r=4, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=alphas)
    adapted = get_peft_model(model, config)
    rows = {
        pair.name: len(pair.A) for pair in iwlora.Penalty(adapted, dict.fromkeys(ranks, 1.0)).pairs
    }
    assert rows == ranks == {"blocks.0": 2, "inner.blocks.0": 6}


def test_peft_takes_the_pattern_at_the_cost_of_the_uniform_rank() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from conftest import tiny_config

    model = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    places = sites(model)
    computed = Sensitivity(
        tuple(
            SiteSensitivity(s.name, s.kind, s.depth, s.d_in, s.d_out, float(i + 1), 0.0)
            for i, s in enumerate(places)
        ),
        "exact",
        8,
        0.01,
        True,
        1.0,
    )
    ranks, alphas = iwlora.Importance(computed).rank_pattern(r=4)
    config = LoraConfig(
        r=4, target_modules=list(ranks), rank_pattern=dict(ranks), alpha_pattern=dict(alphas)
    )
    adapted = get_peft_model(model, config)
    rows = {
        pair.name: pair.A.shape[0]
        for pair in iwlora.Penalty(adapted, dict.fromkeys(ranks, 1.0)).pairs
    }
    assert rows == ranks
    uniform = get_peft_model(
        AutoModelForSequenceClassification.from_config(tiny_config("bert")),
        LoraConfig(r=4, target_modules=list(ranks)),
    )
    assert len({(s.d_in, s.d_out) for s in places}) > 1
    assert len(set(ranks.values())) > 1
    assert adapted.get_nb_trainable_parameters() == uniform.get_nb_trainable_parameters()


@pytest.mark.parametrize("rank", [0, -1, 17, 4.5])
def test_a_rank_that_the_matrices_do_not_have(rank: int) -> None:
    with pytest.raises(IwloraError, match=f"a rank from 1 to 16, .* got {rank}"):
        iwlora.Importance(sensitivity([1.0, 2.0])).rank_pattern(rank)


def test_bad_arguments() -> None:
    with pytest.raises(
        IwloraError, match=re.escape("unknown normalization 'summ'; did you mean 'sum'")
    ):
        iwlora.Importance(sensitivity([1.0]), "summ")
    with pytest.raises(IwloraError, match=r"is 0 for 1 of 2 sites, the first is block\.1"):
        iwlora.Importance(sensitivity([1.0, 0.0]), "mean")
    with pytest.raises(IwloraError, match="every sensitivity is 0"):
        iwlora.Importance(sensitivity([0.0, 0.0]))
    with pytest.raises(IwloraError, match=r"Sensitivity\.load.* as sensitivity, got a str"):
        iwlora.Importance("importance.json")  # type: ignore[arg-type]
    for beta in (-1.0, float("nan"), float("inf")):
        with pytest.raises(IwloraError, match="beta="):
            iwlora.Importance(sensitivity([1.0, 2.0])).coefficients(beta)
    for alpha in (0.0, -1.0, float("inf")):
        with pytest.raises(IwloraError, match="lora_alpha="):
            iwlora.Importance(sensitivity([1.0, 2.0])).rank_pattern(4, lora_alpha=alpha)
    with pytest.raises(IwloraError, match=r"minimum=0\.5"):
        iwlora.Importance(sensitivity([1.0, 2.0])).rank_pattern(4, minimum=0.5)  # type: ignore[arg-type]


def test_an_exponent_of_any_size_gives_finite_coefficients() -> None:
    coefficients = iwlora.Importance(sensitivity([1e-9, 1.0, 2.0]), "mean").coefficients(1e4)
    assert list(coefficients.values()) == pytest.approx([3.0, 0.0, 0.0])
