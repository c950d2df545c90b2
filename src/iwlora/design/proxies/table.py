"""The rank correlations of proxies with the scores of the designs that a search has trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iwlora.compare.statistics.designs.proxies import (
    SENSITIVITY,
    START_GRADIENT,
    LayerProxy,
    proxy_rows,
    sensitivity_proxy,
)
from iwlora.results.comparison.designs import DrawnRun, LayerMeasurements, ProxySummary
from iwlora.results.metric_direction import oriented
from iwlora.results.run import SiteRank

FEWEST_RUNS = 3


def proxy_summaries(
    runs: Sequence[tuple[str, DrawnRun]],
    metric: str,
    parts_of: Callable[[DrawnRun], Sequence[SiteRank]],
    measured: LayerMeasurements,
) -> list[ProxySummary]:
    """How well each proxy orders the scores; none with fewer than three runs.

    Args:
        runs: (name of the stage, run).
        metric: The name of their score.
        parts_of: The parts that a run trained, with their sizes.
        measured: In each layer.
    """
    scored = [(stage, run) for stage, run in runs if run.score is not None]
    if len(scored) < FEWEST_RUNS:
        return []
    counts, amounts = list[dict[str, int]](), list[dict[str, dict[str, float]]]()
    for _, run in scored:
        count, amount = dict[str, int](), dict[str, dict[str, float]]()
        for part in parts_of(run):
            count[part.name] = count.get(part.name, 0) + (part.parameters or 0)
            name = part.kind.removeprefix("decoder_")
            amount.setdefault(part.name, {})[name] = part.rank or 1
        counts.append(count)
        amounts.append(amount)
    numbers: dict[tuple[str, int], int] = {}
    rows = proxy_rows(
        counts,
        [oriented(metric, float(run.score or 0.0)) for _, run in scored],
        {
            SENSITIVITY: sensitivity_proxy(counts, measured.sensitivity),
            START_GRADIENT: LayerProxy(amounts, measured.start),
        },
        [numbers.setdefault((stage, run.draw), len(numbers)) for stage, run in scored],
    )
    return [
        ProxySummary(
            name=row.name,
            permuted_rho=row.permuted_rho,
            p_value=row.p_value,
            **vars(row.correlation),
        )
        for row in rows
    ]
