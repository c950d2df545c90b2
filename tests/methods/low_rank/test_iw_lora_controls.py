"""The control arms: what they keep of IW-LoRA and what they take away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from conftest import tiny_config
from iwlora.compare.plan.arms import add_controls
from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.methods import METHODS, Attached
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.methods.low_rank.iw_lora_controls import (
    ImportanceRanks,
    InvertedImportance,
    PermutedImportance,
    RandomRanks,
    UniformPenalty,
)
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.measure import measure
from iwlora.sites import sites as find_sites

PENALISED = (UniformPenalty, PermutedImportance, InvertedImportance)


def classifier() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config("bert"))


@pytest.fixture(scope="module")
def sensitivity() -> Sensitivity:
    random = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(4):
        ids = torch.randint(5, 50, (8, 10), generator=random)
        batches.append({"input_ids": ids, "labels": ids[:, 0] % 2})
    return measure(classifier(), batches)


def attach(method: IWLora | ImportanceRanks, sensitivity: Sensitivity, seed: int = 0) -> Attached:
    model = classifier()
    return method.attach(model, find_sites(model), seed, sensitivity)


def weighed(method: IWLora, sensitivity: Sensitivity, seed: int = 0) -> dict[str, float]:
    """The coefficients that training uses: those of the callback."""
    (callback,) = attach(method, sensitivity, seed).callbacks
    computed: dict[str, float] = callback.weigh(sensitivity)  # type: ignore[attr-defined]
    return computed


def test_iw_lora_has_all_its_controls() -> None:
    assert add_controls([{"name": "iw-lora"}])[1:] == [
        {"name": name, "label": name}
        for name in (
            "lora-uniform-penalty",
            "iw-lora-permuted",
            "iw-lora-inverted",
            "lora-importance-ranks",
            "lora-random-ranks",
        )
    ]


@pytest.mark.parametrize("beta", [1.0, 36.0])
@pytest.mark.parametrize("normalize", ["sum", "max", "mean", "rank"])
def test_the_penalty_is_as_strong_on_average_and_elsewhere(
    normalize: Any, beta: float, sensitivity: Sensitivity
) -> None:
    options: dict[str, Any] = {"rank": 3, "normalize": normalize, "beta": beta}
    computed = weighed(IWLora(**options), sensitivity)
    mean = sum(computed.values()) / len(computed)

    uniform = weighed(UniformPenalty(**options), sensitivity)
    assert list(uniform) == list(computed)
    assert list(uniform.values()) == pytest.approx([mean] * 12, rel=1e-12)

    for control in (PermutedImportance, InvertedImportance):
        other = weighed(control(**options), sensitivity)
        assert sorted(other.values()) == pytest.approx(sorted(computed.values()), rel=1e-12)
        assert other != computed

    inverted = weighed(InvertedImportance(**options), sensitivity)
    by_importance = sorted(computed, key=sensitivity.values.__getitem__)
    values = [computed[name] for name in by_importance]
    assert [inverted[name] for name in by_importance] == pytest.approx(values[::-1], rel=1e-12)


def test_the_permutation_is_the_runs_unless_it_is_given(sensitivity: Sensitivity) -> None:
    free, fixed = PermutedImportance(rank=3), PermutedImportance(rank=3, permutation=4)
    assert weighed(free, sensitivity, 0) == weighed(free, sensitivity, 0)
    assert weighed(free, sensitivity, 0) != weighed(free, sensitivity, 1)
    assert weighed(fixed, sensitivity, 0) == weighed(fixed, sensitivity, 1)
    assert weighed(fixed, sensitivity, 0) == weighed(free, sensitivity, 4)


@pytest.mark.parametrize("control", PENALISED)
def test_only_the_penalty_differs_from_iw_lora(control: Any, sensitivity: Sensitivity) -> None:
    plain, computed = attach(IWLora(rank=3), sensitivity), attach(control(rank=3), sensitivity)
    one, two = plain.model.state_dict(), computed.model.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert plain.count() == computed.count()
    assert control().calibration() == IWLora().calibration()


def test_in_flight_the_controls_measure_too() -> None:
    model = classifier()
    for control in PENALISED:
        attached = control(measure="in-flight").attach(model, find_sites(model), seed=0)
        assert attached.callbacks
        model = classifier()


def counts(attached: Attached) -> tuple[int, dict[str, int]]:
    assert attached.ranks is not None
    return attached.count(), dict(attached.ranks())


@pytest.mark.parametrize("rank", [2, 3, 8])  # as docs/budgets.md says
def test_ranks_follow_the_importance_with_exactly_the_uniform_number_of_parameters(
    rank: int, sensitivity: Sensitivity
) -> None:
    uniform = rank * sum(site.d_in + site.d_out for site in sensitivity.sites)
    count, ranks = counts(attach(ImportanceRanks(rank=rank), sensitivity))
    assert ranks == Importance(sensitivity).rank_pattern(rank)[0]
    assert count == uniform
    assert len(set(ranks.values())) > 1
    first, other = (counts(attach(RandomRanks(rank=rank), sensitivity, seed)) for seed in (0, 1))
    for count, random in (first, other):
        assert count == uniform
        assert random != ranks
    assert first != other
    assert counts(attach(RandomRanks(rank=rank), sensitivity, 0)) == first
    assert counts(attach(RandomRanks(rank=rank, permutation=1), sensitivity, 0)) == other


def test_the_scaling_is_the_same_at_every_site(sensitivity: Sensitivity) -> None:
    attached = attach(ImportanceRanks(rank=4, lora_alpha=12), sensitivity)
    assert {pair.scaling for pair in attached.pairs} == {3.0}
    A: list[Tensor] = [pair.A for pair in attached.pairs]
    assert {len(factor) for factor in A} == set(counts(attached)[1].values())


def test_without_a_measurement_there_are_no_ranks() -> None:
    model = classifier()
    with pytest.raises(IwloraError, match="lora-importance-ranks needs the measured sensitivity"):
        ImportanceRanks().attach(model, find_sites(model), seed=0)


def test_equal_sensitivities_give_equal_ranks(sensitivity: Sensitivity) -> None:
    flat = replace(sensitivity, sites=tuple(replace(site, value=1.0) for site in sensitivity.sites))
    assert set(counts(attach(METHODS["lora-random-ranks"](rank=4), flat))[1].values()) == {4}
