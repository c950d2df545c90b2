"""A comparison that version 0.1.0 began goes on by the same command, with the same defaults."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from commands import call, execute_in_process, snapshot
from counted import result
from iwlora.training.state.run_folder import RunDir

FIXTURE = Path(__file__).parents[2] / "fixtures" / "version-0.1.0.tar.xz"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What version 0.1.0 wrote: a whole comparison, and one whose last run is missing."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_a_comparison_goes_on_with_the_defaults_of_its_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, half = folder / "compared", folder / "half-compared"
    before = {path: path.read_bytes() for path in half.rglob("result.json")}
    started = execute_in_process(monkeypatch)
    outcome = call(capsys, "compare", "comparison.yaml", "--out", half)
    assert outcome.code == 0, outcome.err
    assert "6 of 10 runs are done already" in outcome.out, "the trials"
    assert [Path(arguments[-1]) for arguments in started] == [half / "iw-lora" / "seed-1"]
    assert {path: path.read_bytes() for path in before} == before
    resumed, expected = (RunDir(c / "iw-lora" / "seed-1").recipe() for c in (half, whole))
    assert resumed.settings()["method"] == expected.settings()["method"]
    assert result(half, "iw-lora", 1)["metrics"] == pytest.approx(
        result(whole, "iw-lora", 1)["metrics"], rel=1e-3
    )


def test_a_whole_comparison_is_reported_and_nothing_is_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = snapshot(folder / "compared" / "iw-lora")
    started = execute_in_process(monkeypatch)
    outcome = call(capsys, "compare", "comparison.yaml", "--out", folder / "compared")
    assert outcome.code == 0, outcome.err
    assert started == []
    kept = snapshot(folder / "compared" / "iw-lora")
    assert {name: kept[name] for name in runs} == runs
