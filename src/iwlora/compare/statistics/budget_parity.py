"""Budget parity: whether the arms of a comparison ended with equally many adapter parameters."""

from __future__ import annotations

from iwlora.compare.statistics.paired_tests import default_baseline
from iwlora.results.comparison import Comparison

MOST_BUDGET_DIFFERENCE = 0.05
"""Arms whose adapter parameters differ by a larger part do not have the same budget."""


def budget_ratios(comparison: Comparison) -> dict[str, float]:
    """{label: adapter parameters relative to those of the baseline}, from means over seeds.

    Arms whose size cannot be set are left out. If the baseline is one of them, the first of the
    other arms takes its place.
    """
    means = {}
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        counts = [r.adapter_parameters for r in results if r.adapter_parameters and r.rank]
        if counts:
            means[label] = sum(counts) / len(counts)
    baseline = comparison.baseline or default_baseline(comparison.arms)
    base = means.get(baseline) or next(iter(means.values()), 1.0)
    return {label: mean / base for label, mean in means.items()}


def is_unequal(ratio: float) -> bool:
    """Whether two budgets of this ratio differ by more than 5%.

    >>> is_unequal(1.05), is_unequal(1.06), is_unequal(1 / 1.06)
    (False, True, True)
    """
    return max(ratio, 1 / ratio) > 1 + MOST_BUDGET_DIFFERENCE
