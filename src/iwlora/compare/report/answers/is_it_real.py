"""Is the difference real? The first answer of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iwlora.compare.number_format import counted, format_score, format_size
from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.answers.findings import Finding
from iwlora.compare.report.answers.learning import floor_sentences
from iwlora.compare.report.verdict import join
from iwlora.compare.statistics import paired_tests
from iwlora.compare.statistics.analysis import Analysis
from iwlora.errors import listed
from iwlora.results.comparison import Comparison
from iwlora.results.metric_direction import with_direction

QUESTION = "Is the difference real?"
_NOTHING = "No: no method learned anything."


def is_it_real(
    analysis: Analysis, found: Sequence[Finding], without: Sequence[Sequence[str]]
) -> Answer:
    """What is better, worse or not known, and what learned nothing.

    Args:
        analysis: The comparison on each task.
        found: What is known of each arm.
        without: ``without[task]`` are the arms that learned nothing there.
    """
    nothing = _nothing_learned(analysis, without)
    evidence = [finding.sentence for finding in found]
    floors = [*_beside_floors(analysis, without)]
    evidence = [*floors, *evidence] if nothing else [*evidence, *floors]
    comparisons = analysis.comparisons
    absent = sum(len(comparison.missing) for comparison in comparisons)
    if absent:
        planned = absent + sum(len(comparison.runs) for comparison in comparisons)
        evidence.append(f"{absent} of {planned} runs have no score. They are not counted.")
    if found:
        states = _short_finding(analysis, found, with_direction(analysis.metric))
        short = nothing if nothing == _NOTHING else join(nothing, states)
        return Answer(QUESTION, short, tuple(evidence))
    if any(len(comparison.arms) > 1 for comparison in comparisons):
        short = f"Not known: no other arm shares a finished seed with {analysis.baseline}."
        return Answer(QUESTION, short, tuple(evidence))
    scores = [_score_sentence(comparison) for comparison in comparisons if comparison.runs]
    short = join(nothing, "There is one method, so there is no difference to test.")
    return Answer(QUESTION, short, (*scores, *evidence))


def _short_finding(analysis: Analysis, found: Sequence[Finding], metric: str) -> str:
    base = analysis.baseline
    by_state: dict[str, list[str]] = {}
    for finding in found:
        by_state.setdefault(finding.state, []).append(finding.arm)
    if set(by_state) == {"open"}:
        return f"Not known yet. {_too_few_seeds(analysis)}"
    rule = analysis.rule
    size = format_size(analysis.metric, rule.difference) if rule else ""
    if rule and set(by_state) == {"within"}:
        return f"No: every difference from {base} in {metric} is smaller than {size}."
    if set(by_state) <= {"none", "same"}:
        return f"No difference from {base} is shown in {metric}."
    decided = [
        f"{listed(arms)} {'is' if len(arms) == 1 else 'are'} {state} than {base}"
        for state in ("better", "worse")
        if (arms := by_state.get(state))
    ]
    sentences = [f"Yes, in {metric}: {', and '.join(decided)}."] if decided else []
    if narrow := [arm for f in found if f.state.endswith("rows") for arm in [f.arm]]:
        sentences.append(f"For {listed(narrow)}, it is shown for these scored rows only.")
    if rule and (within := by_state.get("within")):
        sentences.append(f"For {listed(within)}, it is smaller than {size}.")
    if none := [*by_state.get("none", []), *by_state.get("same", [])]:
        sentences.append(f"For {listed(none)}, no difference is shown.")
    if unknown := by_state.get("open"):
        sentences.append(f"For {listed(unknown)}, it is not known yet.")
    return " ".join(sentences)


def _too_few_seeds(analysis: Analysis) -> str:
    rows = [row for task in analysis.tasks for row in task.differences]
    if rule := analysis.comparisons[0].stop:
        return f"{counted(rows[0].summary.n, 'draw')} of at most {rule.max_seeds} gave no verdict."
    seeds, needed = max(row.summary.n for row in rows), paired_tests.min_seeds(rows[0].family)
    if len(analysis.tasks) > 1:
        needed = paired_tests.MIN_SEEDS
    are = "is" if seeds == 1 else "are"
    return f"{counted(seeds, 'seed')} {are} too few: a test needs {needed} or more."


def _beside_floors(analysis: Analysis, without: Sequence[Sequence[str]]) -> Iterator[str]:
    """What each arm shows against its floors, on each task."""
    for comparison, arms in zip(analysis.comparisons, without, strict=True):
        where = f"On {comparison.task}: " if len(analysis.tasks) > 1 else ""
        for sentence in floor_sentences(comparison, arms) if comparison.runs else ():
            yield where + sentence


def _nothing_learned(analysis: Analysis, without: Sequence[Sequence[str]]) -> str:
    """Which arms learned nothing on any task, in one sentence; "" if all learned something."""
    arms = {arm: None for comparison in analysis.comparisons for arm in comparison.arms}
    named = [arm for arm in arms if any(arm in of_task for of_task in without)]
    if named == [*arms] and len(named) > 1:
        return _NOTHING
    return f"{listed(named)} learned nothing." if named else ""


def _score_sentence(comparison: Comparison) -> str:
    label, metric = comparison.arms[0], comparison.metrics[0]
    scores = [*comparison.scores(label).values()]
    if not scores:
        return f"{label} finished, but its {metric} is not a finite number."
    summary = paired_tests.summarize(scores)
    text = f"{label}: {metric} {format_score(metric, summary.mean, summary.sd)}"
    return f"{text} with {counted(summary.n, 'seed')}."
