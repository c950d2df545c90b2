"""The rules of the search: what wins, what cannot, and rules of other packages."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint

import pytest

from iwlora.compare.statistics.learning_rate import rules
from iwlora.compare.statistics.learning_rate.rules import (
    RULES,
    Rule,
    best_score,
    find_rule,
    left_over,
    loss_curve,
)
from iwlora.errors import IwloraError
from iwlora.results.comparison.record import State, Trial

pytestmark = pytest.mark.quick

GRID = [1e-4, 1e-3, 1e-2]


def trial(
    lr: float, loss: float | None, seed: int = 7, state: State = "done", one_class: bool = False
) -> Trial:
    """A trial whose score and loss disagree: the lowest loss has the lowest accuracy."""
    score = 0.5 if loss is None else loss
    known = {"score": score, "loss": loss} if state == "done" else {}
    return Trial(lr=lr, seed=seed, state=state, one_class=one_class, **known)  # type: ignore[arg-type]


def trials(*losses: float | None, seed: int = 7) -> list[Trial]:
    return [trial(lr, loss, seed) for lr, loss in zip(GRID, losses, strict=True)]


def chosen(found: list[Trial], metric: str | None = None) -> float | None:
    optimum = loss_curve(found, metric)
    return optimum and optimum.learning_rate


def test_the_loss_decides_and_draws_are_pooled() -> None:
    assert chosen(trials(0.6, 0.4, 0.6)) == 1e-3
    assert best_score(trials(0.6, 0.4, 0.7)).learning_rate == 1e-2  # type: ignore[union-attr]
    both = [
        *trials(0.6, 0.4, 0.7),
        *trials(0.4, 0.6, 0.3, seed=8),
        *trials(0.4, 0.6, 0.3, seed=9),
    ]
    assert chosen(both) == 1e-2
    assert RULES["best-score"].adaptive is False


def test_a_trial_that_diverged_or_answers_with_one_class_cannot_win() -> None:
    """Although its loss would be the lowest."""
    best = [trial(1e-3, 0.4), trial(1e-2, 0.5)]
    for bad in (
        trial(1e-4, 0.1, one_class=True),
        trial(1e-4, None, state="diverged"),
        trial(1e-4, None, state="failed"),
    ):
        assert chosen([bad, *best]) == 1e-3
        second_draw = [trial(1e-4, 0.1, seed=8), *(trial(t.lr, t.loss, 8) for t in best)]
        assert chosen([bad, *best, *second_draw]) == 1e-3, "one bad draw is enough"
    assert chosen([trial(1e-4, 0.1), *best]) == 1e-4, "this test would notice it"


def test_if_all_answer_with_one_class_the_lowest_loss_wins() -> None:
    same = [trial(lr, loss, one_class=True) for lr, loss in zip(GRID, (0.7, 0.6, 0.9), strict=True)]
    optimum = loss_curve(same)
    assert optimum
    assert 1e-4 < optimum.learning_rate <= 1e-3
    assert loss_curve([trial(lr, None, state="diverged") for lr in GRID]) is None
    assert best_score([trial(lr, None, state="failed") for lr in GRID]) is None


def test_without_losses_the_score_takes_their_place() -> None:
    def scored(*scores: float) -> list[Trial]:
        return [
            Trial(lr=lr, seed=7, state="done", score=s) for lr, s in zip(GRID, scores, strict=True)
        ]

    assert chosen(scored(0.5, 0.8, 0.5)) == 1e-3
    assert chosen(scored(0.9, 0.8, 0.5), "perplexity") == 1e-2


def test_only_learning_rates_that_may_be_the_best_are_left_over() -> None:
    first = trials(0.9, 0.4, 0.41)
    assert left_over(first, GRID) == GRID, "one draw is no evidence"
    second = trials(0.95, 0.45, 0.455, seed=8)
    assert left_over([*first, *second], GRID) == [1e-3, 1e-2]
    diverged = [*first[:2], trial(1e-2, None, state="diverged")]
    assert left_over(diverged, GRID) == [1e-4, 1e-3]
    nothing = [trial(lr, None, state="not begun") for lr in GRID]
    assert left_over(nothing, GRID) == GRID


def test_a_package_adds_a_rule_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", f"{__name__}:MINE", rules.GROUP),
        EntryPoint("broken", f"{__name__}:GRID", rules.GROUP),
    ]
    monkeypatch.setattr(rules, "entry_points", lambda group: points)
    assert find_rule("mine") is MINE
    with pytest.raises(IwloraError, match=r"search.rule=broken: .*GRID of an installed package"):
        find_rule("broken")
    with pytest.raises(IwloraError, match=r"did you mean 'loss-curve'\? .*best-score, mine"):
        find_rule("loss-curves")


MINE = Rule(lambda found, _: None)


def test_a_loss_that_is_not_finite_is_no_loss() -> None:
    assert chosen([trial(1e-4, math.nan), trial(1e-3, 0.4), trial(1e-2, 0.5)]) == 1e-3
