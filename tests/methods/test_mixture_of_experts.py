"""Methods on mixtures of experts: what they adapt, what they leave out, and their adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

import iwlora
from expert_models import MODELS, expert_batches, expert_model
from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.loading import load_adapter, merge_adapter
from iwlora.sites import coverage, sites

# PEFT looks for parameters in patterns of ranks among the modules only.
pytestmark = pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern:RuntimeWarning")


def trained(name: str, method: Any) -> Any:
    """A tiny model that the method trained for two steps."""
    model, batches = expert_model(name), expert_batches()
    chosen = method.adaptable(sites(model), "all")
    method.check(chosen)
    sensitivity = None
    if method.calibration() is not None:
        sensitivity = iwlora.measure(model, batches, sites=chosen, **method.calibration())
    attached = method.attach(model, chosen, 0, sensitivity)
    optimizer = torch.optim.Adam(
        [p for p in attached.model.parameters() if p.requires_grad], lr=0.02
    )
    for batch in batches:
        attached.model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return attached


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """The logits of the first batch, in evaluation mode."""
    values: torch.Tensor = model.train(False)(**expert_batches(1)[0]).logits
    return values


@pytest.mark.quick
@pytest.mark.parametrize("name", MODELS)
def test_the_saved_adapter_of_experts_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    method = METHODS["lora"](rank=6)  # above the 4 rows of a router
    attached = trained(name, method)
    expected = logits(attached.model)
    fresh = expert_model(name)
    assert coverage(fresh, sites(fresh)) > 0.95
    assert attached.count() == method.parameters(fresh, sites(fresh))
    assert (expected - logits(fresh)).abs().max() > 0.01
    attached.save(tmp_path)
    reloaded = load_adapter(fresh, tmp_path / "adapter")
    assert torch.equal(logits(reloaded), expected)
    plain = PeftModel.from_pretrained(expert_model(name), str(tmp_path / "adapter"))
    assert torch.equal(logits(plain), expected)
    merged = merge_adapter(reloaded)
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "method"), [("deepseek_v3", "lora-importance-ranks"), ("llama4_text", "rslora")]
)
def test_ranks_by_tensor_are_reproduced(name: str, method: str, tmp_path: Path) -> None:
    attached = trained(name, METHODS[method](rank=5))
    attached.save(tmp_path)
    reloaded = PeftModel.from_pretrained(expert_model(name), str(tmp_path / "adapter"))
    assert torch.equal(logits(reloaded), logits(attached.model))
    scalings = {pair.scaling for pair in attached.pairs}
    assert max(scalings) == pytest.approx(min(scalings))
    if attached.ranks is not None:
        assert len(set(attached.ranks().values())) > 1


@pytest.mark.quick
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "deepseek_v3"])
def test_the_penalty_of_experts_is_that_of_the_dense_updates(name: str) -> None:
    attached = trained(name, METHODS["iw-lora"](rank=4))
    model = attached.model
    penalty = iwlora.Penalty(model, {pair.name: 1.0 for pair in attached.pairs}, alpha=1.0)
    factors = [factor for pair in attached.pairs for factor in (pair.A, pair.B)]
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    dense = sum(layer.get_delta_weight("default").square().sum() for layer in layers)
    assert isinstance(dense, torch.Tensor)
    assert penalty().detach().item() == pytest.approx(dense.detach().item(), rel=1e-4)
    for mine, theirs in zip(
        torch.autograd.grad(penalty(), factors), torch.autograd.grad(dense, factors), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
    penalty.add_gradient()
    for factor, theirs in zip(factors, torch.autograd.grad(penalty(), factors), strict=True):
        torch.testing.assert_close(factor.grad, theirs)
    relative = iwlora.Penalty(model, {p.name: 1.0 for p in attached.pairs}, 1.0, relative=True)
    experts = next(pair.name for pair in attached.pairs if pair.experts > 1)
    weight = expert_model(name).get_parameter(experts)
    assert 1 / relative.coefficients[experts] == pytest.approx(
        float(weight.detach().square().sum())
    )


@pytest.mark.parametrize("method", ["adalora", "dora", "eva", "pissa", "svd-lora"])
def test_methods_for_layers_leave_experts_out_or_refuse_them_by_name(method: str) -> None:
    model, chosen = expert_model("deepseek_v3"), METHODS[method](rank=2)
    every_site = sites(model)
    adapted = chosen.adaptable(every_site, "all")
    assert {site.parameter for site in adapted} == {None}
    attached = chosen.attach(model, adapted, 0)
    ends = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in attached.adapter}
    assert ends == {site.name for site in adapted}
    with pytest.raises(IwloraError, match=f"{method} does not adapt.*experts.down_proj"):
        chosen.adaptable(sites(expert_model("deepseek_v3"), ["expert_down"]), ["expert_down"])


@pytest.mark.parametrize(
    ("method", "name", "message"),
    [
        ("houlsby", "mixtral", "2 of 2 blocks of MixtralForCausalLM have no ffn_down"),
        ("pfeiffer", "deepseek_v3", "1 of 2 blocks of DeepseekV3ForCausalLM have no ffn_down"),
        ("parallel", "gpt_oss", "no target in GptOssForCausalLM is one of these"),
        ("prefix", "deepseek_v3", "compresses its keys and values"),
    ],
)
def test_methods_that_cannot_are_refused_by_name(method: str, name: str, message: str) -> None:
    model = expert_model(name)
    with pytest.raises(IwloraError, match=message):
        METHODS[method]().check_model(model, sites(model))


@pytest.mark.quick
def test_dropout_is_refused_where_experts_are_adapted() -> None:
    model = expert_model("mixtral")
    method = METHODS["lora"](rank=2, dropout=0.1)
    with pytest.raises(IwloraError, match=r"no dropout for 6 of the 14 sites.*expert"):
        method.check(sites(model))
    method.check(sites(model, exclude=["expert_gate_up", "expert_down", "router"]))


def test_a_narrow_gate_limits_its_own_rank_only() -> None:
    model = expert_model("qwen2_moe")
    method = METHODS["lora"](rank=8)
    every_site = sites(model)
    method.check(every_site)
    attached = method.attach(model, every_site, 0)
    ranks = {site.kind: pair.rank for site, pair in zip(every_site, attached.pairs, strict=True)}
    assert ranks["query"] == ranks["expert_gate_up"] == 8
    by_name = {pair.name: pair for pair in attached.pairs}
    gate = by_name["model.layers.0.mlp.shared_expert_gate"]
    assert (gate.rank, gate.scaling) == (1, attached.pairs[0].scaling)
    assert by_name["model.layers.0.mlp.gate.weight"].rank == 4
    with pytest.raises(IwloraError, match=r"accepted are 1 to 12"):
        METHODS["lora"](rank=13).check(every_site)


def test_reports_read_the_norms_of_the_updates_of_experts(
    tmp_path: Path,
) -> None:
    from iwlora.compare.report.update_norms import update_norms

    attached = trained("qwen2_moe", METHODS["lora"](rank=6))
    attached.save(tmp_path)
    penalty = iwlora.Penalty(attached.model, {pair.name: 1.0 for pair in attached.pairs})
    read = update_norms(SimpleNamespace(folder=tmp_path))  # type: ignore[arg-type]
    assert read is not None
    norms = {name.removesuffix(".weight"): norm for name, norm in penalty.norms().items()}
    assert {name: norm for name, (norm, _) in read.items()} == pytest.approx(norms, rel=1e-4)
    ranks = {pair.name.removesuffix(".weight"): pair.rank for pair in attached.pairs}
    assert {name: rank for name, (_, rank) in read.items()} == ranks


def test_targets_that_peft_would_take_for_others_are_refused() -> None:
    model = expert_model("deepseek_v3")
    called = [
        replace(site, parameter=None) for site in sites(model, ["mlp.gate_proj", "mlp.up_proj"])
    ]
    with pytest.raises(IwloraError, match="PEFT adapts other matrices"):
        METHODS["lora"](rank=2).attach(model, called, 0)
