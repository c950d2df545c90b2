"""GoRA's ranks and first step against its formulas, by hand in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.testing import assert_close
from transformers import default_data_collator as collate

from iwlora.errors import IwloraError
from iwlora.methods import Attached
from iwlora.methods.low_rank.starts.gora import Gora
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites as find_sites
from iwlora.testing import Case

R, SCALING, STEP = 4, 4.0, 0.3


def model_loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def batches(case: Case) -> list[dict[str, Tensor]]:
    return [collate(case.rows[k : k + 8]) for k in (0, 8, 16)]


def started(case: Case, name: str, **options: Any) -> Attached:
    model = tiny_model(name)
    method = Gora(rank=R, first_step=STEP, **options)
    attached = method.attach(model, find_sites(model), seed=7)
    assert attached.initialize_with_loss is not None
    attached.initialize_with_loss(iter(batches(case)), model_loss)
    return attached


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_ranks_and_first_step_are_their_formulas(name: str, tmp_path: Path) -> None:
    case, model = Case(Gora(), name, tmp_path), tiny_model(name).double()
    sites = find_sites(model)
    weights = [site.layer.weight for site in sites]
    each = [torch.autograd.grad(model_loss(model, batch), weights) for batch in batches(case)[:2]]
    attached = started(case, name, max_batches=2)
    assert attached.ranks is not None
    ranks, pairs = attached.ranks(), {pair.name: pair for pair in attached.pairs}

    by_hand = {}
    for site, *both in zip(sites, *each, strict=True):
        mean = sum(both) / 2
        importance = (site.layer.weight.detach() * mean).abs().mean()
        by_hand[site.name] = float(importance) / (site.d_in + site.d_out) ** 0.5
        G = mean.mT if name == "gpt2" else mean
        A, B = (factor.detach().double() for factor in (pairs[site.name].A, pairs[site.name].B))
        assert A.shape == (ranks[site.name], site.d_in)
        assert A.abs().max() <= 1 / site.d_in**0.5  # PEFT's range of uniform numbers
        onto = torch.linalg.lstsq(A.mT, G.mT).solution.mT @ A  # G A⁺ A
        expected = -STEP * (site.d_in / len(A)) ** 0.5 * onto
        assert_close(SCALING * B @ A, expected, rtol=1e-4, atol=1e-8)
        assert float(expected.norm() / G.norm()) == pytest.approx(STEP, rel=1)
    cost = {site.name: site.d_in + site.d_out for site in sites}
    assert sum(cost[n] * r for n, r in ranks.items()) == R * sum(cost.values())
    assert attached.count() == R * sum(cost.values())
    assert set(ranks.values()) <= set(range(2, 17))
    assert len(set(ranks.values())) > 2
    # Of any two matrices between the limits, the clearly more important one has no lower rank.
    inner = [n for n, r in ranks.items() if 2 < r < 16]
    for one in inner:
        for other in inner:
            if by_hand[one] > 2 * by_hand[other]:
                assert ranks[one] >= ranks[other]


def test_it_is_saved_as_plain_lora_with_its_ranks(tmp_path: Path) -> None:
    case = Case(Gora(), "bert", tmp_path)
    attached = started(case, "bert")
    live = case.logits(attached.model)
    assert (live - case.logits(tiny_model("bert"))).abs().max() > 1e-6
    attached.save(tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert attached.ranks is not None
    assert config["rank_pattern"] == attached.ranks()
    assert config["alpha_pattern"] == {n: SCALING * r for n, r in attached.ranks().items()}
    loaded = PeftModel.from_pretrained(tiny_model("bert"), str(tmp_path / "adapter"))
    assert_close(case.logits(loaded), live, rtol=0, atol=1e-6)


def test_without_gradients_there_are_no_ranks() -> None:
    sites = find_sites(tiny_model("bert"))
    with pytest.raises(IwloraError, match="every gradient is 0"):
        Gora(rank=R).rank_pattern(sites, dict.fromkeys((s.name for s in sites), 0.0))
    ranks = Gora(rank=1).rank_pattern(sites, dict.fromkeys((s.name for s in sites), 1.0))
    assert set(ranks.values()) == {1}
