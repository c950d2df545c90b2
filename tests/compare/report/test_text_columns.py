"""Tables on a terminal: what does not fit continues below, without rows that say nothing there."""

from __future__ import annotations

import pytest

from iwlora.compare.report.text_columns import TERMINAL_WIDTH, align

pytestmark = pytest.mark.quick


def test_a_wide_table_continues_below_without_its_empty_rows() -> None:
    arms = ["arm", "lora", "rule", "none"]
    columns = [arms, ["score" * 12, "7", "6", "–"], ["seconds" * 8, "5", "–", "–"]]
    lines = align(columns, str.rjust, empty="–")
    assert max(map(len, lines)) <= TERMINAL_WIDTH
    assert [line.split() for line in lines] == [
        ["arm", "score" * 12],
        ["lora", "7"],
        ["rule", "6"],
        ["none", "–"],
        [],
        ["arm", "seconds" * 8],
        ["lora", "5"],
    ]
    whole = align(columns, str.rjust)
    assert [line.split() for line in whole[-2:]] == [["rule", "–"], ["none", "–"]]
