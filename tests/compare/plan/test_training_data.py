"""Arms differ in their training data only as declared, and are scored on the same rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import run_settings, write_recipe
from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.preflight import check_task
from iwlora.compare.plan.run_recipes import plan_run_recipes
from iwlora.compare.plan.training_data import SHARED_TASK_SETTINGS
from iwlora.errors import IwloraError
from iwlora.results.comparison.record import TRAINING_DATA
from iwlora.tasks import load
from iwlora.tasks.spec import TaskSpec

pytestmark = pytest.mark.quick

MakePlan = Callable[..., Plan]
FEW = {"name": "lora", "task": {"max_train": 32}}


def part(path: str, target: Path, share: float = 0.5) -> str:
    """A file with the header and some rows of another; with both classes."""
    header, *rows = Path(path).read_text().splitlines()
    kept = random.Random(0).sample(rows, int(share * len(rows)))
    target.write_text("\n".join([header, *kept]) + "\n")
    return str(target)


def test_an_arm_has_its_own_declared_training_data(make_plan: MakePlan) -> None:
    """Also in its trials and its controls."""
    methods = ["lora", {"name": "iw-lora", "task": {"max_train": 32}}]
    search = {"lr": [1e-4, 1e-3, 1e-2]}
    plan = make_plan(methods=methods, vary=["task.max_train"], controls=True, search=search)
    own = {run.label: run.recipe.task.max_train for run in plan.first_runs}
    assert own.pop("lora") is None
    assert "iw-lora-max_train=32" in own
    assert "lora-uniform-penalty-max_train=32" in own
    assert set(own.values()) == {32}
    assert {run.recipe.task.max_train for run in plan.trials if run.label in own} == {32}
    assert plan.record().vary == ["task.max_train"]
    for run in plan.runs:
        assert run.folder(Path("c")) == Path("c") / run.label / f"seed-{run.seed}"


def test_arms_with_smaller_draws_have_the_study_rows_of_the_largest(
    make_plan: MakePlan, reviews: dict[str, str]
) -> None:
    small = {"name": "lora", "label": "few", "task": {"max_train": 24}}
    task = {**reviews, "max_train": 40, "score_rows": "all"}
    plan = make_plan(task=task, methods=["lora", small], vary=["task.max_train"])
    study = [load(run.recipe.task, run.seed).splits["study"]["text"][:] for run in plan.runs]
    assert len(plan.runs) == 4
    assert all(rows == study[0] for rows in study)
    check_task(plan)


def test_each_arm_searches_on_its_own_training_rows(make_plan: MakePlan) -> None:
    """The rows that a search holds out are training rows, so they differ as was declared."""
    search = {"lr": [1e-4, 1e-3, 1e-2], "holdout": 0.25}
    entry = {"name": "lora", "label": "few", "task": {"max_train": 24}}
    plan = make_plan(methods=["lora", entry], vary=["task.max_train"], search=search)
    held_out, trained = {}, {}
    for trial in plan.trials:
        task = load(trial.recipe.task, trial.seed)
        held_out.setdefault(trial.label, set()).add(tuple(task.splits["validation"]["text"]))
        trained.setdefault(trial.label, set()).add(len(task.splits["train"]))
    assert trained == {"lora": {74}, "few": {24}}, "whole groups of equal texts are held out"
    assert [len(rows) for rows in held_out.values()] == [1, 1], "one set of rows for an arm"
    assert held_out["lora"] != held_out["few"]


def test_the_value_of_one_arm_replaces_that_of_all(
    make_plan: MakePlan, reviews: dict[str, str]
) -> None:
    every = {"name": "lora", "task": {"max_train": None}}
    plan = make_plan(task={**reviews, "max_train": 8}, methods=["lora", every, FEW],
                     vary=["task.max_train"])  # fmt: skip
    assert plan.labels == ["lora", "lora-max_train=all", "lora-max_train=32"]
    assert [run.recipe.task.max_train for run in plan.first_runs] == [8, None, 32]


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        ({"task": {"max_train": 1600}}, "lora-max_train=1600"),
        ({"task": {"mix": [{"train": "x/b c.csv"}]}}, "lora-mix=b_c"),
        ({"train": {"sampler": "balanced"}}, "lora-sampler=balanced"),
        ({"label": "small", "task": {"max_train": 7}}, "small"),
    ],
)
def test_labels_say_what_differs(make_plan: MakePlan, entry: dict[str, Any], label: str) -> None:
    plan = make_plan(methods=["lora", {"name": "lora", **entry}], vary=_fields(entry))
    assert plan.labels == ["lora", label]


def _fields(entry: dict[str, Any]) -> list[str]:
    return [f"{part}.{name}" for part in ("task", "train") for name in entry.get(part, {})]


def test_every_field_of_the_task_may_vary_or_says_why_not(make_plan: MakePlan) -> None:
    may_vary = {field.partition(".")[2] for field in TRAINING_DATA if field.startswith("task.")}
    assert may_vary | set(SHARED_TASK_SETTINGS) == set(TaskSpec.model_fields)
    assert not may_vary & set(SHARED_TASK_SETTINGS)
    for name, reason in SHARED_TASK_SETTINGS.items():
        entry = {"name": "lora", "task": {name: "x"}}
        with pytest.raises(IwloraError) as refused:
            make_plan(methods=[entry, "iw-lora"], vary=[f"task.{name}"])
        assert f"vary: arms may not differ in task.{name}: {reason}; accepted are task.max" in str(
            refused.value
        )
        with pytest.raises(IwloraError) as refused:
            make_plan(methods=[entry, "iw-lora"])
        assert f"methods: lora: task.{name}='x' for one arm alone is unfair: {reason}; " in str(
            refused.value
        )


def test_all_problems_are_told_at_once(make_plan: MakePlan) -> None:
    methods = [
        {"name": "lora", "task": {"max_train": 32, "validation": "other.csv"}},
        {"name": "iw-lora", "task": "glue/rte", "train": {"epochs": 2}},
    ]
    with pytest.raises(IwloraError) as refused:
        make_plan(methods=methods, vary=["task.mix"])
    text = str(refused.value)
    for words in (
        "vary: task.mix is declared, and no arm has its own; remove it",
        "lora: task.max_train=32 for one arm alone is unfair: the arms would have other data; set "
        "task.max_train for all, or declare that arms differ in it: vary: [task.max_train]",
        "lora: task.validation='other.csv' for one arm alone is unfair: the arms would be scored "
        "on other rows; set task.validation for all",
        "iw-lora: task='glue/rte': accepted is a mapping such as max_train: 1600",
        "iw-lora: train.epochs=2 for one arm alone is unfair",
    ):
        assert words in text
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ("task.max_train", r"vary='task.max_train': accepted is a list of fields such as \[task"),
        ([1], "accepted is a list of fields"),
        ({"task": 1}, "accepted is a list of fields"),
        (["task.max_trian"], "unknown field of the training data 'task.max_trian'; did you mean"),
        (["train.lr", "model"], "unknown field of the training data 'model'"),
        (["task.max_train", "train.sampler"], "train.sampler is declared, and no arm has its own"),
    ],
)
def test_a_declaration_that_says_nothing_is_refused(
    make_plan: MakePlan, vary: Any, words: str
) -> None:
    with pytest.raises(IwloraError, match=words):
        make_plan(methods=["lora", FEW], vary=vary)
    assert make_plan(vary=None).vary == make_plan(vary=[]).vary == ()


def test_scored_rows_that_come_from_the_training_data_are_compared_by_digest(
    make_plan: MakePlan, reviews: dict[str, str], tmp_path: Path
) -> None:
    """A held-out tenth does not depend on ``max_train``, but on the file and its mixture."""
    half = part(reviews["train"], tmp_path / "half.csv")
    whole = {key: value for key, value in reviews.items() if key != "validation"}

    def rows(task: dict[str, str], **own: Any) -> list[int]:
        entry = {"name": "lora", "label": "other", "task": own}
        vary = [f"task.{name}" for name in own]
        return check_task(make_plan(task=task, methods=["lora", entry], vary=vary))[0]

    assert rows(whole, max_train=20) == [88, 20]  # eight rows are held out
    assert rows(reviews, max_train=20) == [96, 20]
    assert rows(reviews, train=half) == [96, 48]
    assert rows(reviews, mix=[{"train": half}]) == [96, 144]
    for own in ({"train": half}, {"mix": [{"train": half}]}):
        with pytest.raises(IwloraError, match="other would not be scored as lora is: ") as refused:
            rows(whole, **own)
        assert "give rows to score that do not depend on the training data" in str(refused.value)
    third = tmp_path / "third.csv"
    third.write_text(Path(half).read_text() + "99,it is a film,mixed\n")
    with pytest.raises(IwloraError, match=r"is: .*the class names are others; give rows"):
        rows(reviews, train=str(third))


def test_the_scored_rows_of_a_named_task_do_not_depend_on_max_train(
    make_plan: MakePlan, glue_dir: Path
) -> None:
    """Read from files in the official layout."""
    for name in ("glue/rte", "glue/cola"):
        task = {"name": name, "data_dir": str(glue_dir)}
        rows, _ = check_task(make_plan(task=task, methods=["lora", FEW], vary=["task.max_train"]))
        assert rows[0] > 2000
        assert rows[1] == 32


def test_recipes_of_runs_declare_other_training_data_too(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    settings = run_settings(tiny_bert, reviews)
    other = {**settings, "task": {**reviews, "max_train": 32}}
    paths = [
        str(write_recipe(tmp_path / f"{name}.yaml", values))
        for name, values in (("all", settings), ("few", other))
    ]
    with pytest.raises(IwloraError, match=r"few: its training data .*: vary=\[task.max_train\]"):
        plan_run_recipes(paths)
    plan = plan_run_recipes(paths, ["vary=[task.max_train]"])
    assert [run.recipe.task.max_train for run in plan.first_runs] == [None, 32]
    assert plan.record().vary == ["task.max_train"]
    with pytest.raises(IwloraError, match=r"task\.mix is declared, and no arm has its own"):
        plan_run_recipes(paths, ["vary=[task.max_train,task.mix]"])
    with pytest.raises(IwloraError, match="vary=1: accepted is a list"):
        plan_run_recipes(paths, ["vary=1"])
    write_recipe(Path(paths[1]), {**settings, "task": {**other["task"], "text": "id"}})
    with pytest.raises(IwloraError, match="few: its task differs from that of the others"):
        plan_run_recipes(paths, ["vary=[task.max_train]"])
