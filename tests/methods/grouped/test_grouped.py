"""Mixtures: what they train, count, refuse, save and merge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from attention_functions import t5_calls_attention_functions
from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors
from iwlora.methods.budget import fit_to_budget
from iwlora.methods.contract import Attached
from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.loading import load_adapter, merge_adapter
from iwlora.methods.tiny_models import tiny_model
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sites import sites
from iwlora.testing import Case, checks
from iwlora.training.run import train
from iwlora.training.state.artifacts import load_trained
from runs import recipe, with_options

S4 = Grouped(preset="s4")
MIXED: dict[str, Any] = {
    "strategies": [["rslora", "houlsby", "bitfit"], ["prefix", "parallel", "dora"]],
    "allocation": "increasing",
}


def ids() -> Tensor:
    drawn = torch.randint(6, 60, (4, 7), generator=torch.Generator().manual_seed(2))
    drawn[:, -1] = 1
    return drawn


def trained(attached: Attached) -> Attached:
    """The same with every trained number moved at random."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in attached.trainable:
            parameter = attached.model.get_parameter(name)
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return attached


@torch.no_grad()
def logits(model: Any) -> Tensor:
    computed: Tensor = model.eval()(input_ids=ids()).logits
    return computed


@pytest.mark.quick
@pytest.mark.parametrize("budget", ["30%", 4000])
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("bert", {"preset": "s4"}),
        pytest.param("t5", {"preset": "s4"}, marks=t5_calls_attention_functions),
        ("gpt2", MIXED),
    ],
)
def test_counts_are_numel_and_within_5_percent_of_the_budget(
    architecture: str, settings: dict[str, Any], budget: str | int
) -> None:
    model = tiny_model(architecture, blocks=6)
    method: Any = fit_to_budget(Grouped(**settings), model, sites(model), budget)
    predicted = method.parameters(model, sites(model))
    attached = method.attach(model, sites(model), 0)
    training = [p for p in model.parameters() if p.requires_grad]
    head = sum(model.get_parameter(name).numel() for name in attached.head)
    assert attached.count() == predicted == sum(p.numel() for p in training) - head
    assert abs(predicted - method.adapter_parameters) <= 0.05 * method.adapter_parameters


@pytest.mark.quick
def test_parts_of_a_layer_get_equal_shares() -> None:
    model = tiny_model("bert", blocks=6)
    method: Any = S4.with_budget(6_000)
    design = method.design(model, sites(model))
    for costs, sizes in zip(design.costs, method.part_sizes(design), strict=True):
        sized = [costs[name].of(size) for name, size in sizes.items() if costs[name].unit]
        assert max(sized) - min(sized) <= 2 * max(cost.unit for cost in costs.values())  # carried
    assert [list(costs) for costs in design.costs][::5] == [
        ["pfeiffer", "lora"],
        ["prefix", "bitfit", "lora"],
    ]


@pytest.mark.quick
def test_allocations_follow_the_layers() -> None:
    model = tiny_model("bert", blocks=4)
    values = {site.name: float(site.depth == 2) + 1.0 for site in sites(model)}
    measured = Sensitivity(
        tuple(
            SiteSensitivity(
                s.name, s.kind, s.depth, s.d_in, s.d_out, value=values[s.name], stderr=0
            )
            for s in sites(model)
        ),
        *("exact", 8, 0.0, True, 0.1),
    )
    tokens = {}
    for allocation in ("uniform", "increasing", "decreasing", "importance"):
        method = Grouped(strategies=[["prefix"]], allocation=allocation).with_budget(3200)
        design = method.design(model, sites(model), measured)
        tokens[allocation] = [sizes["prefix"] for sizes in method.part_sizes(design)]
    assert tokens["uniform"] == [25] * 4
    assert tokens["increasing"] == [10, 20, 30, 40] == tokens["decreasing"][::-1]
    assert tokens["importance"] == [20, 20, 40, 20]
    flat = replace(measured, sites=tuple(replace(site, value=0.0) for site in measured.sites))
    with pytest.raises(IwloraError, match="every sensitivity of the tuned layers is 0"):
        method.design(model, sites(model), flat)
    assert Grouped(allocation="importance").calibration()
    assert S4.calibration() is None


@pytest.mark.quick
def test_groups_that_are_not_tuned_stay_frozen_and_parts_have_learning_rates() -> None:
    model = tiny_model("bart", blocks=3)
    method = Grouped(
        strategies=[["lora"], ["bitfit", "prefix"], ["prefix"]],
        groups=[1, 1, 1],
        tuned=[2, 3],
        lr_factors={"prefix": 5, "bitfit": 0.5},
    )
    attached = method.attach(model, sites(model), 0)
    assert {name.split(".")[3] for name in attached.adapter} == {"1", "2"}
    by_factor = {group.lr_factor: group.names for group in attached.parameter_groups}
    assert sorted(by_factor) == [0.5, 5]
    assert all(name.endswith(".prefix") for name in by_factor[5])
    assert len(by_factor[5]) == 4
    assert set(by_factor[5] + by_factor[0.5]) == set(attached.adapter)


