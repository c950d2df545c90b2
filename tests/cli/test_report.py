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
