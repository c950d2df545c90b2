"""The verdict of a comparison, in sentences that claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import (
    counted,
    format_interval,
    format_p_value,
    format_score,
)
from iwlora.compare.report.sequential import sequential_verdict, sequential_verdict_over_tasks
from iwlora.compare.statistics import paired_tests
from iwlora.compare.statistics.analysis import Analysis
from iwlora.compare.statistics.differences import OverallDifference
from iwlora.compare.statistics.paired_tests import MIN_SEEDS, PairedDifference, min_seeds
from iwlora.results.comparison import Comparison
from iwlora.results.metric_direction import lower_is_better, with_direction

_DECIDED = ("higher", "lower")


def verdict(analysis: Analysis) -> str:
    """What the comparison shows, in a few sentences; the score if there is a single run."""
    comparisons = analysis.comparisons
    absent = sum(len(comparison.missing) for comparison in comparisons)
    runs = absent + sum(len(comparison.runs) for comparison in comparisons)
    have = "has" if absent == 1 else "have"
    incomplete = f"Incomplete: {absent} of {runs} runs {have} no score." if absent else ""
    if len(comparisons) > 1:
        sentences = _verdict_over_tasks(analysis)
    elif comparisons[0].stop and analysis.tasks[0].differences:
        sentences = sequential_verdict(analysis.tasks[0])
    elif len(comparisons[0].arms) > 1:
        pairs = analysis.tasks[0].differences
        sentences = join(verdict_on_task(analysis.baseline, pairs), describe_more_seeds(pairs))
    else:
        sentences = _verdict_of_one_arm(comparisons[0])
    return join(incomplete, sentences, _data_sentence(comparisons))


def _data_sentence(comparisons: Sequence[Comparison]) -> str:
    """That the arms also differ in their training data, where they do."""
    fields = dict.fromkeys(field for comparison in comparisons for field in comparison.vary)
    return f"The training data of the arms differ too, in {', '.join(fields)}." if fields else ""


def outcome_text(outcome: str) -> str:
    """How the outcome of a comparison is written in a report: "open" is "no verdict yet"."""
    return "no verdict yet" if outcome == "open" else outcome


def verdict_on_task(baseline: str, pairs: Sequence[PairedDifference]) -> str:
    """What the arms show against the baseline on one task.

    >>> print(verdict_on_task("lora", []))
    Nothing to compare: no other arm shares a finished seed with lora.
    """
    if not pairs:
        return _nothing_to_compare(baseline)
    outcomes = {pair.outcome for pair in pairs}
    family = pairs[0].family
    if outcomes == {"open"}:
        most = max(pair.summary.n for pair in pairs)
        return f"No verdict yet: {_too_few_seeds(most, family)}."
    arms = "; ".join(map(describe_difference, pairs))
    correction = f"; p-values corrected by Holm for {family} comparisons" if family > 1 else ""
    null = ""
    if outcomes.isdisjoint(_DECIDED):
        tested = " or ".join(pair.arm for pair in pairs if pair.outcome != "open")
        null = f"No difference from {baseline} was found for {tested}."
    return join(
        null,
        f"Compared with {baseline} by {with_direction(pairs[0].metric)}, paired by seed, "
        f"with 95% intervals: {arms}{correction}.",
    )


def describe_difference(pair: PairedDifference) -> str:
    """The outcome of one arm with its numbers, or the reason why there is no verdict.

    >>> from iwlora.compare.statistics.paired_tests import paired_difference
    >>> three = {0: 0.9, 1: 0.9, 2: 0.9}
    >>> pair = paired_difference("f1", "b", three, "a", dict.fromkeys(three, 0.5))
    >>> print(describe_difference(pair).partition(" (")[0])
    b: no verdict yet, with 3 seeds no test can reach p < 0.05
    """
    summary = pair.summary
    if not any(pair.differences.values()):
        return f"{pair.arm}: exactly the same score with {counted(summary.n, 'seed')}"
    if pair.outcome == "open":
        return f"{pair.arm}: no verdict yet, {_too_few_seeds(summary.n, pair.family)}"
    difference = format_interval(pair.metric, summary.mean, summary.low, summary.high)
    numbers = f"{difference}, {p_text(pair.p_adjusted)}, {counted(summary.n, 'seed')}"
    return f"{pair.arm}: {pair.outcome} ({numbers})"


def describe_more_seeds(pairs: Sequence[PairedDifference]) -> str:
    """The sentence that says how many more seeds the undecided arms need; "" if none does."""
    by_arm = [f"{more} for {pair.arm}" for pair in pairs if (more := more_seeds(pair))]
    return _more_seeds_sentence(by_arm)


def more_seeds(pair: PairedDifference) -> str:
    """How many more seeds an undecided arm needs; "" if it is decided.

    They give 80% power to detect a difference as large as the observed one. If all scores are
    equal, no number of seeds is known that would decide.

    >>> from iwlora.compare.statistics.paired_tests import paired_difference
    >>> scores = {0: 0.61, 1: 0.59, 2: 0.62}
    >>> more_seeds(paired_difference("f1", "b", scores, "a", dict.fromkeys(scores, 0.6)))
    'about 41'
    """
    total = pair.seeds_needed
    missing = (total or min_seeds(pair.family)) - pair.summary.n
    if pair.outcome in _DECIDED or missing <= 0 or not any(pair.differences.values()):
        return ""
    return f"about {missing:,}" if total else f"at least {missing}"


def _verdict_of_one_arm(comparison: Comparison) -> str:
    arm, metric = comparison.arms[0], comparison.metrics[0]
    scores = [*comparison.scores(arm).values()]
    if not scores:
        return f"{arm} finished, but its {metric} is not a finite number."
    summary = paired_tests.summarize(scores)
    spread = "" if summary.n > 1 else "; one seed says nothing about the spread between seeds"
    score = format_score(metric, summary.mean, summary.sd)
    return f"{arm}: {metric} {score} over {counted(summary.n, 'seed')}{spread}."


def _verdict_over_tasks(analysis: Analysis) -> str:
    """What several tasks show together, and on which of them an arm differs."""
    compared = [row for row in analysis.overall if row.pairs]
    if not compared:
        return _nothing_to_compare(analysis.baseline)
    if analysis.rule is not None:
        return sequential_verdict_over_tasks(analysis)
    tasks, planned = sum(1 for task in analysis.tasks if task.differences), len(analysis.tasks)
    scope = f"{tasks} of {planned} tasks" if tasks < planned else f"{tasks} tasks"
    arms = "; ".join(_describe_overall(row, analysis.metric) for row in compared)
    outcomes = {row.outcome for row in compared}
    summary = ""
    if outcomes == {"open"}:
        summary = "No verdict yet."
    elif outcomes.isdisjoint(_DECIDED):
        summary = f"No difference from {analysis.baseline} was found."
    more = [
        f"about {row.seeds_needed - row.seeds:,} for {row.arm}"
        for row in compared
        if row.outcome not in _DECIDED
        if row.seeds_needed is not None and row.seeds_needed > row.seeds
    ]
    return join(
        summary,
        f"Over {scope}, compared with {analysis.baseline}: {arms}.",
        _direction_sentence(analysis),
        _more_seeds_sentence(more, " on every task"),
        _verdict_by_task(analysis),
    )


def _direction_sentence(analysis: Analysis) -> str:
    metrics = dict.fromkeys(row.metric for task in analysis.tasks for row in task.differences)
    lower = [metric for metric in metrics if lower_is_better(metric)]
    return f"Lower is better for {', '.join(lower)}." if lower else ""


def _verdict_by_task(analysis: Analysis) -> str:
    """On which single tasks an arm differs from the baseline."""
    rows = [(task.comparison.task, row) for task in analysis.tasks for row in task.differences]
    correction = f"(by Holm for {len(rows)} comparisons)"
    decided = [
        f"{row.arm} is {row.outcome} on {task}" for task, row in rows if row.outcome in _DECIDED
    ]
    if decided:
        return f"On single tasks {correction}: {'; '.join(decided)}."
    if all(row.outcome == "open" for _, row in rows):
        return f"There is no verdict yet on any single task {correction}."
    return f"No difference was found on any single task {correction}."


def _describe_overall(row: OverallDifference, metric: str) -> str:
    result, interval = f"{row.arm}: {outcome_text(row.outcome)}", row.difference
    if interval is None or row.p_adjusted is None:
        return result
    if row.seeds < MIN_SEEDS:
        return f"{result}, {counted(row.seeds, 'seed')} on a task; at least {MIN_SEEDS} are needed"
    difference = format_interval(metric, interval.mean, interval.low, interval.high)
    return f"{result} ({difference}, {p_text(row.p_adjusted)})"


def p_text(p_value: float) -> str:
    """A p-value in a sentence: "p = 0.031", "p < 0.001"."""
    text = format_p_value(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _too_few_seeds(n: int, family: int) -> str:
    level = f"p < {paired_tests.SIGNIFICANCE}"
    among = f" after correction for {family} comparisons" if family > 1 else ""
    smallest = f"the smallest possible p is {min(1.0, family * 2 / 2**n):.2g}"
    return (
        f"with {counted(n, 'seed')} no test can reach {level}{among} ({smallest}); at least "
        f"{min_seeds(family)} seeds are needed"
    )


def _more_seeds_sentence(by_arm: Sequence[str], where: str = "") -> str:
    if not by_arm:
        return ""
    return (
        f"More seeds needed{where} for 80% power to detect a difference as large as the observed "
        f"one: {', '.join(by_arm)}."
    )


def _nothing_to_compare(baseline: str) -> str:
    return f"Nothing to compare: no other arm shares a finished seed with {baseline}."


def join(*sentences: str) -> str:
    """One text of the sentences that are not empty."""
    return " ".join(filter(None, sentences))