@pytest.mark.quick
def test_all_problems_of_the_options_are_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Grouped(
            strategies=[["lora", "dora"], ["houlsby", "pfeiffer", "ia3"], ["prefix", "prefix"]],
            groups=[2, 2],
            tuned=[4],
            allocation=[1, 2],
            options={"lora": {"rank": 3}, "pfeiffer": {"activation": "tanh"}},
            lr_factors={"bitfit": 2},
        )
    message = str(caught.value)
    for problem in (
        "group 1: lora and dora are both low-rank updates, and a layer has one of them",
        "group 2: 'ia3' is no part of a layer; accepted are bitfit, prefix, lora",
        "group 2: houlsby and pfeiffer are both bottleneck adapters",
        "group 3: prefix is given twice",
        "groups has 2 counts, and there are strategies for 3 groups",
        "allocation has 2 weights",
        "tuned=[4] was given; accepted are 'all', and different numbers from 1 to 3",
        "options.lora.rank: the budget, or else part_size, sets it",
        "options.pfeiffer.activation",
        "lr_factors: no group has 'bitfit'",
    ):
        assert problem in message


@pytest.mark.quick
def test_values_of_other_kinds_are_reported_with_everything_else() -> None:
    with pytest.raises(ValidationError) as caught:
        Grouped(groups="pyramid", allocation=[1, -1], tuned=2, strategies=[["lora", "loar"], []])
    message = str(caught.value)
    for problem in (
        "accepted are increasing, uniform, decreasing, spindle, bottleneck, or how many layers",
        "accepted are uniform, increasing, decreasing, importance, or a weight above 0",
        "accepted are all, or the numbers of groups from 1",
        "group 1: 'loar' is no part of a layer",
        "group 2: a group has no strategy",
    ):
        assert problem in message
    with pytest.raises(ValidationError, match="no group has strategies; accepted are 1 to 8"):
        Grouped(strategies=[])
    with pytest.raises(ValidationError, match="groups has 0 counts"):
        Grouped(groups=[])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("architecture", "blocks", "settings", "problems"),
    [
        ("bert", 2, {"preset": "s4"}, ["4 groups of 2 layers were asked for"]),
        ("t5", 2, {"strategies": [["bitfit"]]}, ["encoder.block.0 .* has none", "decoder"]),
        ("deberta-v2", 4, {"preset": "s4"}, ["does not call these functions"]),
        ("t5", 3, {"strategies": [["lora"]] * 2, "groups": [1, 1]}, ["add up to 3"] * 2),
        (
            *(
                "deberta-v2",
                2,
                {"strategies": [["prefix"], ["prefix", "bitfit"]], "groups": [2, 1]},
            ),
            ["have 3 layers, and there are 2", "does not call these functions"],
        ),
    ],
)
def test_what_a_model_cannot_have_is_refused(
    architecture: str, blocks: int, settings: dict[str, Any], problems: list[str]
) -> None:
    model = tiny_model(architecture, blocks=blocks)
    for ask in (Grouped(**settings).check_model, lambda *at: Grouped(**settings).attach(*at, 0)):
        with pytest.raises(IwloraError) as caught:
            ask(model, sites(model))
        lines = str(caught.value).splitlines()
        assert len(lines) == len(problems)
        for line, problem in zip(lines, problems, strict=True):
            assert pytest.RaisesExc(IwloraError, match=problem).matches(IwloraError(line))


@pytest.mark.quick
def test_budgets_and_sizes_that_do_not_fit_are_refused() -> None:
    model = tiny_model("bert", blocks=6)
    for budget, problem in ((300, "the biases alone have 408"), (700, "nearest division")):
        with pytest.raises(IwloraError, match=problem):
            fit_to_budget(S4, model, sites(model), budget)
    with pytest.raises(IwloraError, match="part_size=17 was given; accepted are 1 to 16"):
        Grouped(part_size=17).attach(model, sites(model), 0)
    with pytest.raises(IwloraError, match="allocation=increasing divides a budget"):
        Grouped(allocation="increasing").attach(model, sites(model), 0)
    block = sites(model)[0].block
    for sizes, problem in (
        ({block: {"prefix": 2**30}}, "prefix=1073741824 in bert.encoder.layer.0"),
        ({"elsewhere": {"lora": 1}}, "sizes has elsewhere"),
    ):
        with pytest.raises(IwloraError, match=problem):
            Grouped(sizes=sizes).attach(model, sites(model), 0)
    with pytest.raises(IwloraError, match="sizes was given, and a budget"):
        fit_to_budget(Grouped(sizes={block: {"lora": 1}}), model, sites(model), 4000)


