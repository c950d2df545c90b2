"""What a comparison has shown, in words that claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import display_scale, format_difference
from iwlora.compare.statistics.analysis import Analysis, Overall
from iwlora.compare.statistics.paired_tests import (
    MIN_SEEDS,
    SIGNIFICANCE,
    PairedDifference,
    least_seeds,
    outcome,
    seeds_needed,
)
from iwlora.results.comparison import Comparison


def _seeds(n: int) -> str:
    return f"{n} seed{'s' * (n != 1)}"


def _too_few(n: int, family: int) -> str:
    among = f" among {family} comparisons" if family > 1 else ""
    least = min(1.0, family * 2 / 2**n)
    return (
        f"{_seeds(n)} cannot reach p < {SIGNIFICANCE}{among} (the smallest possible is "
        f"{least:.2g}); it takes at least {least_seeds(family)}"
    )


def more_seeds(pair: PairedDifference) -> str:
    """How many more seeds would decide an answer that is open; empty where it is decided.

    As many as find a difference as large as the observed one 4 times in 5.

    >>> from iwlora.compare.statistics.paired_tests import paired_difference
    >>> scores = {0: 0.61, 1: 0.59, 2: 0.62}
    >>> more_seeds(paired_difference("f1", "b", scores, "a", dict.fromkeys(scores, 0.6)))
    'about 41'
    """
    if outcome(pair) in ("higher", "lower"):
        return ""
    total = seeds_needed(pair.summary, pair.family)
    if total is None:
        least = least_seeds(pair.family) - pair.summary.n
        return f"at least {least}" if least > 0 else ""
    more = total - pair.summary.n
    return f"about {more:,}" if more > 0 else ""


def needed(pairs: Sequence[PairedDifference]) -> str:
    """The sentence that says how many more seeds the open answers need; empty without any."""
    told = [f"{more} for {pair.arm}" for pair in pairs if (more := more_seeds(pair))]
    return _more(told)


def _more(told: Sequence[str], where: str = "") -> str:
    if not told:
        return ""
    return (
        f"More seeds{where} that would find a difference as large as the observed one 4 times in "
        f"5: {', '.join(told)}."
    )


def verdict(pair: PairedDifference) -> str:
    """The outcome for one arm with its numbers, or with the reason why it is open.

    >>> from iwlora.compare.statistics.paired_tests import paired_difference
    >>> few = {0: 0.9, 1: 0.9, 2: 0.9}
    >>> print(verdict(paired_difference("f1", "b", few, "a", dict.fromkeys(few, 0.5))))
    b: open, 3 seeds cannot reach p < 0.05 (the smallest possible is 0.25); it takes at least 6
    """
    summary = pair.summary
    if outcome(pair) == "open" or summary.low is None or summary.high is None:
        return f"{pair.arm}: open, {_too_few(summary.n, pair.family)}"
    mean, low, high = (
        format_difference(pair.metric, v) for v in (summary.mean, summary.low, summary.high)
    )
    points = " points" if display_scale(pair.metric) > 1 else ""
    return (
        f"{pair.arm}: {outcome(pair)} ({mean}{points} [{low}, {high}], "
        f"p = {pair.p_adjusted:.3f}, {_seeds(summary.n)})"
    )


def headline(metric: str, baseline: str, pairs: Sequence[PairedDifference]) -> str:
    """The comparison on one task in a sentence or two, for the head of a report.

    >>> print(headline("f1", "lora", []))
    Nothing to compare: no other arm shares a finished seed with lora.
    """
    if not pairs:
        return f"Nothing to compare: no other arm shares a finished seed with {baseline}."
    found = [outcome(pair) for pair in pairs]
    if set(found) == {"open"}:
        most = max(pair.summary.n for pair in pairs)
        return f"Open, no winner is called: {_too_few(most, pairs[0].family)}."
    clauses = "; ".join(verdict(pair) for pair in pairs)
    family = pairs[0].family
    note = f"; p by Holm for {family} comparisons" if family > 1 else ""
    null = ""
    if not {"higher", "lower"} & set(found):
        arms = " or ".join(pair.arm for pair, o in zip(pairs, found, strict=True) if o != "open")
        null = f"No difference from {baseline} was found for {arms}. "
    return f"{null}{metric} against {baseline}, paired by seed, 95% intervals: {clauses}{note}."


def incomplete(parts: Sequence[Comparison]) -> str:
    """The sentence that warns of a comparison that is not whole; empty where it is."""
    absent = sum(len(part.missing) for part in parts)
    if not absent:
        return ""
    runs = absent + sum(len(part.runs) for part in parts)
    return f"Incomplete: {absent} of {runs} runs have no score."


def overall_outcome(one: Overall) -> str:
    """Over all tasks: "open" with fewer than 6 seeds on a task, or with too few pairs."""
    if one.seeds < MIN_SEEDS or one.p_adjusted is None or one.difference is None:
        return "open"
    if one.family * 2 / 2**one.pairs >= SIGNIFICANCE:
        return "open"
    if one.p_adjusted >= SIGNIFICANCE:
        return "no difference found"
    return "higher" if one.difference.mean > 0 else "lower"


def overall_headline(found: Analysis) -> str:
    """What several tasks have shown together, and on which of them an arm differs."""
    base, all_tasks = found.baseline, len(found.parts)
    tasks = sum(1 for row in found.compared if row)
    over = f"{tasks} tasks" if tasks == all_tasks else f"{tasks} of {all_tasks} tasks"
    compared = [one for one in found.overall if one.pairs]
    if not compared:
        return f"Nothing to compare: no other arm shares a finished seed with {base}."
    outcomes = [overall_outcome(one) for one in compared]
    metric = next((part.metrics[0] for part in found.parts if part.runs), "score")
    clauses = "; ".join(
        _overall(one, told, metric) for one, told in zip(compared, outcomes, strict=True)
    )
    single = [
        f"{one.pair.arm} is {outcome(one.pair)} on {part.task}"
        for part, row in zip(found.parts, found.compared, strict=True)
        for one in row
        if outcome(one.pair) in ("higher", "lower")
    ]
    pairs = [one.pair for row in found.compared for one in row]
    holm = f"(Holm for {len(pairs)} comparisons)"
    if single:
        by_task = f"On single tasks {holm}: {'; '.join(single)}."
    elif all(outcome(pair) == "open" for pair in pairs):
        by_task = f"On each single task it is open {holm}."
    else:
        by_task = f"On no single task was a difference found {holm}."
    null = ""
    if set(outcomes) == {"open"}:
        null = "Open, no winner is called. "
    elif not {"higher", "lower"} & set(outcomes):
        null = f"No difference from {base} was found. "
    more = [
        f"about {one.seeds_needed - one.seeds:,} for {one.arm}"
        for one, decided in zip(compared, outcomes, strict=True)
        if decided not in ("higher", "lower")
        if one.seeds_needed is not None and one.seeds_needed > one.seeds
    ]
    told = [
        f"{null}Over {over}, against {base}: {clauses}.",
        _more(more, " on every task"),
        by_task,
    ]
    return " ".join(filter(None, told))


def _overall(one: Overall, told: str, metric: str) -> str:
    if one.difference is None or one.p_adjusted is None:
        return f"{one.arm}: {told}"
    if one.seeds < MIN_SEEDS:
        return f"{one.arm}: open, {_seeds(one.seeds)} a task; it takes at least {MIN_SEEDS}"
    low, high = one.difference.low, one.difference.high
    around = "" if low is None or high is None else f" [{format_difference(metric, low)}, "
    around += f"{format_difference(metric, high)}]" if around and high is not None else ""
    points = " points" if display_scale(metric) > 1 else ""
    return (
        f"{one.arm}: {told} ({format_difference(metric, one.difference.mean)}{points}{around}, "
        f"p = {one.p_adjusted:.3f})"
    )
