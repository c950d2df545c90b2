"""What the arms are compared with: lora, or the arm that the user names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import call
from iwlora.compare.statistics.analysis import analyse
from iwlora.compare.statistics.budget_parity import budgets
from iwlora.errors import IwloraError
from iwlora.results.combined import load_parts
from iwlora.results.loading import load_comparison

ARMS = ("lora", "iw-lora", "lora-uniform-penalty", "iw-lora-permuted")
CONTROL = "lora-uniform-penalty"


def name_baseline(folder: Path, label: str | None) -> None:
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "baseline": label}))


def accuracy(folder: Path, label: str, seed: int) -> float:
    stored = json.loads((folder / label / f"seed-{seed}" / "result.json").read_text())
    return float(stored["metrics"]["accuracy"])


@pytest.fixture
def controlled(tmp_path: Path, comparison_in: Callable[..., Path]) -> Path:
    """IW-LoRA with its controls, six seeds."""
    return comparison_in(tmp_path / "controlled", arms=ARMS, seeds=6)


def check(folder: Path, baseline: str) -> None:
    """All differences of the summary are from ``baseline``, recounted from the results."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["baseline"] == baseline
    assert [pair["arm"] for pair in summary["differences"]] == [a for a in ARMS if a != baseline]
    for pair in summary["differences"]:
        assert (pair["baseline"], pair["family"]) == (baseline, 3)
        each = [
            accuracy(folder, pair["arm"], seed) - accuracy(folder, baseline, seed)
            for seed in range(6)
        ]
        assert pair["summary"]["mean"] == pytest.approx(sum(each) / 6, abs=1e-12)
    assert f"Differences from {baseline}<" in (folder / "report.html").read_text()
    assert f"minus that of {baseline}, paired by seed" in (folder / "summary.md").read_text()


def test_a_finished_comparison_is_read_again_with_another(
    controlled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "report", controlled).code == 0
    check(controlled, "lora")
    assert call(capsys, "report", controlled, "--baseline", CONTROL).code == 0
    check(controlled, CONTROL)
    name_baseline(controlled, "iw-lora")
    assert call(capsys, "report", controlled).code == 0
    check(controlled, "iw-lora")


def test_an_unknown_one_is_refused_with_the_near_names(
    controlled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("report", controlled), ("compare", controlled, "--out", controlled / "all")):
        outcome = call(capsys, *command, "--baseline", "lora-uniform")
        assert outcome.code == 2
        assert "error: unknown baseline 'lora-uniform'; did you mean" in outcome.err
        assert f"'{CONTROL}'" in outcome.err
    assert not (controlled / "all").exists()


def test_over_several_tasks_it_is_one_and_is_remembered(
    tmp_path: Path, comparison_in: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        comparison_in(tmp_path / task, arms=ARMS, seeds=6, task=f"glue/{task}")
        for task in ("rte", "mrpc")
    ]
    name_baseline(folders[0], CONTROL)
    assert analyse(load_parts(folders)).baseline == CONTROL
    name_baseline(folders[1], "iw-lora-permuted")
    with pytest.raises(IwloraError, match="different baselines, iw-lora-permuted and lora-uni"):
        analyse(load_parts(folders))
    out = tmp_path / "all"
    assert call(capsys, "compare", *folders, "--baseline", "iw-lora", "--out", out).code == 0

    def told() -> Any:
        return json.loads((out / "summary.json").read_text())

    first = told()
    assert first["baseline"] == "iw-lora"
    assert {pair["baseline"] for part in first["parts"] for pair in part["differences"]} == {
        "iw-lora"
    }
    assert call(capsys, "report", out).code == 0
    assert told() == first


def test_budgets_are_told_against_it(controlled: Path) -> None:
    for seed in range(6):
        path = controlled / CONTROL / f"seed-{seed}" / "result.json"
        stored = json.loads(path.read_text())
        path.write_text(json.dumps(stored | {"adapter_parameters": 2 * 294_912}))
    (part,) = analyse([load_comparison(controlled)], baseline=CONTROL).parts
    assert budgets(part) == {"lora": 0.5, "iw-lora": 0.5, CONTROL: 1.0, "iw-lora-permuted": 0.5}
