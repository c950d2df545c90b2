"""The curve of the loss over the learning rate: parabolas, planted noise, and rules that fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from iwlora.compare.statistics.learning_rate.curve import clearly_worse, curve_minimum

pytestmark = pytest.mark.quick

Array = npt.NDArray[np.float64]
GRID = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
X = np.log10(GRID)


def parabola(at: float, curvature: float = 0.2, draws: int = 1) -> Array:
    """Losses without noise, of draws with very different levels."""
    return 0.4 + curvature * (X - math.log10(at)) ** 2 + np.arange(draws)[:, None]


@pytest.mark.parametrize("at", [2e-4, 7e-4, 1e-3, 4.2e-3])
def test_the_minimum_of_a_parabola_is_found(at: float) -> None:
    """Its closed form: the true minimum, to the two digits that are kept."""
    for draws in (1, 3):
        assert curve_minimum(GRID, parabola(at, draws=draws)).learning_rate == pytest.approx(at)
    assert curve_minimum(GRID, parabola(at)).low is None, "one draw does not show its noise"
    exact = curve_minimum(GRID, parabola(at, draws=3))
    assert (exact.low, exact.high) == (pytest.approx(at), pytest.approx(at))


@pytest.mark.parametrize(
    ("at", "chosen", "edge"),
    [(1e-3, 1e-3, None), (5e-5, 1e-4, "smallest"), (5e-2, 1e-2, "largest")],
)
def test_a_minimum_at_the_edge_is_marked(at: float, chosen: float, edge: str | None) -> None:
    found = curve_minimum(GRID, parabola(at))
    assert (found.learning_rate, found.edge) == (pytest.approx(chosen), edge)


def test_the_best_tried_one_stands_in_where_there_is_no_minimum() -> None:
    hill = -parabola(1e-3, draws=2)
    assert curve_minimum(GRID, hill).learning_rate in (1e-4, 1e-2)
    assert (curve_minimum(GRID, hill).low, curve_minimum(GRID, hill).high) == (1e-4, 1e-2)
    assert curve_minimum([1e-4, 1e-3], np.array([[0.5, 0.4]])).learning_rate == 1e-3
    with pytest.raises(ValueError, match="no learning rate has a loss"):
        curve_minimum(GRID, np.full((2, 5), math.nan))


def test_a_learning_rate_without_losses_cannot_win_and_bounds_the_search() -> None:
    losses = parabola(5e-3, draws=2)
    losses[:, 3] = math.nan  # 3e-3, beside the minimum
    found = curve_minimum(GRID, losses)
    assert found.learning_rate == 1e-2, "the lowest loss that is left"
    losses[:, 4] = math.nan
    found = curve_minimum(GRID, losses)
    assert found.learning_rate == 1e-3
    assert found.edge is None, "3e-3 and 1e-2 were tried"


def test_a_draw_with_few_learning_rates_does_not_shift_the_curve() -> None:
    """The second draw is harder and lacks the middle: unpaired means would blame the others."""
    losses = parabola(1e-3, draws=2)
    losses[1, [0, 4]] = math.nan  # dropped after the first draw
    assert curve_minimum(GRID, losses).learning_rate == pytest.approx(1e-3)
    unpaired = np.nanmean(losses, 0)
    assert GRID[int(unpaired.argmin())] != 1e-3, "this test would notice a rule without pairing"


def planted(seed: int, draws: int, noise: float) -> tuple[Array, Callable[[float], float]]:
    """Losses that rise faster above their minimum than below, and the true loss of an lr."""
    random = np.random.default_rng(seed)
    at = random.uniform(-3.6, -2.4)
    steep = random.uniform(1.0, 3.0)

    def excess(lr: float) -> float:
        x = math.log10(lr) - at
        return 0.08 * x**2 * (steep if x > 0 else 1.0)

    true = np.array([excess(lr) for lr in GRID])
    levels = random.normal(0.4, 0.05, (draws, 1))
    return levels + true + random.normal(0, noise, (draws, len(GRID))), excess


def regret(rule: Callable[[Array], float], draws: int = 3) -> float:
    """The mean loss above the lowest possible one, over planted searches."""
    problems = [planted(seed, draws, noise=0.02) for seed in range(300)]
    return float(np.mean([excess(rule(losses)) for losses, excess in problems]))


def test_the_curve_loses_less_than_half_of_what_the_best_single_trial_loses() -> None:
    curve = regret(lambda losses: curve_minimum(GRID, losses).learning_rate)
    single = regret(lambda losses: GRID[int(losses[0].argmin())])
    means = regret(lambda losses: GRID[int(losses.mean(0).argmin())])
    assert curve < 0.5 * single
    assert curve < 0.8 * means, "the curve helps beside the mean over draws"
    assert regret(lambda losses: GRID[int(losses.mean(0).argmax())]) > single


def test_the_interval_holds_the_minimum_in_about_95_percent_of_searches() -> None:
    random = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(400):
        losses = parabola(1e-3, draws=3) + random.normal(0, 0.02, (3, 5))
        found = curve_minimum(GRID, losses)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.learning_rate <= found.high
        hits += found.low <= 1e-3 <= found.high
        widths.append(math.log10(found.high / found.low))
    assert 0.92 <= hits / 400 <= 0.99
    assert np.median(widths) < 0.5, "and it says something: less than half a decade"


def test_only_paired_evidence_leaves_a_learning_rate_out() -> None:
    levels = np.array([[0.0], [0.5], [1.0]])
    losses = levels + np.array([[0.3, 0.4, 0.9]]) + 0.01 * np.eye(3)
    assert not clearly_worse(losses[:1]).any(), "one draw is no evidence"
    assert clearly_worse(losses).tolist() == [False, True, True]
    noisy = losses + np.array([[0.0, 0.0, 0.0], [0.2, -0.2, 0.0], [-0.2, 0.2, 0.0]])
    assert clearly_worse(noisy).tolist() == [False, False, True]


def wrongly_left_out(rule: Callable[[Array], Array]) -> float:
    """How often the truly best of five learning rates is left out; the others are hardly worse."""
    random = np.random.default_rng(0)
    true = np.array([0.40, 0.405, 0.405, 0.41, 0.8])
    wrong = 0
    for _ in range(600):
        noise = random.normal(0, 0.02, (2, 5)) * [1, 1, 1, 1, 5]
        losses = true + random.normal(0, 0.1, (2, 1)) + noise
        wrong += bool(rule(losses)[0])
    return wrong / 600


def test_the_best_one_is_rarely_left_out_and_a_bad_one_soon() -> None:
    assert wrongly_left_out(clearly_worse) <= 0.05
    halving = lambda losses: losses.mean(0) > np.median(losses.mean(0))  # noqa: E731
    assert wrongly_left_out(halving) > 0.05, "half of them by rank, without a test"
    random = np.random.default_rng(1)
    losses = [parabola(1e-3, draws=2) + random.normal(0, 0.01, (2, 5)) for _ in range(200)]
    left_out = np.mean([clearly_worse(each) for each in losses], 0)
    assert left_out[0] > 0.8
    assert left_out[2] < 0.02


def test_equal_losses_leave_nothing_out() -> None:
    assert not clearly_worse(np.full((3, 4), 0.5)).any()
    assert clearly_worse(np.array([[0.5, 0.4], [0.5, 0.4]])).tolist() == [True, False]
