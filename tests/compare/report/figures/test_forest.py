"""The forest plot: its marks are read back and compared with the differences of the runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.compare.report.figures.forest import plot_forest
from iwlora.compare.report.figures.report_figures import report_figures
from iwlora.compare.statistics.analysis import analyse
from iwlora.results.loading import load

pytestmark = pytest.mark.quick


def test_a_mark_is_the_mean_difference_and_a_bar_its_interval(folder: Path) -> None:
    comparison = load(folder)
    differences = analyse([comparison]).tasks[0].differences
    metric, baseline = comparison.metrics[0], differences[0].paired.baseline
    axes = plot_forest(differences).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        arm.paired.arm for arm in differences
    ]
    base = comparison.values(baseline, metric)
    for row, arm in enumerate(differences):
        scores = comparison.values(arm.paired.arm, metric)
        expected = [100 * (scores[seed] - base[seed]) for seed in scores if seed in base]
        mean = sum(expected) / len(expected)
        lines = [line for line in axes.lines if list(line.get_ydata()) in ([row], [row, row])]
        (mark,) = [line for line in lines if len(line.get_xdata()) == 1]
        assert mark.get_xdata()[0] == pytest.approx(mean)
        low, high = arm.paired.summary.low, arm.paired.summary.high
        assert low is not None
        assert high is not None
        assert any(
            list(line.get_xdata()) == pytest.approx([100 * low, 100 * high]) for line in lines
        )
    (zero,) = [line for line in axes.lines if list(line.get_xdata()) == [0.0, 0.0]]
    assert zero.get_linestyle() == "-"


def test_a_report_has_it_if_there_is_an_interval(folder: Path) -> None:
    def stems(path: Path) -> list[str]:
        (task,) = analyse([load(path)]).tasks
        return [figure.stem for figure in report_figures(task, {})]

    assert "differences" in stems(folder)
    for seed in (1, 2):
        (folder / "lora" / f"seed-{seed}" / "result.json").unlink()
    assert "differences" not in stems(folder), "one shared seed has no interval"
