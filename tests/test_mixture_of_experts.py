"""Which weights of mixtures of experts are sites, and how many tokens each expert gets."""

from __future__ import annotations

import pytest
import torch

import iwlora
from expert_models import MODELS, WITHOUT_ROUTERS, expert_batches, expert_model
from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.mixture_of_experts import count_routed_tokens
from iwlora.sites import coverage, dense_weight, sites


@pytest.mark.quick
@pytest.mark.parametrize("name", MODELS)
def test_all_matrices_of_a_block_are_sites(name: str) -> None:
    model = expert_model(name)
    every_site = sites(model)
    assert coverage(model, every_site) > 0.95  # the rest are the biases of gpt-oss's experts
    routers = [site for site in every_site if site.kind == "router"]
    assert bool(routers) == (name not in WITHOUT_ROUTERS)
    assert all(site.parameter == "weight" for site in routers)
    experts = [site for site in every_site if site.experts > 1]
    assert {site.experts for site in experts} == {4}
    for site in every_site:
        shape = (site.experts,) if site.experts > 1 else ()
        assert dense_weight(site).shape == (*shape, site.d_out, site.d_in)
        assert site.name.startswith("model.")


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "llama4_text"])
def test_kinds_and_sizes_do_not_depend_on_the_layout(name: str) -> None:
    sizes = {site.kind: (site.d_in, site.d_out) for site in sites(expert_model(name))}
    assert sizes["expert_gate_up"] == (16, 48)
    assert sizes["expert_down"] == (24, 16)
    assert sizes["router"] == (16, 4)


def test_experts_can_be_chosen_and_left_out() -> None:
    model = expert_model("mixtral")
    assert {site.kind for site in sites(model, ["expert_down"])} == {"expert_down"}
    linear = {site.kind for site in sites(model, "all-linear")}
    assert linear == {"query", "key", "value", "attention_output"}
    rest = sites(model, exclude=["expert_gate_up", "expert_down", "router"])
    assert {site.experts for site in rest} == {1}
    assert len(rest) == 8


@pytest.mark.quick
def test_a_single_expert_is_refused_by_name() -> None:
    name = "model.layers.0.mlp.experts.down_proj"
    with pytest.raises(IwloraError, match=f"one rank for all experts.*take {name}"):
        sites(expert_model("mixtral"), [f"{name}.2"])


def test_tokens_are_counted_for_each_way_to_call_experts() -> None:
    class Experts(torch.nn.Module):
        def forward(self, hidden: torch.Tensor, chosen: object = None) -> torch.Tensor:
            return hidden

    hidden, module = torch.ones(3, 5), Experts()
    indices = torch.tensor([[0, 2], [2, 3], [2, 4]])  # 4: on another device
    assert count_routed_tokens(module, 4, (hidden,), {"chosen": indices}).tolist() == [1, 0, 3, 1]
    assert count_routed_tokens(module, 2, (hidden, [1, 2]), {}).tolist() == [1, 2]
    for_each = torch.stack([hidden, torch.cat([hidden[:1], torch.zeros(2, 5)])]).flatten(0, 1)
    assert count_routed_tokens(module, 2, (for_each,), {}).tolist() == [3, 1]


def test_ranks_by_importance_cost_what_the_uniform_rank_costs() -> None:
    model = expert_model("mixtral")
    every_site = sites(model)
    sensitivity = iwlora.measure(model, expert_batches())
    ranks, _ = Importance(sensitivity).rank_pattern(r=6)
    cost = {site.name: site.parameters_per_rank for site in every_site}
    uniform = sum(min(6, site.largest_rank) * cost[site.name] for site in every_site)
    assert sum(rank * cost[name] for name, rank in ranks.items()) == uniform
    assert max(ranks[site.name] for site in every_site if site.is_router) <= 4
