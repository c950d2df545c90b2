"""Every recipe that is shipped goes through the real parser; the paper's have its values."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from iwlora.compare.plan.planned_runs import PlannedRun
from iwlora.compare.plan.recipe import load_plan
from iwlora.design.recipe import load_design
from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.training.overrides import read_yaml
from iwlora.training.recipe import Recipe, load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PAPER = sorted((ROOT / "recipes" / "paper").glob("*.yaml"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> list[Recipe]:
    """The run of a recipe, all those of a comparison, or what those of a search share."""
    settings = read_yaml(path)
    if "design" in settings:
        return [load_design(str(path)).run]
    if "methods" in settings:
        return [run.recipe for run in load_plan(str(path)).runs]
    return [load(str(path))]


def test_no_recipe_is_overlooked() -> None:
    walked = [file for _, _, files in os.walk(ROOT / "recipes") for file in files]
    assert len(RECIPES) == len(walked) > 3
    assert {path.parent.name for path in RECIPES} >= {"recipes", "paper", "compare"}


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_it_parses(path: Path) -> None:
    recipes = parse(path)
    assert recipes
    for recipe in recipes:
        assert recipe.method.name in METHODS


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_its_first_lines_say_how_to_start_it(path: Path) -> None:
    comment = "".join(re.findall(r"(?m)^#.*\n", path.read_text(encoding="utf-8")))
    settings = read_yaml(path)
    command = "compare" if "methods" in settings else "train"
    command = "design" if "design" in settings else command
    assert re.search(rf"iwlora {command} {name_of(path)} .*--out runs/", comment)


def test_a_wrong_recipe_would_be_noticed(tmp_path: Path) -> None:
    text = PAPER[0].read_text(encoding="utf-8")
    for right, wrong in (("epochs:", "epoch:"), ("iw-lora", "iwlora"), ("batch_size: 32", "x: 1")):
        assert right in text
        (tmp_path / "r.yaml").write_text(text.replace(right, wrong), encoding="utf-8")
        with pytest.raises(IwloraError):
            parse(tmp_path / "r.yaml")


def test_the_paper_has_three_tasks() -> None:
    tasks = {path.stem: load_plan(str(path)).runs[0].recipe.task.name for path in PAPER}
    assert tasks == {"mnli": "glue/mnli", "rte": "glue/rte", "sst2": "glue/sst2"}


@pytest.fixture(params=PAPER, ids=name_of)
def paper(request: pytest.FixtureRequest) -> dict[str, list[PlannedRun]]:
    plan = load_plan(str(request.param))
    return {label: [run for run in plan.runs if run.label == label] for label in plan.labels}


def test_the_paper_compares_four_methods(paper: dict[str, list[PlannedRun]]) -> None:
    assert list(paper) == ["full", "lora", "adalora", "iw-lora"]
    for label, runs in paper.items():
        assert {run.recipe.method.name for run in runs} == {label}
        assert len({run.seed for run in runs}) == len(runs) > 1
        assert [run.seed for run in runs] == [run.recipe.train.seed for run in runs]


def test_the_paper_has_the_values_of_the_paper(paper: dict[str, list[PlannedRun]]) -> None:
    for label, runs in paper.items():
        for recipe in (run.recipe for run in runs):
            assert recipe.model == "microsoft/deberta-v3-base"
            assert recipe.targets == "all"
            assert recipe.train.epochs == 3
            assert recipe.train.batch_size == 32
            assert recipe.task.max_train is None
            if label == "full":
                assert recipe.method.size is None
                continue
            assert recipe.method.size == 8
            assert recipe.train.lr == 2e-4
            if isinstance(recipe.method, IWLora):
                assert (recipe.method.alpha, recipe.method.beta) == (1e-4, 1.0)
                assert recipe.method.normalize == "sum"
                assert recipe.method.max_batches == 200
    assert isinstance(paper["iw-lora"][0].recipe.method, IWLora)


def test_within_a_comparison_only_the_method_and_the_seed_differ() -> None:
    for path in RECIPES:
        first, *others = parse(path)
        for recipe in others:
            assert (recipe.model, recipe.task, recipe.targets) == (
                first.model,
                first.task,
                first.targets,
            )
            apart = {"lr": first.train.lr, "seed": first.train.seed}
            assert recipe.train.model_copy(update=apart) == first.train
