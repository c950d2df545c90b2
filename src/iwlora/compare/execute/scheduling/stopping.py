"""Which draws a sequential comparison still needs, from the scores so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from statistics import stdev

from iwlora.compare.number_format import display_scale, format_size
from iwlora.compare.statistics.paired_tests import default_baseline
from iwlora.compare.statistics.price import fixed_seeds
from iwlora.compare.statistics.sequential import (
    Verdict,
    draws_for_power,
    fewest_draws,
    power,
    verdicts,
)
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.metric_direction import oriented
from iwlora.results.run import Run
from iwlora.results.run.computing import computing


class Stopping:
    """Which arms of a sequential comparison have no verdict, and which draws may begin.

    All arms begin with the fewest draws that can decide. After that a draw begins when those before
    have ended, with the arms that have no verdict and the baseline. Draws count in their order, up
    to the first that has not ended, and the error is divided among all arms from the beginning: a
    verdict is never withdrawn, and does not depend on how many runs there are at once.

    Args:
        rule: What is promised.
        arms: The labels of all arms.
        baseline: The arm that the others are compared with.
        seeds: The seeds in their order, as many as ``rule.max_seeds``.
    """

    def __init__(
        self, rule: StoppingRule, arms: Sequence[str], baseline: str | None, seeds: Sequence[int]
    ) -> None:
        self._rule, self._seeds = rule, seeds
        self._baseline = baseline or default_baseline(arms)
        self._ended: dict[str, set[int]] = {arm: set() for arm in arms}
        self._scores: dict[str, dict[int, float]] = {arm: {} for arm in arms}
        self._runs: list[Run] = []
        self._metric = ""
        self._first_draws = fewest_draws(rule, len(arms) - 1)
        self._announced: dict[str, str] = {}
        self._verdicts: dict[str, Verdict] = {}

    def ended(self, label: str, seed: int, run: Run | None) -> list[str]:
        """Take in that a run has ended, None if it failed; returns what is new.

        Each arm has a line on the power that ``max_seeds`` can reach, after its first draws, and
        one on its verdict.
        """
        self._ended[label].add(seed)
        if run is not None and (score := run.result.score) is not None:
            self._metric = metric = run.result.primary_metric
            self._scores[label][seed] = oriented(metric, score) * display_scale(metric)
            self._runs.append(run)
        differences = {arm: self._differences(arm) for arm in self._scores if arm != self._baseline}
        self._verdicts = verdicts(differences, self._rule)
        return [
            line
            for arm, verdict in self._verdicts.items()
            if self._announced.get(arm) != verdict.outcome
            and (line := self._news(arm, verdict, differences[arm]))
        ]

    def needs(self, label: str, seed: int) -> bool:
        """Whether a run of an arm is needed: the first draws of all, then those without a verdict.

        The baseline is needed as long as any arm has none.
        """
        return seed in self._seeds[: self._first_draws] or self._is_open(label)

    def _is_open(self, label: str) -> bool:
        arms = [arm for arm in self._scores if arm != self._baseline]
        if label != self._baseline:
            arms = [label]
        return any(arm not in self._verdicts or self._verdicts[arm].is_open for arm in arms)

    def may_begin(self, seed: int) -> bool:
        """Whether a draw may begin: it is one of the first, or those before it have ended."""
        number = self._seeds.index(seed)
        before = set(self._seeds[:number])
        return number < self._first_draws or all(
            before <= ended for arm, ended in self._ended.items() if self._is_open(arm)
        )

    def _differences(self, arm: str) -> list[float]:
        scores, baseline = self._scores[arm], self._scores[self._baseline]
        ended = self._ended[arm] & self._ended[self._baseline]
        known = takewhile(ended.__contains__, self._seeds)
        return [
            scores[seed] - baseline[seed] for seed in known if seed in scores and seed in baseline
        ]

    def _news(self, arm: str, verdict: Verdict, differences: Sequence[float]) -> str:
        if verdict.is_open and verdict.draws < self._first_draws:
            return ""
        self._announced[arm] = verdict.outcome
        if verdict.is_open:
            return self._outlook(arm, stdev(differences))
        size = f"{verdict.mean:+.2f}"
        if verdict.low is not None:  # "within" needs fewer draws than an interval does
            size += f" [{verdict.low:+.2f}, {verdict.high:+.2f}]"
        return f"{arm}: {self._describe(verdict)} after {verdict.draws} draws ({size})"

    def _outlook(self, arm: str, sd: float) -> str:
        rule = self._rule
        reached, draws = power(rule, rule.difference, sd, len(self._scores) - 1)
        fixed = fixed_seeds(rule, sd, len(self._scores) - 1)
        plain = f" ({fixed:,} fixed seeds: {self._cost(fixed)})" if fixed else ""
        warning = ""
        if reached < rule.power:
            enough = draws_for_power(rule, sd, len(self._scores) - 1)
            to = f" to {enough} ({self._cost(enough)})" if enough else ""
            warning = f", less than the {rule.power:.0%} asked for: raise stop.max_seeds{to}"
        return (
            f"{arm}: its difference from {self._baseline} varies by {sd:.2f} between draws, so "
            f"{format_size(self._metric, rule.difference)} is found with {reached:.0%} power "
            f"within {rule.max_seeds} draws{warning}; about {draws:.0f} draws, "
            f"{self._cost(draws)}{plain}"
        )

    def _cost(self, draws: float) -> str:
        """The time of an arm's draws and the baseline's."""
        cost = computing(self._runs)
        if cost is None:
            return "of unknown time"
        return str(cost.times(2 * draws / len(self._runs)))

    def _describe(self, verdict: Verdict) -> str:
        if verdict.outcome == "within":
            size = format_size(self._metric, self._rule.difference)
            return f"within {size} of {self._baseline}"
        return f"{verdict.outcome} than {self._baseline}"
