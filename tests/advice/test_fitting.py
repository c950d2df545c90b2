"""Limits as they are typed, and what is done for those of time and memory."""

from __future__ import annotations

import pytest

from advice.predicted_costs import MIB, cost_of
from advice.test_rules import SETTINGS, measurement
from iwlora.advice.fitting import Candidate, candidate, within_memory, within_time
from iwlora.advice.layouts import everywhere
from iwlora.advice.limits import Limits
from iwlora.errors import IwloraError

pytestmark = pytest.mark.quick


def chosen(**settings: object) -> Candidate:
    return candidate(everywhere(measurement(), "all"), SETTINGS | settings, cost_of)


def test_limits_are_read_with_their_units() -> None:
    assert Limits.parse("300K", "1.5GiB", "2h") == Limits("300K", 1_610_612_736, 7200.0)
    assert Limits.parse(None, None, None) == Limits()
    with pytest.raises(IwloraError) as refused:
        Limits.parse("some", "16", "-3 min")
    params, memory, time = str(refused.value).splitlines()
    assert "params='some' was given; accepted are a percentage" in params
    assert "memory='16' was given; accepted are numbers above 0 with a unit (MB, GB" in memory
    assert "such as 90s, 30min or 2h" in time


@pytest.mark.parametrize(
    ("seconds", "layout", "steps", "text"),
    [
        (60, "everywhere", None, None),
        (35, "last-third", None, "the last 2 of 6 blocks takes about 34.0 s"),
        (30, "last-block", None, "only the last block takes about 30.0 s"),
        (20, "last-block", 200, "200 instead of 400 steps take about 20.0 s"),
        (1, "last-block", 50, "loading and scoring alone take about 10.0 s; the nearest is"),
    ],
)
def test_time(seconds: float, layout: str, steps: int | None, text: str | None) -> None:
    fitted, remark = within_time(chosen(), seconds, cost_of)
    assert fitted.layout.name == layout
    assert fitted.recipe.train.max_steps == steps
    assert (remark is None) == (text is None)
    assert text is None or text in str(remark)


@pytest.mark.parametrize(
    ("size", "accumulate", "checkpointing", "text"),
    [
        (560, 1, False, None),
        (300, 4, False, "train.accumulate=4 makes it about 240 MiB"),
        (136, 32, True, "train.accumulate=32; train.gradient_checkpointing=true makes it"),
        (10, 32, True, "the nearest takes about 134 MiB, of which 100 MiB are there before"),
    ],
)
def test_memory(size: int, accumulate: int, checkpointing: bool, text: str | None) -> None:
    fitted, remark = within_memory(chosen(), size * MIB, cost_of)
    train = fitted.recipe.train
    assert (train.accumulate, train.gradient_checkpointing) == (accumulate, checkpointing)
    assert (remark is None) == (text is None)
    assert text is None or text in str(remark)
    assert text is None or "takes" in text or fitted.cost.memory.tensors <= size * MIB
