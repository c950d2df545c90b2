"""The forest plot: its marks are read back and compared with the differences of the runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.compare.report.figures.forest import forest_plot
from iwlora.compare.report.figures.selection import pictures
from iwlora.compare.statistics.analysis import analyse
from iwlora.results.loading import load

pytestmark = pytest.mark.quick


def test_a_mark_is_the_mean_difference_and_a_bar_its_interval(folder: Path) -> None:
    comparison = load(folder)
    compared = analyse([comparison]).compared[0]
    metric, baseline = comparison.metrics[0], compared[0].pair.baseline
    axes = forest_plot(compared).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        arm.pair.arm for arm in compared
    ]
    base = comparison.values(baseline, metric)
    for row, arm in enumerate(compared):
        scores = comparison.values(arm.pair.arm, metric)
        differences = [100 * (scores[seed] - base[seed]) for seed in scores if seed in base]
        mean = sum(differences) / len(differences)
        lines = [line for line in axes.lines if list(line.get_ydata()) in ([row], [row, row])]
        (mark,) = [line for line in lines if len(line.get_xdata()) == 1]
        assert mark.get_xdata()[0] == pytest.approx(mean)
        low, high = arm.pair.summary.low, arm.pair.summary.high
        assert low is not None
        assert high is not None
        assert any(
            list(line.get_xdata()) == pytest.approx([100 * low, 100 * high]) for line in lines
        )
    (zero,) = [line for line in axes.lines if list(line.get_xdata()) == [0.0, 0.0]]
    assert zero.get_linestyle() == "-"


def test_a_report_has_it_where_there_is_an_interval(folder: Path) -> None:
    comparison = load(folder)
    compared = analyse([comparison]).compared[0]
    stems = [picture.stem for picture in pictures(comparison, compared)]
    assert "differences" in stems
    assert "differences" not in [picture.stem for picture in pictures(comparison)]
