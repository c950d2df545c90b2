"""The second answer: costs relative to the baseline, and only those that are known."""

from __future__ import annotations

from typing import Any

import pytest

from analyzed_scores import analyzed, over_tasks
from iwlora.compare.report.answers.what_it_costs import what_it_costs

pytestmark = pytest.mark.quick


def costs(seconds: float, parameters: int, **more: Any) -> dict[str, Any]:
    known = {"train_seconds": seconds, "trainable_parameters": parameters}
    return {**known, "peak_memory_bytes": 2**31, **more}


def test_costs_are_relative_to_the_baseline() -> None:
    scores = {label: [0.6] for label in ("lora", "full", "iw-lora", "bitfit")}
    found = analyzed(
        scores,
        known={
            "lora": costs(100, 1000),
            "full": costs(260, 75_000),
            "iw-lora": costs(100, 1000, measure_seconds=30),
            "bitfit": costs(98, 100),
        },
    )
    answer = what_it_costs(found)
    assert answer.short == (
        "full takes 2.60 times as long as lora; bitfit takes 0.98 times as long."
    )
    assert answer.evidence == (
        "lora: 1 min 40 s of training, 2.00 GiB of memory, 1,000 trained parameters.",
        "full: 2.60 times the time (4 min 20 s); 75.00 times the parameters (75,000); about the "
        "same memory.",
        "iw-lora: 1.30 times the time (2 min 10 s); about the same memory and parameters.",
        "bitfit: 0.10 times the parameters (100); about the same time and memory.",
    )


def test_unknown_costs_are_not_invented() -> None:
    scores = {"lora": [0.6], "a": [0.7]}
    assert what_it_costs(analyzed(scores)).short.startswith("Not known: these results have no")
    resumed = costs(5, 1000, resumed_at_step=40)
    answer = what_it_costs(analyzed(scores, known={"lora": costs(100, 1000), "a": resumed}))
    assert answer.short == "lora trains for 1 min 40 s."
    assert answer.evidence[1] == "a: about the same memory and parameters."


def test_the_memory_of_runs_trained_together_is_no_cost_of_one() -> None:
    packed = costs(100, 1000, other_runs=7)
    known = {"lora": packed, "bitfit": packed, "full": costs(100, 1000)}
    answer = what_it_costs(analyzed({label: [0.6] for label in known}, known=known))
    assert answer.evidence == (
        "lora: 1 min 40 s of training, 1,000 trained parameters.",
        "bitfit: about the same time and parameters.",
        "full: about the same time and parameters.",
        "Peak memory of lora and bitfit, which were trained together: 2.00 GiB (8 runs).",
    )


def test_over_several_tasks_times_are_added() -> None:
    """The larger task counts for more than the smaller one; an arm that lacks one is told."""
    small = analyzed(
        {"lora": [0.6], "full": [0.6], "bitfit": [0.6]},
        known={"lora": costs(60, 1000), "full": costs(60, 5000), "bitfit": costs(90, 100)},
    )
    large = analyzed(
        {"lora": [0.7], "full": [0.7]},
        known={
            "lora": costs(540, 1100, peak_memory_bytes=2**32),
            "full": costs(1740, 5500, peak_memory_bytes=2**32),
        },
    )
    for tasks in ((small, large), (large, small)):
        answer = what_it_costs(over_tasks(*tasks))
        assert answer.short == (
            "full takes 3.00 times as long as lora; bitfit takes 1.50 times as long. The time is "
            "the sum over the 2 tasks; memory and parameters are the largest."
        )
        assert sorted(answer.evidence) == [
            "bitfit (on 1 of 2 tasks): 1.50 times the time (1 min 30 s); 0.10 times the parameters "
            "(100); about the same memory.",
            "full: 3.00 times the time (30 min 00 s); 5.00 times the parameters (5,500); about the "
            "same memory.",
            "lora: 10 min 00 s of training, 4.00 GiB of memory, 1,100 trained parameters.",
        ]


def test_the_sum_of_times_is_not_known_where_one_is_not() -> None:
    one = analyzed({"lora": [0.6], "a": [0.6]}, known={"lora": costs(60, 9), "a": costs(60, 9)})
    two = analyzed({"lora": [0.6], "a": [0.6]}, known={"lora": costs(60, 9)})
    answer = what_it_costs(over_tasks(one, two))
    assert answer.short.startswith("lora trains for 2 min 00 s.")
    assert len(answer.evidence) == 1
