"""Random designs: what they are drawn from, what their draws share, and what a run records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from iwlora.errors import IwloraError
from iwlora.methods.budget import fit_to_budget
from iwlora.methods.grouped.components import COMPONENTS
from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.parts import layers_of
from iwlora.methods.grouped.random_design import supported_space
from iwlora.methods.tiny_models import tiny_model
from iwlora.results.run import RunResult
from iwlora.sites import sites
from iwlora.training.run import train
from iwlora.training.state.artifacts import load_trained
from runs import recipe, with_options

RANDOM = Grouped(preset="random")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("architecture", "blocks", "sets", "patterns"),
    [
        ("bert", 6, 15, {"spindle", "bottleneck"}),
        ("bert", 5, 15, {"increasing", "decreasing", "spindle", "bottleneck"}),  # none is strict
        ("deberta-v2", 6, 7, {"spindle", "bottleneck"}),  # no prefix
        ("llama", 4, 7, {"uniform"}),  # no biases
    ],
)
def test_a_space_has_what_the_model_supports(
    architecture: str, blocks: int, sets: int, patterns: set[str]
) -> None:
    model = tiny_model(architecture, blocks=blocks)
    layers, cost = layers_of(sites(model), sites(model)), RANDOM.costs(model)
    space = supported_space(layers, cost)
    assert {*space.grouping} == patterns
    assert len(space.assignment) == sets
    assert space.allocation == ("uniform", "increasing", "decreasing")
    assert supported_space(layers, cost, with_budget=False).allocation == ("uniform",)


@pytest.mark.quick
def test_draws_follow_the_seed_and_fit_the_budget_or_are_counted() -> None:
    model = tiny_model("bert", blocks=6)
    method = RANDOM.with_budget(2500)
    draws = [
        method.model_copy(update={"design_seed": seed}).drawn(model, sites(model))
        for seed in range(20)
    ]
    assert any("drawn before it" in note for _, (note,) in draws)  # biases alone, for example
    for design, _ in draws:
        assert abs(design.parameters(model, sites(model)) - 2500) <= 0.05 * 2500
    for name in COMPONENTS:
        assert len({getattr(design, name) for design, _ in draws}) > 1, f"{name} is always the same"
    kept = method.model_copy(update={"tuned": (2,), "design_seed": 3})
    design, _ = kept.drawn(model, sites(model))
    assert (design.tuned, design.preset) == ((2,), None)
    assert kept.drawn(model, sites(model)) == kept.drawn(model, sites(model))


@pytest.mark.quick
def test_designs_that_are_impossible_are_refused() -> None:
    model = tiny_model("bert", blocks=6)
    with pytest.raises(IwloraError, match="none of 200 random designs fits the model"):
        fit_to_budget(RANDOM, model, sites(model), 3)
    with pytest.raises(ValidationError, match="design_seed=3 was given; it is for preset=random"):
        Grouped(preset="s4", design_seed=3)
    with pytest.raises(ValidationError) as caught:
        Grouped(preset="random", groups=[2, 4], tuned=[3], lr_factors={"dora": 2})
    for problem in ("numbers from 1 to 2", "lr_factors: no group has 'dora'"):
        assert problem in str(caught.value)


def test_a_run_records_its_random_design(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    made = recipe(tiny_bert, reviews, "grouped", epochs=1)
    made = with_options(made, preset="random", design_seed=1)
    train(made.model_copy(update={"budget": "20%"}), tmp_path / "run")
    result = RunResult.load(tmp_path / "run" / "result.json")
    (note,) = (note for note in result.notes if "preset=random" in note)
    assert all(f"{name}=" in note for name in COMPONENTS)
    assert result.ranks
    assert result.adapter_parameters == sum(part.parameters or 0 for part in result.ranks)
    record = json.loads((tmp_path / "run" / "adapter" / "iwlora_adapter.json").read_text())
    assert "prefix" in {part.kind for part in result.ranks}
    with pytest.raises(IwloraError, match="grouped cannot be merged: prefix"):
        load_trained(tmp_path / "run", merge=True)
    assert {(part.name, part.kind) for part in result.ranks} == {
        (layer, name) for layer, sizes in record["method"]["sizes"].items() for name in sizes
    }
