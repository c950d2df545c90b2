"""The figures of a page are small and draw what the files beside it draw."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from iwlora.compare.report.figures import plots
from iwlora.compare.report.figures.heatmaps import Grid, heatmaps
from iwlora.compare.report.figures.selection import pictures
from iwlora.compare.report.figures.svg import small
from iwlora.results.loading import load

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def drawn(svg: str) -> list[tuple[str, str, str]]:
    """(tag, path, place) of everything that is drawn, glyphs by what they look like."""
    root = ElementTree.fromstring(svg)
    shapes = {one.get("id"): one.get("d") for one in root.iter() if one.get("id")}
    found = []
    for one in root.iter():
        href = one.get(HREF) or one.get("href") or ""
        shape = one.get("d") or shapes.get(href.removeprefix("#")) or ""
        assert not href.startswith("#") or href.removeprefix("#") in shapes, "it leads nowhere"
        where = ("transform", "style", "x", "y", "width", "height", "clip-path")
        found.append((one.tag, shape, " ".join(one.get(name, "-") for name in where)))
    return [one for one in found if one[0].startswith(SVG) and one[0] != f"{SVG}metadata"]


def same(svg: str) -> None:
    before, after = drawn(svg), drawn(small(svg))
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert old[0] == new[0]
        for told, now in zip(old[1:], new[1:], strict=True):
            assert NUMBER.sub("", told).split() == NUMBER.sub("", now).split()
            numbers = [float(n) for n in NUMBER.findall(now)]
            assert numbers == pytest.approx([float(n) for n in NUMBER.findall(told)], abs=0.0051)


def test_every_figure_of_a_report_stays_what_it_is(folder: Path, tmp_path: Path) -> None:
    shown = list(pictures(load(folder)))
    assert len(shown) >= 4
    for picture in shown:
        _, svg = plots.save(picture.figure, tmp_path / picture.stem)
        same(svg.read_text(encoding="utf-8"))


def test_a_figure_of_many_numbers_shrinks_by_a_third(tmp_path: Path) -> None:
    kinds = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")
    grids = [
        Grid(f"arm {arm}", {(d, kind): arm + d / 7 for d in range(6) for kind in kinds}, digits=2)
        for arm in range(6)
    ]
    _, path = plots.save(heatmaps(grids, alike=True), tmp_path / "updates")
    svg = path.read_text(encoding="utf-8")
    same(svg)
    assert len(small(svg)) < 0.67 * len(svg)


def test_clips_and_dark_inks_keep_their_names(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    picture = next(iter(pictures(load(comparison_in(tmp_path / "c")))))
    _, path = plots.save(picture.figure, tmp_path / "metric")
    svg = small(path.read_text(encoding="utf-8"))
    assert "prefers-color-scheme: dark" in svg
    names = set(re.findall(r"url\(#([^)]+)\)", svg))
    assert names <= set(re.findall(r'id="([^"]+)"', svg))
