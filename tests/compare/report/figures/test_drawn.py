"""A figure is drawn again exactly when its data, its code or its files are others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from iwlora.compare.report.content import build_content
from iwlora.compare.report.figures import drawn
from iwlora.compare.report.write import write_report
from iwlora.compare.statistics.analysis import analyze
from iwlora.results.comparison.combined import load_parts


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the figures that were drawn, as their points alone, with an empty cache."""
    names: list[str] = []

    def save(figure: Figure, stem: Path) -> None:
        names.append(stem.name)
        stem.parent.mkdir(exist_ok=True)
        points = [line.get_xydata() for axes in figure.axes for line in axes.get_lines()]
        for suffix in ("png", "svg"):
            stem.with_suffix(f".{suffix}").write_text(f"<svg>{points}</svg>")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(drawn, "save_figure", save)
    return names


@pytest.fixture
def folder(tmp_path: Path, comparison_in: Callable[..., Path]) -> Path:
    return comparison_in(tmp_path / "comparison", arms=["lora", "iw-lora"], seeds=1)


def figures(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "figures").iterdir()}


def test_a_report_of_the_same_results_draws_nothing(saved: list[str], folder: Path) -> None:
    page = write_report(folder).read_bytes()
    before = figures(folder)
    assert len(saved) == len(before) / 2 > 1
    saved.clear()
    assert write_report(folder).read_bytes() == page
    assert saved == []
    assert figures(folder) == before


def test_other_results_are_drawn(saved: list[str], folder: Path, tmp_path: Path) -> None:
    write_report(folder)
    result = json.loads((folder / "lora" / "seed-0" / "result.json").read_text())
    result["metrics"]["accuracy"] += 0.01
    (folder / "lora" / "seed-0" / "result.json").write_text(json.dumps(result))
    saved.clear()
    write_report(folder)
    assert "metric" in saved
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    shutil.rmtree(moved / "figures")
    write_report(moved)
    assert figures(folder) == figures(moved)


def test_files_of_somebody_else_are_drawn_again(
    saved: list[str], folder: Path, tmp_path: Path
) -> None:
    write_report(folder)
    before = figures(folder)
    for name in ("metric.svg", "metric.png"):
        (folder / "figures" / name).write_bytes(b"<svg>a better score</svg>")
        saved.clear()
        write_report(folder)
        assert saved == ["metric"]
        assert figures(folder) == before
    shutil.rmtree(tmp_path / "cache")
    saved.clear()
    write_report(folder)
    assert len(saved) == len(before) / 2


def test_other_code_draws_again(
    saved: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(folder)
    saved.clear()
    monkeypatch.setattr(drawn, "_code_digest", lambda: "another version")
    write_report(folder)
    assert saved


def test_drawing_reads_no_files(folder: Path) -> None:
    """Else a figure could change although what it is drawn from has not."""
    content = build_content(analyze(load_parts([folder]), folder))
    shutil.rmtree(folder)
    for section in content.sections:
        for figure in section.figures:
            figure.draw()
