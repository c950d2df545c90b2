"""The searches of all arms: which trials they still need, and which learning rates they chose."""

from __future__ import annotations

from pathlib import Path

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.compare.plan.preflight import SearchSteps
from iwlora.compare.plan.search.learning_rate import choose_learning_rate
from iwlora.compare.plan.search.options import best_combination, combinations_within
from iwlora.compare.plan.search.rounds import Rounds, search_rounds
from iwlora.results import layout
from iwlora.results.comparison.record import LearningRateChoice, Search, State, Trial
from iwlora.results.layout import options_text
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
        self._combinations: dict[str, dict[str, PlannedRun]] = {label: {} for label in plan.labels}
        grids: dict[str, set[float]] = {label: set() for label in plan.labels}
        for run in plan.trials:
            self._combinations[run.label].setdefault(options_text(run.options), run)
            grids[run.label].add(run.recipe.train.lr)
        self._grids = {label: sorted(grid) for label, grid in grids.items()}
        self._ended: dict[tuple[str, str], dict[tuple[float, int], Trial]] = {
            (label, options): {}
            for label, of_arm in self._combinations.items()
            for options in of_arm
        }
        self._rounds: dict[tuple[str, str], Rounds] = {}
        self._choices: dict[str, LearningRateChoice] = {}
        self._metric: str | None = None

    def ended(
        self, planned: PlannedRun, result: RunResult | None, state: State
    ) -> tuple[list[PlannedRun], list[str]]:
        """Take in that a trial has ended, or will never begin.

        Returns:
            (trials that were not planned, a sentence on each learning rate that is new).
        """
        label, options, lr, seed = _key(planned)
        steps = None if state == "not begun" else self._steps.of_trial[label]
        one_answer = False
        if result is not None:
            self._metric = result.primary_metric
            one_answer = Run(planned.folder(self._folder), result).gives_one_answer
            if result.epochs is not None:
                steps = round(result.epochs * self._steps.per_epoch[label])
        self._ended[label, options][lr, seed] = Trial.of(
            lr, seed, result, state, one_class=one_answer, steps=steps, options=planned.options
        )
        before = self._rounds.pop((label, options), None)
        rounds = self.rounds(label, options)
        new = [
            planned.as_trial(lr, seed, self._search.holdout)
            for lr, seed in rounds.asked
            if (label, options, lr, seed) not in self._trials
        ]
        self._trials |= {_key(run): run for run in new}
        return new, [
            f"{label}: the best learning rate so far is at the edge of its grid; "
            f"{layout.learning_rate_text(added)} is tried too"
            for added in rounds.added[len(before.added) if before else 0 :]
        ]

    def rounds(self, label: str, options: str = "") -> Rounds:
        """What the search of an arm has asked for with some options, from the results so far."""
        if (label, options) not in self._rounds:
            most = self._steps.ceiling // self._steps.of_trial[label]
            self._rounds[label, options] = search_rounds(
                self._search,
                self._grids[label],
                [*self._ended[label, options].values()],
                most // len(self._tried(label)),
                self._metric,
            )
        return self._rounds[label, options]

    def _tried(self, label: str) -> list[str]:
        """The combinations of options for which the limit has a first draw of the grid."""
        most = self._steps.ceiling // self._steps.of_trial[label]
        combinations = [*self._combinations[label]]
        number = combinations_within(most, len(self._grids[label]), len(combinations))
        return combinations[:number]

    def may_begin(self, planned: PlannedRun) -> bool | None:
        """Whether a trial may begin now; None: not yet."""
        label, options, lr, seed = _key(planned)
        if options not in self._tried(label):
            return False
        rounds = self.rounds(label, options)
        if (lr, seed) not in rounds.asked:
            return False if rounds.ended else None
        ended = [
            trial for each in self._tried(label) for trial in self._ended[label, each].values()
        ]
        spent = sum(trial.seconds or 0.0 for trial in ended)
        return self._search.max_seconds is None or spent < self._search.max_seconds

    def is_asked_for(self, planned: PlannedRun) -> bool:
        """Whether the search has asked for a trial, so far."""
        label, options, lr, seed = _key(planned)
        return options in self._tried(label) and (lr, seed) in self.rounds(label, options).asked

    def choice(self, label: str) -> LearningRateChoice | None:
        """The choice of an arm, which is stored once it is known; None until its search has ended.

        A search ends with its last trial, or when further trials could not change the choice.
        """
        tried = {options: self.rounds(label, options) for options in self._tried(label)}
        if label in self._choices or not all(rounds.ended for rounds in tried.values()):
            return self._choices.get(label)
        trials = {
            options: [self._ended[label, options][trial] for trial in rounds.asked]
            for options, rounds in tried.items()
        }
        every = [trial for each in trials.values() for trial in each]
        best = best_combination(every, self._metric)
        chosen = next(iter(tried)) if best is None else options_text(best)
        out_of_time = any(trial.state == "not begun" for trial in trials[chosen])
        # Of several combinations each has a share of the limit, and ends where its share does.
        refused = tried[chosen].refused if len(tried) == 1 else ()
        missing = [Trial(lr=lr, seed=seed, state="not begun") for lr, seed in refused]
        choice = choose_learning_rate(
            label,
            [*trials[chosen], *missing],
            self._metric,
            self._search.rule,
            "max_seconds" if out_of_time else "max_steps",
        )
        others = [trial for options in tried if options != chosen for trial in trials[options]]
        known = {
            "trials": [*choice.trials, *others],
            "added": list(tried[chosen].added),
            "options": best or {},
            "max_steps": self._steps.ceiling,
        }
        if choice.remark is None and len(tried) < len(self._combinations[label]):
            known["remark"] = (
                f"{label}: {len(tried)} of {len(self._combinations[label])} combinations of "
                "search.options were tried, because search.max_steps was reached; raise it"
            )
        self._choices[label] = choice.model_copy(update=known)
        Search(arms=self._choices).save(self._folder / layout.SEARCH)
        return self._choices[label]

    def chosen_run(self, planned: PlannedRun, choice: LearningRateChoice) -> PlannedRun:
        """A reported run with the learning rate and the options that its search has chosen."""
        assert choice.lr is not None
        if choice.options:
            trial = self._combinations[planned.label][options_text(choice.options)]
            planned = planned.with_settings_of(trial)
        return planned.with_learning_rate(choice.lr)


def _key(run: PlannedRun) -> tuple[str, str, float, int]:
    return run.label, options_text(run.options), run.recipe.train.lr, run.seed
