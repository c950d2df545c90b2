"""A metric of which lower is better gives the mirror image of one of which higher is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwlora.compare.plan.search.learning_rate import choose_learning_rate
from iwlora.compare.report.figures import plots
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.verdict import verdict
from iwlora.compare.statistics.analysis import Analysis, analyze
from iwlora.compare.statistics.learning_rate import ties
from iwlora.results.comparison import Comparison, load
from iwlora.results.comparison.record import Trial
from iwlora.results.metric_direction import lower_is_better
from iwlora.training.loop.callbacks import selection_score
from report_pages import all_texts, content_of

pytestmark = pytest.mark.quick

LOWER = ("perplexity", "loss", "eval_loss", "rmse", "perplexity_mismatched", "mae", "wer")
HIGHER = ("accuracy", "f1", "rougeL", "matthews_correlation", "score", "chrf", "summer")


def rewrite(folder: Path, score: Callable[[str, int, float], dict[str, float]]) -> None:
    """Give each run other metrics, the first of which is the primary one."""
    for path in folder.glob("*/seed-*/result.json"):
        result = json.loads(path.read_text())
        metrics = score(result["label"], result["seed"], result["metrics"]["accuracy"])
        changes = {"metrics": metrics, "primary_metric": next(iter(metrics))}
        path.write_text(json.dumps(result | changes))


@pytest.fixture
def mirrored(tmp_path: Path, comparison_in: Callable[..., Path]) -> tuple[Path, Path]:
    """Eight seeds with scores between 5 and 6, of which in one folder lower is better.

    IW-LoRA is better than LoRA at every seed, and full fine-tuning is worse.
    """
    gain = {"lora": 0.0, "iw-lora": 0.05, "full": -0.05}
    folders = []
    for name, sign in (("kendall", 1), ("perplexity", -1)):
        folder = comparison_in(tmp_path / name, arms=tuple(gain), seeds=8)
        rewrite(
            folder,
            lambda label, seed, accuracy, name=name, sign=sign: {
                name: 5 + sign * (gain[label] + 0.001 * seed * gain[label] + accuracy % 0.001)
            },
        )
        folders.append(folder)
    return folders[0], folders[1]


def analyzed(folder: Path) -> Analysis:
    return analyze([load(folder)])


def test_the_direction_of_a_metric() -> None:
    assert [name for name in (*LOWER, *HIGHER) if lower_is_better(name)] == list(LOWER)


def test_differences_keep_their_sign_and_say_what_is_better(mirrored: tuple[Path, Path]) -> None:
    higher, lower = map(analyzed, mirrored)
    assert [d.outcome for d in higher.tasks[0].differences] == ["higher", "lower"]
    assert [d.outcome for d in lower.tasks[0].differences] == ["lower", "higher"]
    for up, down in zip(higher.tasks[0].differences, lower.tasks[0].differences, strict=True):
        assert down.summary.mean == pytest.approx(-up.summary.mean)
        assert (down.p_value, down.interval.low) == (up.p_value, pytest.approx(-up.interval.high))
    assert "lower is better" not in verdict(higher)
    text = verdict(lower)
    assert "Compared with lora by perplexity (lower is better), paired by seed" in text
    assert "iw-lora: lower (-0.05" in text


def test_an_improvement_is_a_better_score(mirrored: tuple[Path, Path]) -> None:
    for folder in mirrored:
        chances = {row.arm: row.improvement for row in analyzed(folder).overall}
        assert chances["iw-lora"] is not None
        assert chances["full"] is not None
        assert (chances["iw-lora"].value, chances["full"].value) == (1.0, 0.0)


def test_tasks_of_both_directions_are_not_averaged_but_count_alike(
    mirrored: tuple[Path, Path],
) -> None:
    """Better on both tasks at each of 2 · 8 pairs: the smallest p-value of 16 signs."""
    row = next(r for r in analyze(list(map(load, mirrored))).overall if r.arm == "iw-lora")
    assert row.p_value == pytest.approx(2 / 2**16)
    assert row.improvement is not None
    assert row.improvement.value == 1.0
    assert row.difference is row.interquartile_mean is row.seeds_needed is None


def test_two_tasks_with_perplexities_say_that_lower_is_better(
    tmp_path: Path, comparison_in: Callable[..., Path], mirrored: tuple[Path, Path]
) -> None:
    other = comparison_in(tmp_path / "other", arms=("lora", "iw-lora"), seeds=8, task="glue/x")
    rewrite(other, lambda label, seed, _: {"perplexity": 5.0 - (label != "lora") - 0.01 * seed})
    text = verdict(analyze([load(mirrored[1]), load(other)]))
    assert "iw-lora: lower (-0.5" in text
    assert "Lower is better for perplexity." in text


def test_the_report_says_which_direction_is_better(mirrored: tuple[Path, Path]) -> None:
    content = content_of(mirrored[1])
    for name, text in all_texts(content).items():
        assert "of perplexity, lower is better" in text, name
    assert json.loads(summary_json(content))["lower_is_better"] is True
    assert json.loads(summary_json(content_of(mirrored[0])))["lower_is_better"] is False


def test_figures_point_the_right_way(mirrored: tuple[Path, Path]) -> None:
    fronts = []
    for folder in mirrored:
        comparison = load(folder)
        axes = plots.plot_forest(analyzed(folder).tasks[0].differences).axes[0]
        assert ("lower is better" in axes.get_xlabel()) == (folder.name == "perplexity")
        costs = plots.scores_by_cost(comparison)
        (panel, points), *_ = costs.items()
        axes = plots.plot_scores_by_cost(comparison, {panel: points}).axes[0]
        front = next(line for line in axes.lines if line.get_linestyle() == ":")
        names = {point: label for label, point in points.items()}
        fronts.append([names[float(x), float(y)] for x, y in np.asarray(front.get_xydata())])
    assert fronts[0] == fronts[1] == ["iw-lora"]


@pytest.mark.parametrize(("metric", "best"), [("perplexity", 1e-3), ("rougeL", 1e-2), (None, 1e-2)])
def test_the_search_chooses_the_better_learning_rate(metric: str | None, best: float) -> None:
    scores = {1e-4: 9.0, 1e-3: 8.0, 1e-2: 9.5, 1e-1: 9.0}
    trials = [Trial(lr=lr, seed=7, state="done", score=s, loss=0.5) for lr, s in scores.items()]
    assert choose_learning_rate("lora", trials, metric, "best-score").lr == best


@pytest.mark.parametrize("sign", [1, -1])
def test_a_worse_learning_rate_is_no_tie(sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chosen learning rate scores better by 1, far more than the standard error."""
    metric = "accuracy" if sign > 0 else "perplexity"
    scores = {1e-4: 5.0 - sign, 1e-3: 5.0, 1e-2: 5.0 - sign}
    trials = [
        Trial(lr=lr, seed=seed, state="done", score=s + 1e-3 * seed * lr, loss=0.5)
        for lr, s in scores.items()
        for seed in (7, 8)
    ]
    choice = choose_learning_rate("lora", trials, metric, "best-score")
    assert choice.lr == 1e-3
    comparison: Any = Comparison(
        Path("x"), "m", "t", ("lora",), (0,), (), (), search={"lora": choice}
    )
    monkeypatch.setattr(ties, "paired_predictions", lambda *_: True)
    monkeypatch.setattr(ties, "variance_of_mean", lambda *_: 0.01)
    assert ties.tied_learning_rates(comparison, "lora") == []


def test_the_best_epoch_has_the_smallest_perplexity() -> None:
    epochs = [{"eval_perplexity": p, "eval_loss": 1.0} for p in (9.0, 7.0, 8.0)]
    assert max(epochs, key=lambda e: selection_score("perplexity", e)) is epochs[1]
    scores = [{"eval_accuracy": a, "eval_loss": 1.0} for a in (0.5, 0.9, 0.8)]
    assert max(scores, key=lambda e: selection_score("accuracy", e)) is scores[1]
