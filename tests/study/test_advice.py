"""The study and the advice: recipes that ask whether it is worth following, and one vocabulary."""

from __future__ import annotations

import csv
import gzip
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from advice.test_rules import decision, rules_of
from iwlora.advice.evidence import LABELS, Evidence, Table, read_evidence
from iwlora.compare.plan.recipe import load_plan
from iwlora.methods import METHODS
from iwlora_study.runner.cells import load_cells
from iwlora_study.runner.command import FORMS, STAGES, STUDY
from iwlora_study.runner.entries import load_entries
from iwlora_study.runner.forms import Form
from study_methods import declared, load

RECIPES = sorted((Path(__file__).parents[2] / "study" / "advice").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_advice_is_compared_as_it_is_given(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in declared():
        monkeypatch.setitem(METHODS, name, load(name))
    plan = load_plan(str(recipe), [])
    assert [*plan.labels] == ["advice", "all", "uniform-rank-1", "query-value", "random-sites"]
    assert (plan.baseline, len(plan.runs)) == ("advice", 40)
    advised = decision(read_evidence(), params="41472").settings
    arm = plan.runs[0].recipe
    assert arm.label == "advice"
    assert (arm.method.name, arm.method.size) == ("lora", advised["method"]["rank"])
    assert arm.targets == "all"
    assert arm.train.lr == advised["train"]["lr"]


def test_there_are_two_tasks() -> None:
    assert len(RECIPES) == 2


STORED = RECIPES[0].parent / "scores"
PAGE = RECIPES[0].parents[2] / "docs" / "advise.md"


def stored_scores(name: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """{arm: {seed: accuracy in %}} and {floor: its mean accuracy in %}."""
    with gzip.open(STORED / f"{name}.csv.gz", "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    arms: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        arms[row["method"]][row["seed"]] = 100 * float(row["score"])
    floors = {column.removeprefix("floor: ") for column in rows[0] if column.startswith("floor: ")}
    means = {f: 100 * np.mean([float(row[f"floor: {f}"]) for row in rows]) for f in floors}
    return dict(arms), means


@pytest.mark.parametrize(("steps", "ending"), [("378", "-378-steps"), ("63", "")])
def test_the_page_shows_the_stored_scores(steps: str, ending: str) -> None:
    """Means, sd and 95% intervals of paired differences, by scipy, to a digit."""
    after = PAGE.read_text("utf-8").partition(f"After {steps} steps, ")[2].partition("\n\n|")[2]
    lines = after.partition("\n\n")[0].splitlines()[2:]
    names = [f"{recipe.stem}{ending}" for recipe in RECIPES]
    compared = 0
    for line in lines:
        arm, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for (arms, floors), score, difference in zip(
            map(stored_scores, names), cells[::2], cells[1::2], strict=True
        ):
            if arm in floors:
                assert float(score) == pytest.approx(floors[arm], abs=0.051)
                continue
            values = list(arms[arm].values())
            expected = [np.mean(values), np.std(values, ddof=1)]
            assert [float(x) for x in score.split(" ± ")] == pytest.approx(expected, abs=0.051)
            if arm == "advice":
                continue
            paired = [value - arms["advice"][seed] for seed, value in arms[arm].items()]
            low, high = stats.t.interval(0.95, len(paired) - 1, np.mean(paired), stats.sem(paired))
            shown = [float(x) for x in re.findall(r"[+-]\d+\.\d", difference)]
            assert shown == pytest.approx([np.mean(paired), low, high], abs=0.051)
            compared += 1
    assert compared == 8


CELLS = [cell for stage in STAGES for cell in load_cells(STUDY / stage)]
SITES = {
    "top": "important-sites",
    "bottom": "unimportant-sites",
    "random": "random-sites",
    "query-value": "query-value",
}
SHARES = {
    ("top", "5/6"): "without-unimportant-sites",
    ("random", "5/6"): "without-random-sites",
    ("last", "1/3"): "last-third",
    ("last", "1/6"): "last-block",
}
OPTIONS_OF_REPAIRED = {"alpha": 0.01, "normalize": "max"}


def label(arm: Mapping[str, Any]) -> str:
    return str(arm.get("label", arm["name"]))


def meant(arm: Mapping[str, Any]) -> set[str]:
    """The labels of the table that an arm may have; "" for one that the table has no label for."""
    name = arm["name"]
    if name == "lora-few-sites":
        # A 72nd has the queries and values of some blocks, and a 16th is half of rank 1.
        if arm.get("importance") or (arm["choose"], arm["share"]) in (
            ("query-value", "1/72"),
            ("random", "1/16"),
        ):
            return {""}
        return {SHARES.get((arm["choose"], arm["share"]), SITES.get(arm["choose"], ""))}
    if name in declared():
        return {""}
    if name == "lora":
        return {"lora", f"rank-{arm['rank']}-everywhere"}
    if name in ("iw-lora", "iw-lora-permuted", "lora-uniform-penalty"):
        assert {key: arm[key] for key in OPTIONS_OF_REPAIRED} == OPTIONS_OF_REPAIRED
        return {name.replace("iw-lora", "iw-lora-repaired").removeprefix("lora-")}
    return {name}


def has_its_label(arm: Mapping[str, Any]) -> bool:
    known = label(arm) in LABELS or label(arm) in METHODS or "everywhere" in label(arm)
    return (label(arm) if known else "") in meant(arm)


def test_arms_have_the_labels_of_the_table() -> None:
    for cell in CELLS:
        arms = cell.settings["methods"]
        wrong = [label(arm) for arm in arms if not has_its_label(arm)]
        assert not wrong, f"{cell.name}: {wrong}"
        if any(arm["name"] == "lora-few-sites" for arm in arms):  # a choice of matrices
            assert "lora" not in {label(arm) for arm in arms}, cell.name
    few = {"name": "lora-few-sites", "choose": "top", "share": "1/24"}
    assert not has_its_label({**few, "label": "top"})
    assert not has_its_label({**few, "label": "random-sites"})
    assert not has_its_label({**few, "share": "5/6", "label": "important-sites"})
    assert not has_its_label({"name": "ranks-by-spectrum", "label": "important-sites"})
    assert not has_its_label({"name": "lora", "rank": 2, "label": "rank-1-everywhere"})


def pairs() -> set[tuple[str, str]]:
    """What the table has, and what it gets from the cells: the pairs of a choice and a baseline."""
    found = {(row.choice, row.baseline) for row in read_evidence().rows}
    for cell in CELLS:
        labels = {label(arm) for arm in cell.settings["methods"]}
        found |= {(one, cell.settings["baseline"]) for one in labels}
        for form in load_entries(FORMS, Form):
            others = labels & {form.against, *form.controls}
            found |= {(form.arm, other) for other in others if form.arm in labels}
    return found


class Questions(Table):
    """A table that remembers what it was asked."""

    asked: set[tuple[str, str]]

    def find(self, choice: str, baseline: str, *others: Any, **named: Any) -> Evidence | None:
        self.asked.add((choice, baseline))
        return super().find(choice, baseline, *others, **named)


def test_every_question_of_a_rule_can_be_answered() -> None:
    table = Questions(read_evidence().rows)
    table.asked = set()
    rules = rules_of(table)
    rules.importance()
    rules.leaving_out()
    rules.learning_rate(0.001, 41_472)
    rules.method(41_472)
    assert len(table.asked) > 6
    assert table.asked <= pairs()
    for params in (None, "45K", "20K", "5000"):
        decision(table, params=params)
    asked = {choice for choice, _ in table.asked}
    unanswered = asked - {choice for choice, _ in pairs()}
    ranks = {name for name in unanswered if re.fullmatch("rank-[1-8]-everywhere", name)}
    # What is left where a limit allows no more; the advice says that it was not measured.
    assert unanswered - ranks <= {"value", "one-matrix"}
