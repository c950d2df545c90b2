"""Shrunk figures draw the same as the SVG files, in fewer bytes."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from iwlora.compare.report.figures.heatmaps import Heatmap, plot_heatmaps
from iwlora.compare.report.figures.style import save_figure
from iwlora.compare.report.figures.svg import shrink_svg

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
SCALE = re.compile(r"scale\(([^)]*)\)")
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def drawn(svg: str) -> list[tuple[str, str, str]]:
    """(tag, path, position) of everything that is drawn; glyphs as their shapes."""
    root = ElementTree.fromstring(svg)
    shapes = {node.get("id"): node.get("d") for node in root.iter() if node.get("id")}
    elements = []
    for node in root.iter():
        href = node.get(HREF) or node.get("href") or ""
        shape = node.get("d") or shapes.get(href.removeprefix("#")) or ""
        assert not href.startswith("#") or href.removeprefix("#") in shapes, (
            "the reference has no target"
        )
        attributes = ("transform", "style", "x", "y", "width", "height", "clip-path")
        elements.append((node.tag, shape, " ".join(node.get(name, "-") for name in attributes)))
    return [
        element
        for element in elements
        if element[0].startswith(SVG) and element[0] != f"{SVG}metadata"
    ]


def check_same_drawing(svg: str) -> None:
    before, after = drawn(svg), drawn(shrink_svg(svg))
    assert SCALE.findall(shrink_svg(svg)) == SCALE.findall(svg), "glyphs keep their size"
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert old[0] == new[0]
        for before_text, after_text in zip(old[1:], new[1:], strict=True):
            assert NUMBER.sub("", before_text).split() == NUMBER.sub("", after_text).split()
            numbers = [float(n) for n in NUMBER.findall(after_text)]
            assert numbers == pytest.approx(
                [float(n) for n in NUMBER.findall(before_text)], abs=0.0051
            )


def test_every_figure_of_a_report_draws_the_same(written: Path) -> None:
    files = sorted((written / "figures").glob("*.svg"))
    assert len(files) == 5
    for svg in files:
        check_same_drawing(svg.read_text(encoding="utf-8"))


def test_a_figure_of_many_numbers_shrinks_by_a_third(tmp_path: Path) -> None:
    kinds = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")
    heatmaps = [
        Heatmap(
            f"arm {arm}", {(d, kind): arm + d / 7 for d in range(6) for kind in kinds}, digits=2
        )
        for arm in range(6)
    ]
    _, path = save_figure(plot_heatmaps(heatmaps, shared_scale=True), tmp_path / "updates")
    svg = path.read_text(encoding="utf-8")
    check_same_drawing(svg)
    assert len(shrink_svg(svg)) < 0.67 * len(svg)


def test_clip_paths_and_dark_ink_keep_their_names(written: Path) -> None:
    svg = shrink_svg((written / "figures" / "metric.svg").read_text(encoding="utf-8"))
    assert "prefers-color-scheme: dark" in svg
    names = set(re.findall(r"url\(#([^)]+)\)", svg))
    assert names <= set(re.findall(r'id="([^"]+)"', svg))
