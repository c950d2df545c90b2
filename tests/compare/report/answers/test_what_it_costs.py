"""The second answer: costs relative to the baseline, and only those that are known."""

from __future__ import annotations

from typing import Any

import pytest

from analysed_scores import analysed
from iwlora.compare.report.answers.what_it_costs import what_it_costs

pytestmark = pytest.mark.quick


def costs(seconds: float, parameters: int, **more: Any) -> dict[str, Any]:
    known = {"train_seconds": seconds, "trainable_parameters": parameters}
    return {**known, "peak_memory_bytes": 2**31, **more}


def test_costs_are_relative_to_the_baseline() -> None:
    scores = {label: [0.6] for label in ("lora", "full", "iw-lora", "bitfit")}
    found = analysed(
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
    assert what_it_costs(analysed(scores)).short.startswith("Not known: these results have no")
    resumed = costs(5, 1000, resumed_at_step=40)
    answer = what_it_costs(analysed(scores, known={"lora": costs(100, 1000), "a": resumed}))
    assert answer.short == "lora trains for 1 min 40 s."
    assert answer.evidence[1] == "a: about the same memory and parameters."
