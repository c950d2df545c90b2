"""The numbers of a report as JSON, in natural units (no × 100)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from iwlora.compare.report.content import ReportContent, TaskSection
from iwlora.compare.report.tables.scores import COSTS
from iwlora.compare.statistics.budget_parity import budget_ratios, is_unequal
from iwlora.compare.statistics.differences import OverallDifference, TaskDifference
from iwlora.compare.statistics.floors import mean_floors
from iwlora.compare.statistics.paired_tests import summarize
from iwlora.compare.statistics.price import price_of
from iwlora.results.comparison import Comparison
from iwlora.results.formats import stamped
from iwlora.results.metric_direction import lower_is_better

_SCORING = ("primary_metric", "evaluated_on", "selected_on")


def summary_json(content: ReportContent) -> str:
    """The answers, the verdict, the differences over all tasks, and the numbers of each task.

    The fields of a single task are at the top level; several tasks are in ``parts``.
    """
    tasks = [_task(section) for section in content.sections]
    fields = {
        "answers": [asdict(answer) for answer in content.answers],
        "verdict": content.verdict,
        "baseline": content.analysis.baseline,
        "overall": [_overall(row) for row in content.analysis.overall],
        **({"parts": tasks} if content.several_tasks else tasks[0]),
    }
    document = stamped("summary", fields)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _overall(row: OverallDifference) -> dict[str, Any]:
    fields = asdict(row)
    if row.sequential is None:
        del fields["sequential"]
    outcome = {"outcome": row.outcome} if row.pairs else {}
    return {**fields, "seeds_needed": row.seeds_needed, **outcome}


def _task(section: TaskSection) -> dict[str, Any]:
    comparison = section.analysis.comparison
    first = comparison.runs[0].result if comparison.runs else None
    price = price_of(comparison, section.analysis.differences)
    return {
        "model": comparison.model,
        "task": comparison.task,
        "seeds": list(comparison.seeds),
        "vary": list(comparison.vary),
        "verified": comparison.is_verified,
        **{field: getattr(first, field, None) for field in _SCORING},
        "lower_is_better": first is not None and lower_is_better(first.primary_metric),
        "arms": [_arm(section, label) for label in comparison.arms],
        "differences": [_difference(row) for row in section.analysis.differences],
        **({"price": asdict(price)} if price else {}),
        "search": {
            label: choice.model_dump(exclude={"trials": {"__all__": {"loss"}}})
            for label, choice in comparison.search.items()
        },
        "remarks": section.caveats,
        "missing": [
            dict(zip(("label", "seed", "status"), run, strict=True)) for run in comparison.missing
        ],
    }


def _arm(section: TaskSection, label: str) -> dict[str, Any]:
    comparison = section.analysis.comparison
    results = [run.result for run in comparison.of(label)]
    ratio = budget_ratios(comparison).get(label)
    updates = section.updates.get(label, {})
    return {
        "label": label,
        "method": results[0].method if results else None,
        "training_data": comparison.training_data(label),
        "learning_rates": sorted({r.learning_rate for r in results if r.learning_rate is not None}),
        "metrics": _metrics(comparison, label),
        "floors": [floor.model_dump() for floor in mean_floors(results)],
        **{cost.field: {r.seed: cost.of(r) for r in results} for cost in COSTS},
        "budget_ratio": ratio,
        "unequal_budget": ratio is not None and is_unequal(ratio),
        "updates": {name: {"norm": u.norm, "rank": u.rank} for name, u in updates.items()},
    }


def _metrics(comparison: Comparison, label: str) -> dict[str, Any]:
    by_metric = {metric: comparison.values(label, metric) for metric in comparison.metrics}
    return {
        metric: {**asdict(summarize([*by_seed.values()])), "by_seed": by_seed}
        for metric, by_seed in by_metric.items()
        if by_seed
    }


def _difference(row: TaskDifference) -> dict[str, Any]:
    fields = asdict(row)
    del fields["variance"]
    if row.sequential is None:
        del fields["sequential"]
    return {
        "seeds": list(fields.pop("differences")),
        "seeds_and_examples": fields.pop("interval"),
        "outcome": row.outcome,
        "seeds_needed": row.seeds_needed,
        "rows_needed": row.rows_needed,
        **fields,
    }
