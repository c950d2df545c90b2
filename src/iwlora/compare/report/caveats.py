"""What a reader must know beside the numbers of a comparison, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.budget_parity import told
from iwlora.compare.statistics.learning_rate_ties import undecided
from iwlora.results.comparison import Comparison


def scoring(comparison: Comparison) -> str:
    """Where the scores come from and in what unit, in a sentence."""
    first = comparison.runs[0].result
    points = [metric for metric in comparison.metrics if display_scale(metric) > 1]
    unit = f"; {', '.join(points)} × 100" if points else ""
    place = f"Scored on {first.evaluated_on}" if first.evaluated_on else "Scores as given"
    chosen = f" with the {first.selected_on}" if first.selected_on else ""
    return f"{place}{chosen}; mean ± standard deviation over seeds{unit}."


def remarks(comparison: Comparison) -> list[str]:
    """What a reader must know beside the numbers: budgets, crashes, notes, resumed runs."""
    results = [run.result for run in comparison.runs]
    notes = dict.fromkeys(" ".join(note.split()) for result in results for note in result.notes)
    rates = {result.learning_rate for result in results}
    by_hand = [
        "The learning rates were set by hand and not searched: an arm may be behind for want of "
        "tuning"
    ]
    resumed = [
        f"{result.label}, seed {result.seed} was resumed at step {result.resumed_at_step}: "
        "its training time is not known and not counted"
        for result in results
        if result.resumed_at_step
    ]
    unsearched = comparison.searched is False and len(comparison.arms) > 1 and None not in rates
    weak = by_hand if unsearched else []
    same = unlearned(comparison)
    tuned = [*comparison.remarks, *undecided(comparison)]
    return [*weak, *same, *told(comparison), *tuned, *notes, *resumed]


def unlearned(comparison: Comparison) -> list[str]:
    """How many runs of each arm give all rows one answer; empty where none does.

    Equal scores of such runs do not show that their methods are alike: nothing was learned.
    Where all rows have the same label, one answer is right and is not counted.
    """
    counts = []
    for label in comparison.arms:
        kept = [run.predictions() for run in comparison.of(label)]
        answered = [found for found in kept if found and len(set(found[0])) > 1]
        same = sum(len(set(predictions)) == 1 for _, predictions in answered)
        if same:
            counts.append(f"{label} {same} of {len(answered)}")
    if not counts:
        return []
    return [
        "Runs that give every row the same answer, whose scores are the task's floor and tell "
        f"nothing of their method: {', '.join(counts)}"
    ]


def absences(missing: Sequence[tuple[str, int, str]]) -> list[str]:
    """``Comparison.missing`` in words, seeds of one arm and status together.

    >>> absences([("a", 0, "failed"), ("a", 1, "not started"), ("a", 2, "not started")])
    ['a, seed 0 (failed)', 'a, seeds 1, 2 (not started)']
    """
    found: dict[tuple[str, str], list[str]] = {}
    for label, seed, status in missing:
        found.setdefault((label, status), []).append(str(seed))
    return [
        f"{label}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} ({status})"
        for (label, status), seeds in found.items()
    ]
