"""``iwlora report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import call


@pytest.mark.quick
def test_report(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = call(capsys, "report", finished)
    assert outcome.code == 0
    accuracy = json.loads((finished / "result.json").read_text())["metrics"]["accuracy"]
    assert f"{accuracy * 100:.2f}" in outcome.out
    assert f"report: {finished / 'report.html'}" in outcome.out
    assert "<html" in (finished / "report.html").read_text()
    for name in ("report.html", "summary.json", "summary.md"):
        assert (finished / name).stat().st_size > 0


def test_open_shows_the_page_in_a_browser(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "webbrowser.open_new_tab", lambda url: opened.append(url) or bool(opened[1:])
    )
    first, second = (call(capsys, "report", finished, "--open") for _ in range(2))
    assert opened == [(finished / "report.html").resolve().as_uri()] * 2
    assert (first.code, second.code) == (0, 0)
    assert "no browser was found: open the page yourself" in first.err
    assert "no browser" not in second.err
