"""The baseline of an analysis: lora, or the arm that the user or the comparison names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from commands import call
from iwlora.compare.report.content import build_content
from iwlora.compare.report.formats.markdown import markdown
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.statistics.analysis import analyze
from iwlora.compare.statistics.budget_parity import budget_ratios
from iwlora.errors import IwloraError
from iwlora.results.comparison import load_comparison
from iwlora.results.comparison.combined import load_parts
from report_pages import page_without_images

ARMS = ("lora", "iw-lora", "lora-uniform-penalty", "iw-lora-permuted")
CONTROL = "lora-uniform-penalty"


def name_baseline(folder: Path, label: str) -> None:
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "baseline": label}))


def accuracy(folder: Path, label: str, seed: int) -> float:
    stored = json.loads((folder / label / f"seed-{seed}" / "result.json").read_text())
    return float(stored["metrics"]["accuracy"])


@pytest.fixture
def controlled(tmp_path: Path, comparison_in: Callable[..., Path]) -> Path:
    """IW-LoRA with its controls, six seeds."""
    return comparison_in(tmp_path / "controlled", arms=ARMS, seeds=6)


@pytest.mark.quick
def test_all_differences_are_from_the_baseline(controlled: Path) -> None:
    """They are recounted from the result files, for the default and for a named baseline."""

    def check(requested: str | None, baseline: str) -> None:
        content = build_content(analyze(load_parts([controlled]), baseline=requested))
        summary = json.loads(summary_json(content))
        assert summary["baseline"] == baseline
        arms = [pair["arm"] for pair in summary["differences"]]
        assert arms == [arm for arm in ARMS if arm != baseline]
        for pair in summary["differences"]:
            assert (pair["baseline"], pair["family"]) == (baseline, 3)
            differences = [
                accuracy(controlled, pair["arm"], seed) - accuracy(controlled, baseline, seed)
                for seed in range(6)
            ]
            assert pair["summary"]["mean"] == pytest.approx(sum(differences) / 6, abs=1e-12)
        assert f"Differences from {baseline}" in page_without_images(content).text
        assert f"minus that of {baseline}, paired by seed" in markdown(content)

    check(None, "lora")
    check(CONTROL, CONTROL)
    name_baseline(controlled, "iw-lora")
    check(None, "iw-lora")
    check(CONTROL, CONTROL)


def test_the_command_takes_a_baseline(
    tmp_path: Path, comparison_in: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = comparison_in(tmp_path / "c", arms=("lora", "iw-lora"), seeds=1)
    assert call(capsys, "report", folder, "--baseline", "iw-lora").code == 0
    assert json.loads((folder / "summary.json").read_text())["baseline"] == "iw-lora"


@pytest.mark.quick
def test_an_unknown_baseline_is_refused_with_similar_names(
    controlled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("report", controlled), ("compare", controlled, "--out", controlled / "all")):
        outcome = call(capsys, *command, "--baseline", "lora-uniform")
        assert outcome.code == 2
        assert "error: unknown baseline 'lora-uniform'; did you mean" in outcome.err
        assert f"'{CONTROL}'" in outcome.err
    assert not (controlled / "all").exists()


def test_several_tasks_have_one_baseline_and_it_is_remembered(
    tmp_path: Path, comparison_in: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        comparison_in(tmp_path / task, arms=ARMS[:3], seeds=1, task=f"glue/{task}")
        for task in ("rte", "mrpc")
    ]
    for log in tmp_path.rglob("metrics.jsonl"):
        log.unlink()  # no learning curves to draw
    name_baseline(folders[0], CONTROL)
    assert analyze(load_parts(folders)).baseline == CONTROL
    name_baseline(folders[1], "lora")
    with pytest.raises(IwloraError, match="different baselines, lora and lora-uniform-penalty"):
        analyze(load_parts(folders))
    out = tmp_path / "all"
    assert call(capsys, "compare", *folders, "--baseline", "iw-lora", "--out", out).code == 0
    written = json.loads((out / "summary.json").read_text())
    assert written["baseline"] == "iw-lora"
    assert {pair["baseline"] for part in written["parts"] for pair in part["differences"]} == {
        "iw-lora"
    }
    assert json.loads(summary_json(build_content(analyze(load_parts([out]), out)))) == written


@pytest.mark.quick
def test_budgets_are_relative_to_the_baseline(controlled: Path) -> None:
    for seed in range(6):
        path = controlled / CONTROL / f"seed-{seed}" / "result.json"
        stored = json.loads(path.read_text())
        path.write_text(json.dumps(stored | {"adapter_parameters": 2 * 294_912}))
    (comparison,) = analyze([load_comparison(controlled)], baseline=CONTROL).comparisons
    assert budget_ratios(comparison) == {
        "lora": 0.5, "iw-lora": 0.5, CONTROL: 1.0, "iw-lora-permuted": 0.5
    }  # fmt: skip
