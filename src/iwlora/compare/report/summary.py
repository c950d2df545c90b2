"""Everything in the tables as numbers in natural units (no × 100), ready for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from iwlora.compare.report.caveats import remarks
from iwlora.compare.report.tables import COSTS, known, verdict
from iwlora.compare.report.verdict import overall_outcome
from iwlora.compare.statistics import paired_tests
from iwlora.compare.statistics.analysis import Analysis, Compared
from iwlora.compare.statistics.budget_parity import budgets, unequal
from iwlora.results.comparison import Comparison
from iwlora.results.formats import stamped


def summary(found: Analysis) -> dict[str, Any]:
    """The verdict, what holds over all tasks, and each task: at the top where it is the only one.

    Of several tasks ``parts`` has each.
    """
    parts = [
        _part(part, compared) for part, compared in zip(found.parts, found.compared, strict=True)
    ]
    overall = [
        {**asdict(one), "outcome": overall_outcome(one)} if one.pairs else asdict(one)
        for one in found.overall
    ]
    head = stamped(
        "summary", {"verdict": verdict(found), "baseline": found.baseline, "overall": overall}
    )
    return head | (parts[0] if len(parts) == 1 else {"parts": parts})


def _part(part: Comparison, compared: tuple[Compared, ...]) -> dict[str, Any]:
    first = part.runs[0].result if part.runs else None
    ratios = budgets(part)
    arms = []
    for label in part.arms:
        results = [run.result for run in part.of(label)]
        metrics = {}
        for metric in part.metrics if part.runs else ():
            if values := part.values(label, metric):
                by_seed = {str(seed): value for seed, value in values.items()}
                metrics[metric] = {
                    **asdict(paired_tests.summarise([*values.values()])),
                    "by_seed": by_seed,
                }
        costs = {
            field: {str(result.seed): known(result, field) for result in results}
            for field, *_ in COSTS
        }
        rates = sorted({r.learning_rate for r in results if r.learning_rate is not None})
        method = results[0].method if results else None
        arms.append(
            {
                "label": label,
                "method": method,
                "learning_rates": rates,
                "metrics": metrics,
                **costs,
                "budget_ratio": ratios.get(label),
                "unequal_budget": unequal(ratios.get(label, 1.0)),
            }
        )
    return {
        "model": part.model,
        "task": part.task,
        "seeds": list(part.seeds),
        "primary_metric": part.metrics[0] if part.runs else None,
        "evaluated_on": first.evaluated_on if first else None,
        "selected_on": first.selected_on if first else None,
        "arms": arms,
        "differences": [
            {
                **asdict(one.pair),
                "outcome": paired_tests.outcome(one.pair),
                "seeds_needed": paired_tests.seeds_needed(one.pair.summary, one.pair.family),
                "seeds_and_examples": asdict(one.both),
            }
            for one in compared
        ],
        "search": {label: one.model_dump() for label, one in part.search.items()},
        "remarks": remarks(part),
        "missing": [
            {"label": label, "seed": seed, "status": status} for label, seed, status in part.missing
        ],
    }
