"""The numbers of a report as JSON, in natural units (no × 100)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from iwlora.compare.report.content import ReportContent, TaskSection
from iwlora.compare.report.tables import COSTS
from iwlora.compare.statistics.analysis import TaskDifference
from iwlora.compare.statistics.budget_parity import budget_ratios, is_unequal
from iwlora.compare.statistics.paired_tests import summarise
from iwlora.results.comparison import Comparison
from iwlora.results.formats import stamped


def summary_json(content: ReportContent) -> str:
    """The verdict, the differences over all tasks, and the numbers of each task.

    The fields of a single task are at the top level; several tasks are in ``parts``.
    """
    tasks = [_task(section) for section in content.sections]
    fields = {
        "verdict": content.verdict,
        "baseline": content.analysis.baseline,
        "overall": [
            {**asdict(row), "outcome": row.outcome} if row.pairs else asdict(row)
            for row in content.analysis.overall
        ],
        **({"parts": tasks} if content.several_tasks else tasks[0]),
    }
    return (
        json.dumps(stamped("summary", fields), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _task(section: TaskSection) -> dict[str, Any]:
    comparison = section.analysis.comparison
    first = comparison.runs[0].result if comparison.runs else None
    return {
        "model": comparison.model,
        "task": comparison.task,
        "seeds": list(comparison.seeds),
        "primary_metric": comparison.metrics[0] if first else None,
        "evaluated_on": first.evaluated_on if first else None,
        "selected_on": first.selected_on if first else None,
        "arms": _arms(section),
        "differences": [_difference(row) for row in section.analysis.differences],
        "search": {
            label: choice.model_dump(exclude={"trials": {"__all__": {"loss"}}})
            for label, choice in comparison.search.items()
        },
        "remarks": section.caveats,
        "missing": [
            dict(zip(("label", "seed", "status"), run, strict=True)) for run in comparison.missing
        ],
    }


def _arms(section: TaskSection) -> list[dict[str, Any]]:
    comparison = section.analysis.comparison
    ratios = budget_ratios(comparison)
    arms = []
    for label in comparison.arms:
        results = [run.result for run in comparison.of(label)]
        rates = {r.learning_rate for r in results if r.learning_rate is not None}
        updates = section.updates.get(label, {})
        arms.append(
            {
                "label": label,
                "method": results[0].method if results else None,
                "learning_rates": sorted(rates),
                "metrics": _metrics(comparison, label),
                **{cost.field: {str(r.seed): cost.of(r) for r in results} for cost in COSTS},
                "budget_ratio": ratios.get(label),
                "unequal_budget": is_unequal(ratios.get(label, 1.0)),
                "updates": {
                    name: {"norm": update.norm, "rank": update.rank}
                    for name, update in updates.items()
                },
            }
        )
    return arms


def _metrics(comparison: Comparison, label: str) -> dict[str, Any]:
    by_metric = {metric: comparison.values(label, metric) for metric in comparison.metrics}
    return {
        metric: {**asdict(summarise([*by_seed.values()])), "by_seed": by_seed}
        for metric, by_seed in by_metric.items()
        if by_seed
    }


def _difference(row: TaskDifference) -> dict[str, Any]:
    fields = asdict(row)
    del fields["variance"]
    return {
        "seeds": list(fields.pop("differences")),
        "seeds_and_examples": fields.pop("interval"),
        "outcome": row.outcome,
        "seeds_needed": row.seeds_needed,
        **fields,
    }
