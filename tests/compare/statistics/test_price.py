"""The price of sequential verdicts: the plain way against simulation, the sums against the runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.statistics.analysis import TaskAnalysis, analyze
from iwlora.compare.statistics.price import fixed_seeds, price_of
from iwlora.results.comparison import load_comparison
from iwlora.results.comparison.record import StoppingRule
from iwlora.training.recipe import Recipe
from simulated_runs import SimulatedExecutor, simulate

RULE = StoppingRule(difference=1.0)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("sd", "arms", "rule"),
    [
        (1.9, 1, RULE),
        (1.2, 4, RULE),
        (4.0, 1, StoppingRule(difference=2.0, error=0.01, power=0.9)),
    ],
)
def test_fixed_seeds_have_the_power_that_was_asked_for(
    sd: float, arms: int, rule: StoppingRule
) -> None:
    """The share of simulated comparisons in which the t test finds the difference."""
    n = fixed_seeds(rule, sd, arms)
    assert n is not None
    draws = np.random.default_rng(0).normal(rule.difference, sd, (20_000, n))

    def found(seeds: int) -> float:
        p_values = ttest_1samp(draws[:, :seeds], 0.0, axis=1).pvalue
        return float((p_values < rule.error / arms).mean())

    assert found(n) == pytest.approx(rule.power, abs=0.03)
    assert found(n) > rule.power - 0.01
    assert found(n - 2) < rule.power


def test_a_wide_spread_has_no_number_of_seeds() -> None:
    assert fixed_seeds(RULE, 1000.0) is None


def score(recipe: Recipe, _: int) -> float:
    rng = np.random.default_rng([recipe.train.seed, len(recipe.label or "")])
    return 0.8 + 0.01 * float(rng.standard_normal()) + 0.1 * (recipe.label == "iw-lora")


@pytest.fixture
def task(make_plan: Callable[..., Plan], tmp_path: Path) -> TaskAnalysis:
    """Two arms of eight draws, scored on study rows with a spread twice as wide on validation."""
    plan = make_plan(seeds=None, stop={"difference": 1.0, "max_seeds": 8})
    simulate(plan, tmp_path / "out", SimulatedExecutor(score))
    for number, file in enumerate(sorted((tmp_path / "out").glob("*/seed-*/result.json"))):
        result = json.loads(file.read_text())
        accuracy = result["metrics"]["accuracy"]
        result["evaluated_on"] = "study"
        result["metrics"] = {"accuracy": accuracy, "accuracy_validation": 2 * accuracy - 1}
        result["train_seconds"] = 10.0 if "iw-lora" in str(file) else 20.0
        result["resumed_at_step"] = 3 if number == 0 else 0
        file.write_text(json.dumps(result))
        about = {"format": "iwlora-environment/2", "cores": 2, "gpu": None}
        (file.parent / "environment.json").write_text(json.dumps(about))
    return analyze([load_comparison(tmp_path / "out")]).tasks[0]


@pytest.mark.quick
def test_the_price_is_that_of_all_runs_and_the_plain_way_has_the_official_split(
    task: TaskAnalysis,
) -> None:
    price = price_of(task.comparison, task.differences)
    assert price is not None
    (row,) = task.differences
    draws = row.summary.n
    assert [(arm.arm, arm.draws, arm.seconds) for arm in price.arms] == [
        ("lora", draws, 20.0 * draws),
        ("iw-lora", draws, 10.0 * draws),
    ]
    assert (price.runs, price.seconds) == (2 * draws, 30.0 * draws)
    assert price.core_hours == pytest.approx(2 * 30.0 * draws / 3600)
    assert [arm.core_hours for arm in price.arms] == [
        pytest.approx(2 * seconds * draws / 3600) for seconds in (20.0, 10.0)
    ]
    official = 200 * stdev(row.differences.values())
    n = fixed_seeds(RULE, official)
    assert n is not None
    assert n > (fixed_seeds(RULE, official / 2) or 0)
    assert price.fixed_split == "validation"
    assert {arm.fixed_seeds for arm in price.arms} == {n}
    assert price.fixed_runs == 2 * n
    assert price.fixed_seconds == pytest.approx(30.0 * n)
    assert price.fixed_core_hours == pytest.approx(2 * 30.0 * n / 3600)
