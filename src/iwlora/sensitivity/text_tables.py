"""Measurements as text: the ranked table of one, the agreement of two. Needs no torch."""

from __future__ import annotations

import math

from iwlora.results.sensitivity import FORMULAS, Sensitivity
from iwlora.sensitivity.agreement import Agreement


def ranking(sensitivity: Sensitivity) -> str:
    """Every matrix with its share, s_k and standard error, the largest first; then how sure.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.1) for n, v in (("q", 1.0), ("k", 3.0)))
    >>> print(ranking(Sensitivity(sites, "exact", 8, 0.01, True, 1.0)).splitlines()[1])
     75.00%           3         0.1  k
    """
    ordered = sorted(sensitivity.sites, key=lambda site: -site.value)
    total = math.fsum(site.value for site in ordered)
    lines = [f"{'share':>7}  {'s_k':>10}  {'± se':>10}  matrix"]
    for site in ordered:
        error = "-" if site.stderr is None else f"{site.stderr:.2g}"
        lines.append(f"{site.value / total:>7.2%}  {site.value:>10.4g}  {error:>10}  {site.name}")
    lines += [
        top_share(sensitivity),
        f"s_k = {FORMULAS[sensitivity.statistic]}, {sensitivity.estimator}, "
        f"{sensitivity.batches} batches in {sensitivity.seconds:.1f} s",
        _sureness(sensitivity),
    ]
    return "\n".join(lines) + "\n"


def top_share(sensitivity: Sensitivity) -> str:
    """What the tenth of the matrices with the largest sensitivities holds of their sum."""
    values = sorted((site.value for site in sensitivity.sites), reverse=True)
    top = max(1, round(len(values) / 10))
    held = math.fsum(values[:top]) / (math.fsum(values) or 1.0)
    return f"the top {top} of {len(values)} matrices hold {held:.1%}"


def _sureness(sensitivity: Sensitivity) -> str:
    if sensitivity.share_error is None:
        return "a single batch does not tell how sure this is"
    bound = sensitivity.share_bound
    at_most = "" if bound is None else f", at most {min(bound, 1.0):.1%} with 95% confidence"
    more = "" if sensitivity.converged else " (above the tolerance: more batches would help)"
    expected = f"{sensitivity.share_error:.1%}"
    return f"importance on the wrong matrices: {expected} expected{at_most}{more}"


def agreement_table(found: Agreement, first: str, second: str) -> str:
    """Shares and places side by side, the largest differences first, and the rank correlation.

    >>> both = Agreement({"q": (0.25, 0.5), "k": (0.75, 0.5)}, 0.9, 0.25)
    >>> print(agreement_table(both, "a", "b").splitlines()[0])
    rank correlation 0.900 over 2 matrices; 25.0% of the importance lies elsewhere
    """
    lines = [
        f"rank correlation {found.rank_correlation:.3f} over {len(found.shares)} matrices; "
        f"{found.moved:.1%} of the importance lies elsewhere",
        f"A: {first}",
        f"B: {second}",
        "",
        f"{'A':>7}  {'B':>7}  {'B − A':>7}  matrix",
    ]
    changes = sorted(found.shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    for name, (one, two) in changes:
        lines.append(f"{one:>7.2%}  {two:>7.2%}  {two - one:>+7.2%}  {name}")
    return "\n".join(lines) + "\n"
