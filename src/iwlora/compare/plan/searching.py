"""The searches of all arms: which trials they still need, and which learning rates they chose."""

from __future__ import annotations

from pathlib import Path

from iwlora.compare.plan.learning_rate_search import choose_learning_rate
from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import SearchSteps
from iwlora.compare.plan.search_rounds import Rounds, search_rounds
from iwlora.results import layout
from iwlora.results.comparison.record import LearningRateChoice, Search, State, Trial
from iwlora.results.run import Run, RunResult


class Searching:
    """Takes in the trials that have ended, tells which may begin, and chooses.

    Args:
        plan: The comparison.
        steps: What the trials of its search may take.
        folder: Where it is.
    """

    def __init__(self, plan: Plan, steps: SearchSteps, folder: Path) -> None:
        assert plan.search is not None
        self._search, self._steps, self._folder = plan.search, steps, folder
        self._trials = {_key(run): run for run in plan.trials}
        self._grids = {
            label: sorted({lr for arm, lr, _ in self._trials if arm == label})
            for label in plan.labels
        }
        self._ended: dict[str, dict[tuple[float, int], Trial]] = {arm: {} for arm in plan.labels}
        self._rounds: dict[str, Rounds] = {}
        self._choices: dict[str, LearningRateChoice] = {}
        self._metric: str | None = None

    def ended(
        self, planned: PlannedRun, result: RunResult | None, state: State
    ) -> tuple[list[PlannedRun], list[str]]:
        """Take in that a trial has ended, or will never begin.

        Returns:
            (trials that were not planned, a sentence on each learning rate that is new).
        """
        label, lr, seed = _key(planned)
        steps = None if state == "not begun" else self._steps.of_trial[label]
        one_answer = False
        if result is not None:
            self._metric = result.primary_metric
            one_answer = Run(planned.folder(self._folder), result).gives_one_answer
            if result.epochs is not None:
                steps = round(result.epochs * self._steps.per_epoch[label])
        trial = Trial.of(lr, seed, result, state, one_class=one_answer, steps=steps)
        self._ended[label][lr, seed] = trial
        before = self._rounds.pop(label, None)
        rounds = self.rounds(label)
        new = [
            planned.as_trial(lr, seed, self._search.holdout)
            for lr, seed in rounds.asked
            if (label, lr, seed) not in self._trials
        ]
        self._trials |= {_key(run): run for run in new}
        return new, [
            f"{label}: the best learning rate so far is at the edge of its grid; "
            f"{layout.learning_rate_text(added)} is tried too"
            for added in rounds.added[len(before.added) if before else 0 :]
        ]

    def rounds(self, label: str) -> Rounds:
        """What the search of an arm has asked for, from the results so far."""
        if label not in self._rounds:
            self._rounds[label] = search_rounds(
                self._search,
                self._grids[label],
                [*self._ended[label].values()],
                self._steps.ceiling // self._steps.of_trial[label],
                self._metric,
            )
        return self._rounds[label]

    def may_begin(self, planned: PlannedRun) -> bool | None:
        """Whether a trial may begin now; None: not yet."""
        label, lr, seed = _key(planned)
        rounds = self.rounds(label)
        if (lr, seed) not in rounds.asked:
            return False if rounds.ended else None
        spent = sum(trial.seconds or 0.0 for trial in self._ended[label].values())
        return self._search.max_seconds is None or spent < self._search.max_seconds

    def is_asked_for(self, planned: PlannedRun) -> bool:
        """Whether the search has asked for a trial, so far."""
        label, lr, seed = _key(planned)
        return (lr, seed) in self.rounds(label).asked

    def choice(self, label: str) -> LearningRateChoice | None:
        """The choice of an arm, which is stored once it is known; None until its search has ended.

        A search ends with its last trial, or when further trials could not change the choice.
        """
        rounds = self.rounds(label)
        if label in self._choices or not rounds.ended:
            return self._choices.get(label)
        trials = [self._ended[label][trial] for trial in rounds.asked]
        out_of_time = any(trial.state == "not begun" for trial in trials)
        trials += [Trial(lr=lr, seed=seed, state="not begun") for lr, seed in rounds.refused]
        limit = "max_seconds" if out_of_time else "max_steps"
        choice = choose_learning_rate(label, trials, self._metric, self._search.rule, limit)
        known = {"added": list(rounds.added), "max_steps": self._steps.ceiling}
        self._choices[label] = choice.model_copy(update=known)
        Search(arms=self._choices).save(self._folder / layout.SEARCH)
        return self._choices[label]


def _key(run: PlannedRun) -> tuple[str, float, int]:
    return run.label, run.recipe.train.lr, run.seed
