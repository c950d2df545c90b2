"""Experts and routers are measured exactly, by expert, however the model computes its experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import iwlora
from expert_models import EXPERTS, MODELS, WITHOUT_ROUTERS, expert_batches, expert_model
from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.sites import sites


def gradient_norms(model: torch.nn.Module, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """{parameter: mean over batches of ‖G‖, or of ‖G_e‖ for each expert}, by autograd."""
    norms: dict[str, list[Tensor]] = {}
    model.requires_grad_(True)
    for batch in batches:
        model.zero_grad()
        model(**batch).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter.dim() > 1:
                norms.setdefault(name, []).append(parameter.grad.flatten(-2).norm(dim=-1))
    model.zero_grad()
    model.requires_grad_(False)
    return {name: torch.stack(values) for name, values in norms.items()}


@pytest.mark.quick
@pytest.mark.parametrize("name", MODELS)
def test_every_expert_has_the_norm_of_its_slice_of_autograds_gradient(name: str) -> None:
    model, batches = expert_model(name).double(), expert_batches()
    if name not in ("llama4_text", "jetmoe"):
        model.set_experts_implementation("eager")
    expected = gradient_norms(model, batches)
    measured = iwlora.measure(model, batches)
    kinds = {site.kind for site in measured.sites}
    assert ("router" in kinds) == (name not in WITHOUT_ROUTERS)
    assert sum(site.expert_values is not None for site in measured.sites) >= 2
    for site in measured.sites:
        by_expert = expected[site.name if site.name in expected else f"{site.name}.weight"]
        whole = by_expert.norm(dim=-1) if by_expert.dim() > 1 else by_expert
        assert site.value == pytest.approx(float(whole.mean()), rel=1e-12)
        assert (site.expert_values is None) == (by_expert.dim() == 1)
        if site.expert_values is not None:
            torch.testing.assert_close(
                torch.tensor(site.expert_values, dtype=torch.double),
                by_expert.mean(dim=0),
                rtol=1e-12,
                atol=0,
            )
            per_token = 1 if name == "llama4_text" else 2
            assert site.expert_tokens is not None
            assert sum(site.expert_tokens) == 2 * 12 * per_token  # of two batches of 12 tokens


def test_each_implementation_of_experts_gives_the_same_numbers() -> None:
    batches, measured = expert_batches(), {}
    for implementation in ("eager", "batched_mm", "grouped_mm"):
        model = expert_model("gpt_oss")
        model.set_experts_implementation(implementation)
        measured[implementation] = iwlora.measure(model, batches)
    for site, *others in zip(*(m.sites for m in measured.values()), strict=True):
        for other in others:
            assert other.value == pytest.approx(site.value, rel=1e-4)
            assert other.expert_values == (
                site.expert_values and pytest.approx(site.expert_values, rel=1e-4, abs=1e-7)
            )
            assert other.expert_tokens == site.expert_tokens


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_give_the_same_numbers(reentrant: bool) -> None:
    model, batches = expert_model("mixtral"), expert_batches(1)
    expected = iwlora.measure(model, batches)
    name = "activation_checkpointing_enable"  # since transformers 5.20
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    measured = iwlora.measure(model.train(), batches)
    assert measured.values == pytest.approx(expected.values, rel=1e-5)
    assert [s.expert_tokens for s in measured.sites] == [s.expert_tokens for s in expected.sites]


@pytest.mark.parametrize("statistic", ["rms", "relative", "saliency", "mean"])
def test_statistics_of_an_expert_are_those_of_its_matrix(statistic: str) -> None:
    model, batches = expert_model("gpt_oss"), expert_batches()
    (site,) = sites(model, ["model.layers.0.mlp.experts.down_proj"])
    W = site.layer.get_parameter("down_proj").detach().clone()
    gradients = []
    for batch in batches:
        parameter = torch.nn.Parameter(W.clone())
        site.layer.down_proj = parameter
        model(**batch).loss.backward()
        assert parameter.grad is not None
        gradients.append(parameter.grad)
    G = torch.stack(gradients)
    norms = G.flatten(2).norm(dim=-1).mean(dim=0)
    expected = {
        "rms": norms / W[0].numel() ** 0.5,
        "relative": norms / W.flatten(1).norm(dim=-1),
        "saliency": (G * W).abs().mean(dim=(0, 2, 3)),
        "mean": G.mean(dim=0).flatten(1).norm(dim=-1),
    }
    model.zero_grad()
    (measured,) = iwlora.measure(model, batches, sites=[site], statistic=statistic).sites
    assert measured.expert_values == pytest.approx(expected[statistic].tolist(), rel=1e-4)
    if statistic == "mean":
        assert measured.value == pytest.approx(float(G.mean(dim=0).norm()), rel=1e-4)
    if statistic == "saliency":
        assert measured.value == pytest.approx(float((G * W).abs().mean()), rel=1e-4)


def test_a_statistic_of_single_examples_is_refused_for_experts() -> None:
    with pytest.raises(IwloraError, match="leave the site out"):
        iwlora.measure(expert_model("mixtral"), expert_batches(1), statistic="example")


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = expert_model("mixtral")
    weight = model.get_parameter("model.layers.0.mlp.experts.down_proj")
    weight.grad = torch.ones_like(weight)
    iwlora.measure(model, expert_batches(1))
    assert weight.requires_grad
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert not weight._post_accumulate_grad_hooks


@pytest.mark.quick
@pytest.mark.parametrize("estimator", ["exact", "lora"])
def test_training_steps_measure_the_frozen_experts(estimator: str) -> None:
    from iwlora.sensitivity.in_flight import InFlight

    model, batches = expert_model("gpt_oss"), expert_batches()
    expected = iwlora.measure(expert_model("gpt_oss"), batches)
    chosen = sites(model)
    attached = METHODS["lora"](rank=8).attach(model, chosen, seed=0)
    flight = InFlight(sites(attached.model), attached.pairs, estimator, max_batches=len(batches))
    for batch in batches:
        attached.model(**batch).loss.backward()
        flight.step()
        attached.model.zero_grad()
    measured = flight.result()
    tolerance = 1e-4 if estimator == "exact" else 0.6
    assert measured.values == pytest.approx(expected.values, rel=tolerance)
    assert not measured.excluded
    for site, other in zip(measured.sites, expected.sites, strict=True):
        if other.expert_values:
            assert site.expert_values is not None
            assert site.expert_tokens == (other.expert_tokens if estimator == "exact" else None)
    trained = {name for name, p in attached.model.named_parameters() if p.requires_grad}
    assert trained == set(attached.trainable)


def test_values_of_experts_are_saved_and_shown(tmp_path: Path) -> None:
    from iwlora.sensitivity.text_tables import ranking

    measured = iwlora.measure(expert_model("mixtral"), expert_batches(1))
    measured.save(tmp_path / "sensitivity.json")
    assert iwlora.Sensitivity.load(tmp_path / "sensitivity.json") == measured
    table = ranking(measured)
    assert "experts of model.layers.1.mlp.experts.down_proj: " in table
    assert table.count("tokens)") == 2 * 2 * EXPERTS
