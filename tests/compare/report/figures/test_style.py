"""Saved figures: equal bytes for equal figures, no date, ink for light and dark schemes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from iwlora.compare.report.figures.heatmaps import plot_importance
from iwlora.compare.report.figures.style import save_figure
from iwlora.results.sensitivity import Sensitivity


def test_files_are_equal_byte_by_byte_and_carry_no_date(
    tmp_path: Path, sensitivity: Sensitivity
) -> None:
    one = save_figure(plot_importance(sensitivity), tmp_path / "a" / "one.v1")
    two = save_figure(plot_importance(sensitivity), tmp_path / "two")
    assert [path.name for path in one] == ["one.v1.png", "one.v1.svg"]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
    svg = one[1].read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "dc:date" not in svg
    assert "prefers-color-scheme: dark" in svg
    assert "<image" not in svg
    other = replace(sensitivity, sites=sensitivity.sites[1:])
    assert save_figure(plot_importance(other), tmp_path / "other")[1].read_text() != svg
