"""Which draws a race of choices still needs, from the scores so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from iwlora.compare.number_format import as_printed
from iwlora.compare.statistics.designs.race import Race, Scores, race
from iwlora.results.comparison.record import RaceRule
from iwlora.results.run import Run


class Racing:
    """Which choices of a race are left, and which draws may begin.

    All draws up to the next look may run at once; those after it wait until all runs before it have
    ended. So what is dropped does not depend on how many runs there are at once.

    Args:
        rule: When the race looks at its scores.
        choices: The labels of the arms.
        seeds: The draws in their order, as many as the last look has.
    """

    def __init__(self, rule: RaceRule, choices: Sequence[str], seeds: Sequence[int]) -> None:
        self._rule, self._seeds = rule, seeds
        self._scores: dict[str, dict[int, float | None]] = {choice: {} for choice in choices}
        self._race = race(self._in_order(), rule)

    def ended(self, label: str, seed: int, run: Run | None) -> list[str]:
        """Take in that a run has ended, None if it failed; returns which choices are dropped."""
        score = run.result.score if run else None
        if run is not None and score is not None:
            score = as_printed(run.result.primary_metric, score)
        self._scores[label][seed] = score
        before, scores = self._race, self._in_order()
        if before.ended or any(len(scores[choice]) < before.draws for choice in before.left):
            return []
        self._race = race(scores, self._rule)
        return _news(before, self._race)

    def needs(self, label: str, seed: int) -> bool:
        """Whether a run is needed, or may be: of a choice that is left, while the race goes on."""
        race = self._race
        if label in race.dropped:
            return self._seeds.index(seed) < race.dropped[label].draws
        return not race.ended or self._seeds.index(seed) < race.draws

    def may_begin(self, seed: int) -> bool:
        """Whether a draw comes before the next look."""
        return self._seeds.index(seed) < self._race.draws

    def _in_order(self) -> Scores:
        """Of each choice up to the first draw that has not ended."""
        return {
            label: [ended[seed] for seed in takewhile(ended.__contains__, self._seeds)]
            for label, ended in self._scores.items()
        }


def _news(before: Race, now: Race) -> list[str]:
    lines = [
        f"{choice} is dropped after {why.draws} draws: {why.by} is better (p = {why.p_value:.2g})"
        for choice, why in now.dropped.items()
        if choice not in before.dropped
    ]
    if now.is_open and not before.ended:
        names = ", ".join(now.left)
        lines.append(f"open after {now.draws} draws: no evidence decides between {names}")
    return lines
