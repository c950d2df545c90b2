"""Whether the arms of a comparison ended with equal room: from what their results say."""

from __future__ import annotations

from iwlora.compare.statistics.paired_tests import baseline_of
from iwlora.results.comparison import Comparison
from iwlora.results.run import MOST_BUDGET_DIFFERENCE


def budgets(comparison: Comparison) -> dict[str, float]:
    """{label: adapter parameters over those of the arm that the others are compared with}.

    Means over seeds, of the arms whose size can be set; where the baseline's cannot, the first
    of them takes its place.
    """
    means = {}
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        counts = [r.adapter_parameters for r in results if r.adapter_parameters and r.rank]
        if counts:
            means[label] = sum(counts) / len(counts)
    baseline = comparison.baseline or baseline_of(comparison.arms)
    base = means.get(baseline) or next(iter(means.values()), 1.0)
    return {label: mean / base for label, mean in means.items()}


def unequal(ratio: float) -> bool:
    """Whether two budgets of this ratio differ by more than 5%.

    >>> unequal(1.05), unequal(1.06), unequal(1 / 1.06)
    (False, True, True)
    """
    return max(ratio, 1 / ratio) > 1 + MOST_BUDGET_DIFFERENCE


def told(comparison: Comparison) -> list[str]:
    """A sentence for each arm whose budget is another, for the remarks."""
    found = budgets(comparison)
    base = next((label for label, ratio in found.items() if ratio == 1), "")
    return [
        f"≠ {label} ended with {ratio:.2f} times the adapter parameters of {base}: their budgets "
        "are unequal"
        for label, ratio in found.items()
        if unequal(ratio)
    ]
