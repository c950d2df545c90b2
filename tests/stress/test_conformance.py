"""The script that runs the whole conformance suite reports each failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import conformance
from iwlora.testing import Case, checks


def refuse(case: Case) -> None:
    raise AssertionError(f"refused on {case.architecture}")


@pytest.mark.quick
def test_each_failed_check_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("bert", checks.initial_output), ("bert", refuse), ("gpt2", checks.initial_output)]
    together: list[Any] = []
    monkeypatch.setattr(conformance, "cases", lambda method, everywhere, of_images: pairs)
    monkeypatch.setattr(conformance, "train_in_two_processes", together.extend)
    assert conformance.failures(["head"], tmp_path) == ["head on bert: refuse: refused on bert"]
    assert [case.architecture for case in together] == ["bert", "gpt2"]
    assert "head on gpt2: checked" in capsys.readouterr().out
