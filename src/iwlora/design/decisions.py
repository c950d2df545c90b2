"""What a stage decides from its runs: which choice is kept, which are dropped, which stay open."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, stdev
from typing import Any, Literal

from iwlora.compare.number_format import as_printed
from iwlora.compare.plan.search.rounds import beyond_grid
from iwlora.compare.statistics.designs.factorial import independent_difference, largest_sums
from iwlora.compare.statistics.designs.race import (
    Scores,
    leader,
    pair_paths,
    race,
    simultaneous_interval,
)
from iwlora.compare.statistics.learning_rate.rules import loss_curve
from iwlora.design.effects import strategy_effects
from iwlora.design.stages import Stage
from iwlora.errors import IwloraError, listed
from iwlora.results.comparison.designs import ChoiceSummary, DrawnRun, EffectSummary
from iwlora.results.comparison.record import RaceRule, Trial
from iwlora.results.layout import learning_rate_text

Assignment = tuple[tuple[str, ...], ...]
"""The set of strategies of each group."""
_TRIED = 100_000  # assignments of a screen: all that four groups have; about 20 seconds
Verdict = Literal["found", "open", "best mean"]


@dataclass(frozen=True)
class Decision:
    """What a stage found: those fields of a ``StageSummary`` that depend on its scores."""

    verdict: Verdict
    found: str
    value: Any
    choices: list[ChoiceSummary]
    effects: list[EffectSummary] = field(default_factory=list)
    beyond: float | None = None
    """The next learning rate, where the best is at an end of the grid."""


def decide(
    stage: Stage,
    runs: Sequence[DrawnRun],
    metric: str,
    rule: RaceRule,
    groups: int,
    is_possible: Callable[[Assignment], bool],
) -> Decision:
    """Decide a stage.

    Args:
        stage: What is chosen, and how.
        runs: All that have ended, draw by draw.
        metric: The name of their score.
        rule: Of its race.
        groups: The number of groups of layers.
        is_possible: Whether the model can have these strategies within the budget.
    """
    scores = scores_in_order(stage, runs, metric)
    if stage.search == "race":
        return _decide_race(stage, scores, rule)
    if stage.search == "screen":
        return _decide_screen(stage, runs, metric, rule.error, groups, is_possible)
    if stage.search == "grid":
        return _decide_grid(stage, runs, scores, metric)
    return _decide_paper(stage, scores, rule.error)


def only_choice(stage: Stage) -> Decision:
    """What a stage decides if no other choice is possible."""
    ((label, value),) = stage.choices.items()
    kept = _summary(label, value, []).model_copy(update={"state": "kept"})
    return Decision("found", f"{label}: the only possible choice", value, [kept])


def no_choice(stage: Stage) -> Decision:
    """What a stage decides on a group that is not tuned: its first choice, which nothing uses."""
    assert stage.group is not None, "a stage of all groups always chooses"
    first = next(iter(stage.choices.values()))
    found = f"group {stage.group + 1} is not tuned, so it has no strategies to choose"
    return Decision("found", found, first, [])


def scores_in_order(stage: Stage, runs: Sequence[DrawnRun], metric: str) -> Scores:
    """{choice: its scores by draw}, as printed and higher ones better; None where a run failed."""
    found: dict[str, dict[int, float | None]] = {label: {} for label in stage.choices}
    for run in runs:
        score = None if run.score is None else as_printed(metric, run.score)
        found[run.choice][run.draw] = score
    return {label: [known[draw] for draw in sorted(known)] for label, known in found.items()}


def _decide_race(stage: Stage, scores: Scores, rule: RaceRule) -> Decision:
    ended = race(scores, rule)
    best = leader(scores, ended.left, ended.draws)
    paths = pair_paths(scores, ended.draws, ended.dropped)
    choices = []
    for label, value in stage.choices.items():
        why = ended.dropped.get(label)
        last = why.draws if why else ended.draws
        summary = _summary(label, value, scores[label][:last])
        state = "dropped" if why else "kept" if label == best else "open"
        fields: dict[str, Any] = {"state": state}
        if why:
            fields |= {
                "dropped_after": why.draws,
                "dropped_by": why.by,
                "p_value": why.p_value,
            }
        if label != best:
            path = paths.get((label, best)) or [-d for d in paths.get((best, label), [])]
            interval = simultaneous_interval(path, rule, len(stage.choices))
            low, high = interval or (None, None)
            fields |= {"difference": fmean(path) if path else None, "low": low, "high": high}
        choices.append(summary.model_copy(update=fields))
    if ended.is_open:
        others = listed([label for label in ended.left if label != best])
        sentence = (
            f"open after {ended.draws} draws: {best} has {_best_mean(scores, best, ended.left)} "
            f"and is taken; it may be no better than {others}"
        )
    else:
        sentence = f"{best}: all other choices were dropped within {ended.draws} draws"
    return Decision("open" if ended.is_open else "found", sentence, stage.choices[best], choices)


def _decide_paper(stage: Stage, scores: Scores, error: float) -> Decision:
    """The best mean, as the paper keeps it; intervals of independent designs, for all pairs."""
    pairs = math.comb(len(stage.choices), 2)
    best = leader(scores, [*stage.choices], max(map(len, scores.values())))
    of_best = [score for score in scores[best] if score is not None]
    choices = []
    for label, value in stage.choices.items():
        own = [score for score in scores[label] if score is not None]
        fields: dict[str, Any] = {"state": "kept" if label == best else "open"}
        if label != best and own and of_best:
            difference = independent_difference(own, of_best, error / pairs)
            fields |= {
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
            }
            if difference.high is not None and difference.high < 0:
                fields["state"] = "dropped"
        choices.append(_summary(label, value, scores[label]).model_copy(update=fields))
    mean = _best_mean(scores, best, [*stage.choices])
    sentence = f"{best} has {mean}; the probability that this choice is wrong is unknown"
    return Decision("best mean", sentence, stage.choices[best], choices)


def _decide_grid(stage: Stage, runs: Sequence[DrawnRun], scores: Scores, metric: str) -> Decision:
    """The tried learning rate nearest to the minimum of the curve of the held-out loss."""
    trials = [
        Trial(
            lr=stage.choices[run.choice],
            seed=run.seed,
            state="failed" if run.score is None else "done",
            score=run.score,
            loss=run.loss,
        )
        for run in runs
    ]
    draws = max(map(len, scores.values()))
    found = loss_curve(trials, metric)
    if found is None:
        best = leader(scores, [*stage.choices], draws)
        why = f"runs of every one failed, and it has {_best_mean(scores, best, [*stage.choices])}"
    else:
        minimum = found.learning_rate
        best = min(stage.choices, key=lambda each: abs(math.log(stage.choices[each] / minimum)))
        why = (
            f"of those tried, the nearest to {learning_rate_text(minimum)}, where the curve of the "
            f"held-out loss of {draws} random designs is lowest"
        )
        if found.edge:
            why += f"; a better one may lie beyond the {found.edge}, so widen design.lr"
    paths = pair_paths(scores, draws)
    choices = []
    for label, value in stage.choices.items():
        path = paths.get((label, best)) or [-d for d in paths.get((best, label), [])]
        fields: dict[str, Any] = {"state": "kept" if label == best else "not taken"}
        if label != best and path:
            fields["difference"] = fmean(path)
        choices.append(_summary(label, value, scores[label]).model_copy(update=fields))
    sentence = f"learning rate {learning_rate_text(stage.choices[best])} for all designs: {why}"
    beyond = beyond_grid(stage.choices.values(), found.edge) if found and found.edge else None
    return Decision("best mean", sentence, stage.choices[best], choices, beyond=beyond)


def _decide_screen(
    stage: Stage,
    runs: Sequence[DrawnRun],
    metric: str,
    error: float,
    groups: int,
    is_possible: Callable[[Assignment], bool],
) -> Decision:
    """The sets of strategies with the largest sum of estimated effects that are possible."""
    effects = strategy_effects([(stage.name, run) for run in runs], metric, error)
    ((label, sets),) = stage.choices.items()
    best = islice(assignments(effects, sets, groups), _TRIED)
    value = next(filter(is_possible, best), None)
    if value is None:
        raise IwloraError(
            f"{stage.name}: no assignment lies within 5% of the budget (at most {_TRIED:,} are "
            "tried, those with the largest sums of estimated effects); give another budget"
        )
    p_values = [effect.p_value for effect in effects if effect.p_value is not None]
    certain = sum(p_value <= error for p_value in p_values)
    known = [as_printed(metric, run.score) for run in runs if run.score is not None]
    summary = _summary(label, None, known, len(runs) - len(known))
    summary = summary.model_copy(update={"state": "kept"})
    sentence = (
        f"{certain} of {len(p_values)} effects of a strategy in a group differ significantly from "
        "0, and the others are open; the sets with the largest sum of estimated effects are taken"
    )
    if unknown := [effect.group for effect in effects if effect.p_value is None]:
        listed = " and ".join(map(str, sorted({*unknown})))
        sentence += (
            f"; {len(unknown)} effects in group {listed} cannot be estimated from these runs"
        )
    verdict: Verdict = "found" if 0 < certain == len(p_values) else "open"
    return Decision(verdict, sentence, value, [summary], effects)


def assignments(
    effects: Sequence[EffectSummary], sets: Sequence[tuple[str, ...]], groups: int
) -> Iterator[Assignment]:
    """All assignments of sets to groups, those with the largest sum of estimated effects first."""
    estimates = {(effect.group, effect.strategy): effect.mean or 0.0 for effect in effects}
    gains = [
        [sum(estimates.get((group, name), 0.0) for name in names) for names in sets]
        for group in range(1, groups + 1)
    ]
    for chosen in largest_sums(gains):
        yield tuple(sets[item] for item in chosen)


def _best_mean(scores: Scores, best: str, left: Sequence[str]) -> str:
    """What :func:`leader` chose by: choices with more failed runs come after all others."""
    failed = scores[best].count(None)
    if all(scores[choice].count(None) == failed for choice in left):
        return "the best mean"
    if not failed:
        return "the best mean of the choices without failed runs"
    return "the best mean of the choices with the fewest failed runs"


def _summary(
    label: str, value: Any, scores: Sequence[float | None], failed: int = 0
) -> ChoiceSummary:
    known = [score for score in scores if score is not None]
    return ChoiceSummary(
        label=label,
        value=[*value] if isinstance(value, tuple) else value,
        state="open",
        draws=len(known),
        failed=failed + len(scores) - len(known),
        mean=fmean(known) if known else None,
        sd=stdev(known) if len(known) > 1 else None,
    )
