"""The first answer claims a difference only where the test and both intervals show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from analyzed_scores import BETTER, EQUAL, LORA, analyzed, over_rows
from iwlora.compare.report.answers.findings import findings
from iwlora.compare.report.answers.is_it_real import is_it_real
from iwlora.compare.report.answers.learning import unlearned
from iwlora.compare.report.answers.what_to_train import what_to_train
from iwlora.compare.statistics.analysis import Analysis
from iwlora.compare.statistics.bootstrap import rows_needed
from iwlora.results.run import FloorScore

pytestmark = pytest.mark.quick


def first_answer(analysis: Analysis) -> tuple[str, str]:
    answer = is_it_real(analysis, findings(analysis), [*map(unlearned, analysis.comparisons)])
    return answer.short, "\n".join(answer.evidence)


def test_a_winner_and_a_loser_are_named() -> None:
    worse = [2 * score - other for score, other in zip(LORA, BETTER, strict=True)]
    short, evidence = first_answer(analyzed({"lora": LORA, "a": BETTER, "b": worse}))
    assert short == "Yes, in accuracy: a is better than lora, and b is worse than lora."
    assert "a is better than lora: +5.09 points, 95% interval +5.02 to +5.16 (p = " in evidence
    assert "more seeds" not in evidence


def test_a_lower_loss_is_better() -> None:
    short, evidence = first_answer(analyzed({"lora": BETTER, "a": LORA}, metric="loss"))
    assert short == "Yes, in loss (lower is better): a is better than lora."
    assert "a is better than lora: -0.0509, " in evidence


def test_no_difference_says_how_many_seeds_would_settle_it() -> None:
    found = analyzed({"lora": LORA, "a": [0.001 + score for score in EQUAL]})
    short, evidence = first_answer(found)
    assert short == "No difference from lora is shown in accuracy."
    needed = found.tasks[0].differences[0].seeds_needed
    assert needed is not None
    assert f"The interval contains zero. About {needed - 8:,} more seeds would settle" in evidence


@pytest.mark.parametrize(("seeds", "are"), [(1, "1 seed is"), (3, "3 seeds are")])
def test_few_seeds_claim_nothing(seeds: int, are: str) -> None:
    short, evidence = first_answer(analyzed({"lora": LORA[:seeds], "a": BETTER[:seeds]}))
    assert short == f"Not known yet. {are} too few: a test needs 6 or more."
    assert "better" not in short + evidence


def test_one_method_has_nothing_to_be_compared_with() -> None:
    short, evidence = first_answer(analyzed({"lora": LORA}))
    assert short == "There is one method, so there is no difference to test."
    assert evidence == "lora: accuracy 60.25 ± 1.04 with 8 seeds."


def test_a_difference_on_few_rows_is_not_claimed_for_others() -> None:
    found = over_rows(analyzed({"lora": LORA, "a": BETTER}), -0.049, 0.151, rows=200)
    short, evidence = first_answer(found)
    assert short == "For a, it is shown for these scored rows only."
    assert "This holds for these 200 scored rows. With other rows the difference may be" in evidence
    assert "-4.90 to +15.10. About 77" in evidence, "200 rows · (10 / 5.1)²"
    enough = over_rows(analyzed({"lora": LORA, "a": BETTER}), 0.001, 0.1, rows=200)
    assert first_answer(enough)[0].startswith("Yes")


def test_the_rows_needed_are_those_with_which_the_interval_touches_zero() -> None:
    mean, by_seeds, by_rows, rows, t = 0.02, 2e-5, 3e-4, 400, 2.3
    needed = rows_needed(mean, by_seeds + by_rows, by_seeds, t * np.sqrt(by_seeds + by_rows), rows)
    assert needed is not None
    half = [t * np.sqrt(by_seeds + by_rows * rows / n) for n in (needed - 1, needed)]
    assert half[1] <= mean < half[0]
    assert rows_needed(0.001, by_seeds + by_rows, by_seeds, 0.04, rows) is None, "seeds alone vary"


def beside(margins: Mapping[str, float]) -> dict[str, Any]:
    """The fields of results that are better than their floors by these margins."""
    floors = [
        FloorScore(
            name=name, trivial=name != "bag of words", rows=300, metrics={"accuracy": 0.5},
            margin=margin, low=margin - 0.02, high=margin + 0.02,
        )
        for name, margin in margins.items()
    ]  # fmt: skip
    return {"floors": floors}


def test_methods_that_learned_nothing_are_named_first() -> None:
    bad, good = {"most frequent class": 0.01}, {"most frequent class": 0.1, "bag of words": 0.05}
    scores = {"lora": LORA, "a": EQUAL, "b": EQUAL}
    known = {"lora": beside(good), "a": beside(bad), "b": beside(good)}
    short, evidence = first_answer(analyzed(scores, known=known))
    assert short == "a learned nothing. No difference from lora is shown in accuracy."
    assert evidence.startswith("a is not shown to learn: above the most frequent class by")
    assert "\nlora beats the bag of words by 5.0 points (95% interval " in evidence
    assert "\nb also beats its floors." in evidence
    short, _ = first_answer(analyzed(scores, known=dict.fromkeys(scores, beside(bad))))
    assert short == "No: no method learned anything."


def test_a_method_below_a_bag_of_words_is_told_so() -> None:
    known = {"lora": beside({"most frequent class": 0.1, "bag of words": -0.05})}
    found = analyzed({"lora": LORA}, known=known)
    assert "lora is below the bag of words by 5.0 points" in first_answer(found)[1]
    advice = what_to_train(found, findings(found), [[]]).evidence[0]
    assert advice.startswith("The bag of words needs no fine-tuning, and lora is not shown")
