"""Which trials a search needs, from the results of those that have ended: draw by draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iwlora.compare.plan.search.learning_rate import SearchSettings, trial_order
from iwlora.compare.statistics.learning_rate.rules import find_rule, left_over
from iwlora.results.comparison.record import Trial


@dataclass(frozen=True)
class Rounds:
    """The trials, as (learning rate, seed), that a search has asked for so far, in their order.

    ``refused`` are those for which the limit leaves no steps, ``added`` the learning rates that
    were added to the grid. ``ended`` is True if the search needs no further results.
    """

    asked: tuple[tuple[float, int], ...]
    refused: tuple[tuple[float, int], ...]
    added: tuple[float, ...]
    ended: bool


def search_rounds(
    search: SearchSettings,
    learning_rates: Sequence[float],
    trials: Sequence[Trial],
    most: int | None = None,
    metric: str | None = None,
) -> Rounds:
    """Replay a search up to the first trials that have not ended.

    The first draw tries all learning rates. If the best is then at the edge of the grid, a learning
    rate is added there, at the ratio of the last two, and tried in all draws so far: at most
    ``search.widen`` times, and not if a trial never began: a new one would not begin either.
    Learning rates that cannot win, or are clearly worse than the best one by a paired test, get no
    further draw. The search ends after the last draw, or when a single learning rate is left. A
    rule that is not adaptive has the whole grid in all draws.

    Which trials are asked for depends only on the results, not on the order in which they came.

    Args:
        search: The settings.
        learning_rates: The grid of the arm.
        trials: Its trials that have ended, and "not begun" ones, which never will.
        most: How many trials the limit of steps allows; None: all.
        metric: The name of the score.

    Example:
        >>> search = SearchSettings(lr=[1e-4, 1e-3, 1e-2], seeds=[7, 8])
        >>> search_rounds(search, search.lr, []).asked
        ((0.001, 7), (0.01, 7), (0.0001, 7))
    """
    rule = find_rule(search.rule)
    known = {(trial.lr, trial.seed): trial for trial in trials}
    most = search.most_trials if most is None else most
    asked: list[tuple[float, int]] = []
    added: list[float] = []
    rest = sorted(learning_rates)

    for draw, seed in enumerate(search.seeds, start=1):
        new = trial_order(rest, [seed])
        while new:
            allowed, refused = new[: most - len(asked)], new[most - len(asked) :]
            asked += allowed
            ended = all(trial in known for trial in allowed)
            if refused or not ended:
                return Rounds(tuple(asked), tuple(refused), tuple(added), ended)
            results = [known[trial] for trial in asked]
            new = []
            best = rule.choose(results, metric) if rule.adaptive else None
            affordable = len(added) < search.widen and len(asked) + draw <= most
            in_time = all(trial.state != "not begun" for trial in results)
            if best and best.edge and affordable and in_time:
                added.append(beyond_grid({*learning_rates, *added}, best.edge))
                rest = sorted([*rest, added[-1]])
                new = [(added[-1], earlier) for earlier in search.seeds[:draw]]
        if rule.adaptive:
            rest = left_over(results, rest, metric)
            if len(rest) < 2:
                break
    return Rounds(tuple(asked), (), tuple(added), ended=True)


def beyond_grid(tried: Iterable[float], edge: str) -> float:
    """The next learning rate beyond an edge of the grid, at its last ratio, to three digits.

    >>> beyond_grid([1e-3, 1e-2], "largest")
    0.1
    """
    first, second, *_ = sorted(tried, reverse=edge == "largest")
    return float(f"{first * (first / second):.3g}")
