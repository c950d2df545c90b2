"""The rounds of a search: draw by draw, by paired evidence, within the limit, in any order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from iwlora.compare.plan.search.learning_rate import SearchSettings
from iwlora.compare.plan.search.rounds import Rounds, search_rounds
from iwlora.results.comparison.record import Trial

pytestmark = pytest.mark.quick

GRID = [1e-4, 3e-4, 1e-3, 3e-3]
Loss = Callable[[float, int], float]


def settings(**changes: object) -> SearchSettings:
    return SearchSettings.model_validate(
        {"lr": GRID, "seeds": [7, 8, 9], "rule": "loss-curve", **changes}
    )


def losses_with_minimum_at(at: float) -> Loss:
    """A parabola; each draw has its own level, and hardly any noise of its own."""
    return lambda lr, seed: seed + (math.log10(lr / at)) ** 2 + 1e-3 * math.sin(seed / lr)


def trial(lr: float, seed: int, loss: float) -> Trial:
    return Trial(lr=lr, seed=seed, state="done", score=0.5, loss=loss)


def run(
    search: SearchSettings, loss: Loss, most: int | None = None, order: int | None = None
) -> tuple[list[Trial], Rounds]:
    """Execute a search; with ``order``, a few trials at a time in a random order."""
    shuffle = random.Random(order)
    done: list[Trial] = []
    while True:
        rounds = search_rounds(search, search.lr, done, most)
        ended = {(each.lr, each.seed) for each in done}
        new = [each for each in rounds.asked if each not in ended]
        if not new:
            assert rounds.ended
            return done, rounds
        if order is not None:
            new = shuffle.sample(new, max(1, len(new) // 2))
        done += [trial(lr, seed, loss(lr, seed)) for lr, seed in new]


def tried(trials: Sequence[Trial], seed: int) -> list[float]:
    return sorted(each.lr for each in trials if each.seed == seed)


def test_the_first_draw_tries_all_and_the_next_those_that_may_be_the_best() -> None:
    trials, rounds = run(settings(), losses_with_minimum_at(5.5e-4))
    assert tried(trials, 7) == tried(trials, 8) == GRID, "one draw is no evidence"
    assert tried(trials, 9) == [3e-4, 1e-3]
    assert (rounds.added, rounds.refused) == ((), ())


def test_a_search_ends_when_one_learning_rate_is_left() -> None:
    trials, _ = run(settings(), losses_with_minimum_at(1e-3))
    assert tried(trials, 9) == []


def test_noise_drops_nothing() -> None:
    def noisy(lr: float, seed: int) -> float:
        return random.Random(f"{lr} {seed}").gauss(0.5, 0.1)

    trials, _ = run(settings(widen=0), noisy)
    assert tried(trials, 9) == GRID


def test_which_trials_run_does_not_depend_on_the_order_of_their_results() -> None:
    """A search that was killed, or ran many trials at once, asks for the same."""
    loss = losses_with_minimum_at(5e-3)
    _, expected = run(settings(), loss)
    for order in range(5):
        assert run(settings(), loss, order=order)[1] == expected


@pytest.mark.parametrize(
    ("at", "added"),
    [(6e-4, ()), (9e-3, (9e-3, 0.027)), (1.0, (9e-3, 0.027)), (4e-5, (3.33e-5, 1.11e-5))],
)
def test_the_grid_widens_at_the_edge_that_is_the_best(at: float, added: tuple[float, ...]) -> None:
    trials, rounds = run(settings(), losses_with_minimum_at(at))
    assert rounds.added == added
    for lr in added:
        assert lr in tried(trials, 7), "new learning rates have the draws of the others"
    assert run(settings(widen=0), losses_with_minimum_at(at))[1].added == ()


def test_a_new_learning_rate_has_all_draws_so_far() -> None:
    """The edge becomes the best with the second draw only."""
    first = dict(zip(GRID, (0.6, 0.5, 0.4, 0.41), strict=True))
    second = dict(zip(GRID, (0.6, 0.5, 0.45, 0.3), strict=True))

    def loss(lr: float, seed: int) -> float:
        return (first if seed == 7 else second).get(lr, 0.7)

    trials, rounds = run(settings(seeds=[7, 8]), loss)
    assert rounds.added == (9e-3,)
    assert [each.seed for each in trials if each.lr == 9e-3] == [7, 8]


@pytest.mark.parametrize("most", [3, 4, 5, 9, 11])
def test_the_limit_is_never_passed(most: int) -> None:
    trials, rounds = run(settings(), losses_with_minimum_at(1.0), most)
    assert len(trials) == len(rounds.asked) <= most
    assert len(rounds.added) <= max(0, min(2, most - len(GRID)))
    if most < len(GRID):
        assert len(rounds.refused) == len(GRID) - most
        assert {lr for lr, _ in rounds.refused} <= {GRID[0], GRID[-1]}, "the middle comes first"


def test_a_learning_rate_that_diverges_is_not_tried_again_and_bounds_the_grid() -> None:
    search, done = (
        settings(),
        [trial(lr, 7, loss) for lr, loss in zip(GRID, (3, 2, 1), strict=False)],
    )
    done.append(Trial(lr=GRID[-1], seed=7, state="diverged"))
    rounds = search_rounds(search, GRID, done)
    assert rounds.added == ()
    assert [lr for lr, seed in rounds.asked if seed == 8] == [3e-4, 1e-3, 1e-4]


def test_a_grid_that_the_limit_of_time_cut_is_not_widened() -> None:
    """The last learning rate that was tried is not the edge of the grid."""
    done = [trial(lr, 7, loss) for lr, loss in zip(GRID[1:3], (2, 1), strict=True)]
    left_out = [Trial(lr=lr, seed=7, state="not begun") for lr in (GRID[0], GRID[3])]
    assert search_rounds(settings(), GRID, [*done, *left_out]).added == ()


def test_best_score_is_the_search_of_earlier_versions() -> None:
    """Every learning rate has every draw; nothing is added."""
    search = settings(rule="best-score")
    trials, rounds = run(search, losses_with_minimum_at(1.0))
    assert len(trials) == search.most_trials == 12
    assert rounds.added == ()
