"""The third answer: the best method that is shown to be better, else the baseline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from analyzed_scores import BETTER, EQUAL, LORA, analyzed, over_rows
from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.answers.findings import findings
from iwlora.compare.report.answers.learning import unlearned
from iwlora.compare.report.answers.what_to_train import what_to_train
from iwlora.compare.statistics.analysis import Analysis, analyze
from iwlora.results.comparison import load

pytestmark = pytest.mark.quick


def choice(analysis: Analysis) -> Answer:
    return what_to_train(analysis, findings(analysis), [*map(unlearned, analysis.comparisons)])


def test_the_best_of_the_better_methods() -> None:
    best = [score + 0.01 for score in BETTER]
    scores = {"lora": LORA, "a": BETTER, "b": best, "c": EQUAL}
    assert choice(analyzed(scores)).short == "Train b: it is shown to be better than lora."
    losses = analyzed({"lora": best, "a": BETTER, "b": LORA}, metric="loss")
    assert choice(losses).short == "Train b: it is shown to be better than lora."


def test_a_higher_score_that_is_not_shown_is_not_chosen() -> None:
    few = analyzed({"lora": LORA[:3], "a": BETTER[:3]})
    assert choice(few).short == "Train lora: no other method is shown to be better yet."
    assert choice(analyzed({"lora": LORA, "a": EQUAL})).short == (
        "Train lora: no other method is shown to be better."
    )
    rows = over_rows(analyzed({"lora": LORA, "a": BETTER}), -0.05, 0.15, rows=200)
    assert choice(rows).short == "Train lora: no other method is shown to be better."


def test_a_cheaper_method_is_mentioned_with_its_interval() -> None:
    sizes = {"lora": 1000, "a": 100}
    costs = {label: {"trainable_parameters": size} for label, size in sizes.items()}
    (sentence, _) = choice(analyzed({"lora": LORA, "a": EQUAL}, known=costs)).evidence
    assert sentence.startswith("a costs less: 0.10 times the parameters (100). Its difference from")
    assert "is +0.00 points, 95% interval -0.89 to +0.89." in sentence
    costs = {label: {"trainable_parameters": size} for size, label in enumerate(("a", "lora"), 1)}
    few = analyzed({"lora": LORA[:3], "a": EQUAL[:3]}, known=costs)
    assert "costs less" not in "".join(choice(few).evidence), "it may be worse: nothing is known"


def test_the_command_and_the_adapter_are_those_of_the_first_seed(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    folder = comparison_in(tmp_path / "a b", arms=["lora", "iw-lora"])
    (folder / "lora" / "seed-0" / "adapter").mkdir()
    answer = choice(analyze([load(folder)]))
    run = folder / "lora" / "seed-0"
    (command,) = answer.commands
    assert shlex.split(command) == [
        *("iwlora", "train", str(run / "recipe.yaml")),
        *("--out", "runs/lora-again"),
    ]
    assert answer.evidence == (f"The trained adapter of lora, seed 0 is in {run / 'adapter'}.",)


def test_scores_from_a_table_have_no_command() -> None:
    answer = choice(analyzed({"lora": LORA}))
    assert answer.short == "Train lora: it is the only method with a result here."
    assert answer.commands == ()
    assert answer.evidence[-1].startswith("The results came without recipes")


def test_what_learned_nothing_is_not_recommended(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    folder = comparison_in(tmp_path / "c", arms=["lora", "iw-lora"], seeds=2)
    for run in folder.glob("lora/seed-*"):
        predictions = run / "predictions" / "validation.csv"
        predictions.parent.mkdir()
        predictions.write_text("label,prediction\nyes,yes\nno,yes\n")
    answer = choice(analyze([load(folder)]))
    assert answer.short.startswith("None of these yet: lora learned nothing")
    assert answer.commands == ()


def test_a_missing_baseline_is_not_recommended(folder: Path) -> None:
    for result in folder.glob("lora/seed-*/result.json"):
        assert json.loads(result.read_text())["label"] == "lora"
        result.unlink()
    assert choice(analyze([load(folder)])).short == "Not known: lora has no finished run."


def test_several_tasks_have_a_command_each_that_writes_to_its_own_folder(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    tasks = ("glue/rte", "glue/mrpc")
    parts = [comparison_in(tmp_path / task, arms=["lora", "a"], task=task) for task in tasks]
    found = [*map(load, parts)]
    first, second = choice(analyze(found, tmp_path / "all")).commands
    assert first.endswith("glue/rte/lora/seed-0/recipe.yaml --out runs/lora-again-1")
    assert second.endswith("glue/mrpc/lora/seed-0/recipe.yaml --out runs/lora-again-2")
