"""What a stage says that it decided, where runs failed."""

from __future__ import annotations

from random import Random
from typing import Literal

import pytest

from iwlora.design.decisions import decide
from iwlora.design.report.tables import cost_sentence
from iwlora.design.report.text import summary_text
from iwlora.design.stages import Stage
from iwlora.methods.grouped.space import combinations
from iwlora.results.comparison.designs import DrawnRun
from iwlora.results.comparison.record import RaceRule
from planted_designs import ended_search

pytestmark = pytest.mark.quick


def drawn(choice: str, *scores: float | None, loss: float | None = None) -> list[DrawnRun]:
    return [
        DrawnRun(
            choice=choice,
            draw=draw,
            seed=draw,
            point={},
            score=score,
            loss=loss,
            seconds=None if score is None else 10.0,
            folder=f"{choice}/{draw}",
        )
        for draw, score in enumerate(scores)
    ]


@pytest.mark.parametrize("search", ["race", "paper"])
@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ([0.9, 0.8], "bottleneck has the best mean"),
        ([0.9, None], "spindle has the best mean of the choices without failed runs"),
    ],
)
def test_a_choice_with_failed_runs_is_not_said_to_have_the_lower_mean(
    search: Literal["race", "paper"], scores: list[float | None], sentence: str
) -> None:
    choices = {name: name for name in ("spindle", "bottleneck")}
    stage = Stage("grouping", "grouping", 1, search, choices)
    runs = drawn("spindle", 0.7, 0.6) + drawn("bottleneck", *scores)
    decision = decide(stage, runs, "accuracy", RaceRule(draws=[2]), 4, lambda _: True)
    assert f"{sentence}; " in decision.found.replace(" and is taken", "")


RATES = Stage("lr", "lr", 0, "grid", {"0.001": 1e-3, "0.01": 1e-2, "0.1": 1e-1})


def test_the_learning_rate_is_the_tried_one_nearest_to_the_lowest_loss() -> None:
    """The best score is elsewhere; the curve through these losses is lowest at 0.015."""
    runs = [
        *drawn("0.001", 0.6, 0.6, loss=0.5),
        *drawn("0.01", 0.7, 0.7, loss=0.3),
        *drawn("0.1", 0.8, 0.8, loss=0.4),
    ]
    decision = decide(RATES, runs, "accuracy", RaceRule(draws=[2]), 4, lambda _: True)
    assert decision.value == 1e-2
    assert [choice.state for choice in decision.choices] == ["not taken", "kept", "not taken"]
    assert "0.01 for all designs: of those tried, the nearest to 0.015" in decision.found


def test_where_runs_of_every_learning_rate_failed_the_fewest_failures_count() -> None:
    runs = [*drawn("0.001", 0.9, None), *drawn("0.01", None, None), *drawn("0.1", 0.8, None)]
    decision = decide(RATES, runs, "accuracy", RaceRule(draws=[2]), 4, lambda _: True)
    assert decision.value == 1e-3
    assert "runs of every one failed, and it has the best mean of the choices" in decision.found


def test_a_screen_takes_the_possible_sets_with_the_largest_sum_of_effects() -> None:
    """Each strategy adds something, and the model can have one in a group: the worst sets."""
    sets, generator = combinations(["pfeiffer", "prefix", "bitfit", "lora"]), Random(0)
    runs = []
    for draw in range(80):
        chosen = [generator.choice(sets) for _ in range(2)]
        gains = {"lora": (0.01, 0.03), "prefix": (0.02, 0.01)}
        score = 0.5 + generator.gauss(0, 0.001)
        for group, names in enumerate(chosen):
            score += sum(gains.get(name, (0.01, 0.01))[group] for name in names)
        (run,) = drawn("designs", score)
        point = {"tuned": "all", "strategies": chosen}
        runs.append(run.model_copy(update={"draw": draw, "seed": draw, "point": point}))
    stage = Stage("assignment", "assignment", 4, "screen", {"designs": sets})
    assert (stage.count, RATES.count) == (15, 3)
    rule = RaceRule(draws=[2])
    decision = decide(stage, runs, "accuracy", rule, 2, lambda sets: all(len(s) == 1 for s in sets))
    assert decision.value == (("prefix",), ("lora",))
    whole = decide(stage, runs, "accuracy", rule, 2, lambda _: True)
    assert len(whole.value[0]) == 4
    assert "of 8 effects" in whole.found
    assert "cannot be estimated" not in whole.found
    upper = [run.model_copy(update={"point": {**run.point, "tuned": [1]}}) for run in runs]
    half = decide(stage, upper, "accuracy", rule, 2, lambda _: True)
    assert "of 4 effects" in half.found
    assert "; 4 effects in group 2 cannot be estimated from these runs" in half.found
    summary = ended_search(upper, "assignment", paper_runs=6)
    found = {"tuned": [1], "strategies": [["lora"], ["prefix"]]}
    fields = {"value": found["strategies"], "choices": half.choices}
    changed = {"found": found, "stages": [summary.stages[0].model_copy(update=fields)], "lr": 0.001}
    shown = summary_text(summary.model_copy(update=changed))
    assert shown.count("{lora} {}") == 2, "of the stage and of the found design"


def test_the_time_of_failed_runs_is_not_taken_for_zero() -> None:
    summary = ended_search(drawn("spindle", 0.7, None, 0.8), "grouping", paper_runs=6)
    text = cost_sentence(summary)
    assert "3 runs, 20.0 s of training and measuring, without the time of 1 failed run" in text
    assert "6 runs, about 1 min" in text
