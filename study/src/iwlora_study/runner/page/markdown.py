"""How the page of results writes tables and differences."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import format_difference
from iwlora_study.runner.forms import Outcome
from iwlora_study.runner.verdicts import Contrast

UNIT: dict[Outcome, str] = {"score": "points", "loss": "nats", "calibration_error": "ECE"}
OUTCOME: dict[Outcome, str] = {
    "score": "score",
    "loss": "held-out loss",
    "calibration_error": "calibration error",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table of Markdown.

    >>> table(["arm", "draws"], [["lora", "6"]])
    '| arm | draws |\n| --- | --- |\n| lora | 6 |'
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def improvement(one: Contrast) -> str:
    """The mean with its interval, in the unit of the outcome."""
    return difference(one.outcome, one.mean, one.low, one.high)


def difference(outcome: Outcome, mean: float, low: float | None, high: float | None) -> str:
    r"""A difference with its interval, in the unit of the outcome.

    >>> difference("score", 1.0, -0.5, 2.5)
    '+1.00 \\[-0.50, +2.50\\]'
    """
    known = [value for value in (mean, low, high) if value is not None]
    if outcome == "score":
        texts = [f"{value:+.2f}" for value in known]
    else:
        texts = [format_difference(outcome, value) for value in known]
    first, *interval = texts
    return f"{first} \\[{interval[0]}, {interval[1]}\\]" if interval else first
