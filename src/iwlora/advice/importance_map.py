"""The importance of all matrices as a text table, with errors."""

from __future__ import annotations

import math

from iwlora.compare.report.text_columns import align
from iwlora.results.durations import format_duration
from iwlora.results.sensitivity import FORMULAS, Sensitivity, SiteSensitivity


def importance_map(sensitivity: Sensitivity) -> str:
    """Shares of the total sensitivity in % with their standard errors, blocks × kinds of matrices.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.1) for n, v in (("q", 3.0), ("k", 1.0)))
    >>> print(importance_map(Sensitivity(sites, "exact", 8, 0.0, True, 1.0)).splitlines()[2])
        0  75.0±2.5  25.0±2.5
    """
    total = math.fsum(site.value for site in sensitivity.included) or 1.0
    cells: dict[tuple[int, str], list[SiteSensitivity]] = {}
    for site in sensitivity.included:
        cells.setdefault((site.depth, site.kind), []).append(site)
    depths = sorted({depth for depth, _ in cells})
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    columns = [["block", *(f"{depth:>5}" for depth in depths)]]
    for kind in kinds:
        of_kind = [share_with_error(cells.get((depth, kind), []), total) for depth in depths]
        columns.append([kind if len(kind) <= 24 else f"…{kind[-23:]}", *of_kind])
    error = sensitivity.share_error
    known = "unknown" if error is None else f"{error:.1%}"
    what = FORMULAS[sensitivity.statistic]
    return "\n".join(
        [
            f"importance: share of the total in % ± standard error; s_k = {what}, "
            f"{sensitivity.batches} batches in {format_duration(sensitivity.seconds)}",
            *align(columns),
            f"expected to sit on the wrong matrices: {known}",
        ]
    )


def share_with_error(sites: list[SiteSensitivity], total: float) -> str:
    """The share of some matrices in the total sensitivity, in %, ± its standard error."""
    if not sites:
        return ""
    share = 100 * math.fsum(site.value for site in sites) / total
    errors = [site.stderr for site in sites if site.stderr is not None]
    if len(errors) < len(sites):
        return f"{share:.1f}"
    return f"{share:.1f}±{100 * math.hypot(*errors) / total:.1f}"
