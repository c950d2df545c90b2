"""The simulation of what a search of designs finds, at a size of milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_larger_leads_are_found_and_none_of_no_lead(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    power = script("design_power")
    assert power.smallest_lead(lambda lead, _: lead >= 0.45, 3) == 0.5
    assert power.smallest_lead(lambda *_: False, 3) is None
    rule = power.RaceRule(draws=[8, 16])
    assert sum(power.is_found_by_race(2, 5.0, seed, rule) for seed in range(5)) == 5
    assert sum(power.is_found_by_race(2, 0.0, seed, rule) for seed in range(20)) <= 3
    assert power.is_found_by_screen(64, 5.0, 0, 0.05)
    power.main(["--draws", "8", "--choices", "2", "--designs", "48", "--times", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| race of 2 choices, 8 draws | ")
    assert lines[3].startswith("| screen of 48 designs | ")
