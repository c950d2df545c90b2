"""The verdict of a comparison, in sentences that claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import (
    display_scale,
    format_difference,
    format_p_value,
    format_score,
)
from iwlora.compare.statistics.analysis import Analysis, OverallDifference
from iwlora.compare.statistics.paired_tests import (
    MIN_SEEDS,
    SIGNIFICANCE,
    PairedDifference,
    min_seeds,
    outcome,
    seeds_needed,
    summarise,
)
from iwlora.results.comparison import Comparison

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
    elif len(comparisons[0].arms) > 1:
        pairs = [row.paired for row in analysis.tasks[0].differences]
        metric = comparisons[0].metrics[0]
        sentences = _join(
            verdict_on_task(metric, analysis.baseline, pairs), describe_more_seeds(pairs)
        )
    else:
        sentences = _verdict_of_one_arm(comparisons[0])
    return _join(incomplete, sentences)


def outcome_text(outcome: str) -> str:
    """How the outcome of a comparison is written in a report: "open" is "no verdict yet"."""
    return "no verdict yet" if outcome == "open" else outcome


def verdict_on_task(metric: str, baseline: str, pairs: Sequence[PairedDifference]) -> str:
    """What the arms show against the baseline on one task.

    >>> print(verdict_on_task("f1", "lora", []))
    Nothing to compare: no other arm shares a finished seed with lora.
    """
    if not pairs:
        return _nothing_to_compare(baseline)
    outcomes = [outcome(pair) for pair in pairs]
    family = pairs[0].family
    if set(outcomes) == {"open"}:
        most = max(pair.summary.n for pair in pairs)
        return f"No verdict yet: {_too_few_seeds(most, family)}."
    arms = "; ".join(describe_difference(pair) for pair in pairs)
    correction = f"; p-values corrected by Holm for {family} comparisons" if family > 1 else ""
    null = ""
    if not set(_DECIDED) & set(outcomes):
        tested = [pair.arm for pair, o in zip(pairs, outcomes, strict=True) if o != "open"]
        null = f"No difference from {baseline} was found for {' or '.join(tested)}."
    return _join(
        null,
        f"Compared with {baseline} by {metric}, paired by seed, with 95% intervals: {arms}"
        f"{correction}.",
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
    if outcome(pair) == "open" or summary.low is None or summary.high is None:
        return f"{pair.arm}: no verdict yet, {_too_few_seeds(summary.n, pair.family)}"
    difference = _difference_text(pair.metric, summary.mean, summary.low, summary.high)
    return (
        f"{pair.arm}: {outcome(pair)} ({difference}, {_p_text(pair.p_adjusted)}, "
        f"{_seeds_text(summary.n)})"
    )


def describe_more_seeds(pairs: Sequence[PairedDifference]) -> str:
    """The sentence that says how many more seeds the undecided arms need; "" if none does."""
    return _more_seeds_sentence(
        [f"{more} for {pair.arm}" for pair in pairs if (more := more_seeds(pair))]
    )


def more_seeds(pair: PairedDifference) -> str:
    """How many more seeds an undecided arm needs; "" if it is decided.

    They give 80% power to detect a difference as large as the observed one.

    >>> from iwlora.compare.statistics.paired_tests import paired_difference
    >>> scores = {0: 0.61, 1: 0.59, 2: 0.62}
    >>> more_seeds(paired_difference("f1", "b", scores, "a", dict.fromkeys(scores, 0.6)))
    'about 41'
    """
    if outcome(pair) in _DECIDED:
        return ""
    total = seeds_needed(pair.summary, pair.family)
    if total is None:
        missing = min_seeds(pair.family) - pair.summary.n
        return f"at least {missing}" if missing > 0 else ""
    missing = total - pair.summary.n
    return f"about {missing:,}" if missing > 0 else ""


def _verdict_of_one_arm(comparison: Comparison) -> str:
    arm, metric = comparison.arms[0], comparison.metrics[0]
    values = list(comparison.values(arm, metric).values())
    if not values:
        return f"{arm} finished, but its {metric} is not a finite number."
    summary = summarise(values)
    spread = "" if summary.n > 1 else "; one seed says nothing about the spread between seeds"
    score = format_score(metric, summary.mean, summary.sd)
    return f"{arm}: {metric} {score} over {_seeds_text(summary.n)}{spread}."


def _verdict_over_tasks(analysis: Analysis) -> str:
    """What several tasks show together, and on which of them an arm differs."""
    compared = [row for row in analysis.overall if row.pairs]
    if not compared:
        return _nothing_to_compare(analysis.baseline)
    tasks = sum(1 for task in analysis.tasks if task.differences)
    scope = f"{tasks} tasks"
    if tasks < len(analysis.tasks):
        scope = f"{tasks} of {len(analysis.tasks)} tasks"
    metric = next((c.metrics[0] for c in analysis.comparisons if c.runs), "score")
    arms = "; ".join(_describe_overall(row, metric) for row in compared)
    outcomes = {row.outcome for row in compared}
    summary = ""
    if outcomes == {"open"}:
        summary = "No verdict yet."
    elif not set(_DECIDED) & outcomes:
        summary = f"No difference from {analysis.baseline} was found."
    more = [
        f"about {row.seeds_needed - row.seeds:,} for {row.arm}"
        for row in compared
        if row.outcome not in _DECIDED
        if row.seeds_needed is not None and row.seeds_needed > row.seeds
    ]
    return _join(
        summary,
        f"Over {scope}, compared with {analysis.baseline}: {arms}.",
        _more_seeds_sentence(more, " on every task"),
        _verdict_by_task(analysis),
    )


def _verdict_by_task(analysis: Analysis) -> str:
    """On which single tasks an arm differs from the baseline."""
    rows = [
        (task.comparison.task, row.paired) for task in analysis.tasks for row in task.differences
    ]
    outcomes = [outcome(pair) for _, pair in rows]
    correction = f"(by Holm for {len(rows)} comparisons)"
    if set(_DECIDED) & set(outcomes):
        decided = [
            f"{pair.arm} is {outcome(pair)} on {task}"
            for task, pair in rows
            if outcome(pair) in _DECIDED
        ]
        return f"On single tasks {correction}: {'; '.join(decided)}."
    if set(outcomes) == {"open"}:
        return f"There is no verdict yet on any single task {correction}."
    return f"No difference was found on any single task {correction}."


def _describe_overall(row: OverallDifference, metric: str) -> str:
    result = outcome_text(row.outcome)
    if row.difference is None or row.p_adjusted is None:
        return f"{row.arm}: {result}"
    if row.seeds < MIN_SEEDS:
        return (
            f"{row.arm}: {result}, {_seeds_text(row.seeds)} on a task; at least "
            f"{MIN_SEEDS} are needed"
        )
    difference = _difference_text(
        metric, row.difference.mean, row.difference.low, row.difference.high
    )
    return f"{row.arm}: {result} ({difference}, {_p_text(row.p_adjusted)})"


def _difference_text(metric: str, mean: float, low: float | None, high: float | None) -> str:
    """A difference and its interval, such as ``+1.25 points [+0.20, +2.30]``."""
    text = format_difference(metric, mean) + (" points" if display_scale(metric) > 1 else "")
    if low is None or high is None:
        return text
    return f"{text} [{format_difference(metric, low)}, {format_difference(metric, high)}]"


def _p_text(p_value: float) -> str:
    text = format_p_value(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _seeds_text(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def _too_few_seeds(n: int, family: int) -> str:
    among = f" after correction for {family} comparisons" if family > 1 else ""
    smallest = min(1.0, family * 2 / 2**n)
    return (
        f"with {_seeds_text(n)} no test can reach p < {SIGNIFICANCE}{among} (the smallest possible "
        f"p is {smallest:.2g}); at least {min_seeds(family)} seeds are needed"
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


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