@pytest.mark.quick
def test_a_pattern_that_a_depth_does_not_have_is_noted() -> None:
    model = tiny_model("bert", blocks=4)
    method = Grouped(groups="spindle", strategies=[["lora"]] * 4)
    (note,) = method.attach(model, sites(model), 0).notes()
    assert note == (
        "groups=spindle: 4 layers have no 4 groups with its inequalities; they have the nearest, "
        "[1, 1, 1, 1]"
    )


@t5_calls_attention_functions
@pytest.mark.quick
def test_biases_of_the_preset_are_left_out_where_there_are_none() -> None:
    model = tiny_model("t5", blocks=6)
    attached = S4.attach(model, sites(model), 0)
    (note,) = attached.notes()
    assert "bitfit of preset=s4 is left out: T5ForSequenceClassification has layers without" in note
    assert not any(name.endswith("base_layer.bias") for name in attached.adapter)


@pytest.mark.quick
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_it_is_saved_with_names_of_the_backbone_and_loaded(
    architecture: str, tmp_path: Path
) -> None:
    model = tiny_model(architecture, blocks=6)
    method = S4.with_budget(4000)
    attached = trained(method.attach(model, sites(model), 0))
    attached.save(tmp_path)
    names = load_tensors(tmp_path / "adapter" / "adapter.safetensors")
    assert not [name for name in names if "base_layer" in name or "default" in name]
    backbone = dict(tiny_model(architecture, blocks=6).named_parameters())
    biases = [name for name in names if name.endswith(".bias") and name in backbone]
    assert len(biases) >= 3 * 6  # of three layers
    record = json.loads((tmp_path / "adapter" / "iwlora_adapter.json").read_text())["method"]
    assert len(record["sizes"]) == 6
    assert record["adapter_parameters"] == 4000
    fresh = load_adapter(tiny_model(architecture, head_seed=9, blocks=6), tmp_path / "adapter")
    assert_close(logits(fresh), logits(model), rtol=0, atol=0)
    assert S4.unmergeable == "prefix and pfeiffer cannot be part of a weight"


@pytest.mark.quick
def test_low_rank_parts_alone_are_a_plain_adapter_of_peft(tmp_path: Path) -> None:
    method: Any = Grouped(strategies=[["lora"]], allocation="increasing", lr_factors={"lora": 2})
    model = tiny_model("bert", blocks=3)
    attached = method.with_budget(6000).attach(model, sites(model), 0)
    assert attached.parameter_groups[0].names == attached.adapter
    trained(attached).save(tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    ranks = config["rank_pattern"]
    assert len(set(ranks.values())) == 3
    assert {config["alpha_pattern"][name] / rank for name, rank in ranks.items()} == {2.0}
    plain = PeftModel.from_pretrained(tiny_model("bert", blocks=3), tmp_path / "adapter")
    assert_close(logits(plain), logits(attached.model), rtol=0, atol=0)
    assert method.unmergeable is None
    assert_close(logits(merge_adapter(plain)), logits(attached.model), rtol=1e-4, atol=1e-5)


@pytest.mark.quick
def test_linear_parts_are_merged(tmp_path: Path) -> None:
    method = Grouped(strategies=[["lora", "bitfit"], ["dora"]], part_size=2)
    model = tiny_model("gpt2")
    attached = trained(method.attach(model, sites(model), 0))
    attached.save(tmp_path)
    merged = merge_adapter(load_adapter(tiny_model("gpt2", head_seed=9), tmp_path / "adapter"))
    assert merged.state_dict().keys() == tiny_model("gpt2").state_dict().keys()
    assert method.unmergeable is None
    assert_close(logits(merged), logits(attached.model), rtol=1e-4, atol=1e-5)


def test_a_run_divides_its_budget_and_is_loaded(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    strategies = [["lora", "bitfit"], ["pfeiffer", "prefix"]]
    made = recipe(tiny_bert, reviews, "grouped")
    made = with_options(made, strategies=strategies, allocation="importance")
    result = train(made.model_copy(update={"budget": "20%"}), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "adapter" / "iwlora_adapter.json").read_text())
    wanted = record["method"]["adapter_parameters"]
    assert abs(result["adapter_parameters"] - wanted) <= 0.05 * wanted
    assert load_trained(tmp_path / "run")
    with pytest.raises(
        IwloraError, match="grouped cannot be merged: prefix and pfeiffer cannot be"
    ):
        load_trained(tmp_path / "run", merge=True)


CHECKED = [check for check in checks.CHECKS if check is not checks.sizes_fit_budgets]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A prefix, the biases, low-rank updates of two kinds and a bottleneck adapter."""
    method = Grouped(strategies=[["prefix", "bitfit", "lora"], ["dora", "parallel"]], part_size=4)
    return Case(method, "bart", tmp_path_factory.mktemp("mixture"))


@pytest.mark.parametrize("check", CHECKED, ids=lambda check: check.__name__)
def test_a_mixture_conforms(check: Any, mixture: Case) -> None:
    check(mixture)
