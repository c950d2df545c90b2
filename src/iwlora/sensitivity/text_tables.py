"""Measurements as text tables: the ranking of one, the agreement of two. Needs no torch."""

from __future__ import annotations

import math

from iwlora.results.sensitivity import FORMULAS, Sensitivity, SiteSensitivity
from iwlora.sensitivity.agreement import Agreement

_LISTED_EXPERTS = 8


def ranking(sensitivity: Sensitivity) -> str:
    """Every matrix with its share, s_k and standard error, the largest first; then the accuracy.

    >>> from iwlora.results.sensitivity import SiteSensitivity
    >>> sites = tuple(SiteSensitivity(n, n, 0, 2, 2, v, 0.1) for n, v in (("q", 1.0), ("k", 3.0)))
    >>> print(ranking(Sensitivity(sites, "exact", 8, 0.01, True, 1.0)).splitlines()[1])
     75.00%           3         0.1  k
    """
    ordered = sorted(sensitivity.included, key=lambda site: -site.value)
    total = math.fsum(site.value for site in ordered)
    lines = [f"{'share':>7}  {'s_k':>10}  {'± se':>10}  matrix"]
    for site in ordered:
        error = "-" if site.stderr is None else f"{site.stderr:.2g}"
        lines.append(f"{site.value / total:>7.2%}  {site.value:>10.4g}  {error:>10}  {site.name}")
    if sensitivity.excluded:
        lines.append(f"without importance: {', '.join(sensitivity.excluded)}")
    if sensitivity.coverage is not None:
        share = f"{sensitivity.coverage:.1%}"
        lines.append(f"the measured matrices have {share} of the matrix parameters of the blocks")
    lines += [_experts(site) for site in ordered if site.expert_values]
    lines += [
        top_share(sensitivity),
        f"s_k = {FORMULAS[sensitivity.statistic]}, {sensitivity.estimator}, "
        f"{sensitivity.batches} batches in {sensitivity.seconds:.1f} s",
        _accuracy(sensitivity),
    ]
    return "\n".join(lines) + "\n"


def _experts(site: SiteSensitivity) -> str:
    """How the sensitivity of a site is distributed over its experts.

    >>> print(_experts(SiteSensitivity("up", "up", 0, 2, 2, 5.0, None, (3.0, 1.0), (8, 0))))
    experts of up: 0 has 75.0% (8 tokens), 1 has 25.0% (0 tokens)
    """
    values = site.expert_values or ()
    total = math.fsum(values) or 1.0
    ordered = sorted(range(len(values)), key=lambda expert: -values[expert])
    parts = []
    for expert in ordered[:_LISTED_EXPERTS]:
        tokens = f" ({site.expert_tokens[expert]} tokens)" if site.expert_tokens else ""
        parts.append(f"{expert} has {values[expert] / total:.1%}{tokens}")
    rest = ordered[_LISTED_EXPERTS:]
    if rest:
        idle = sum(site.expert_tokens[expert] == 0 for expert in rest) if site.expert_tokens else 0
        part = math.fsum(values[expert] for expert in rest) / total
        parts.append(f"{len(rest)} more have {part:.1%}, {idle} of them no token")
    return f"experts of {site.name}: {', '.join(parts)}"


def top_share(sensitivity: Sensitivity) -> str:
    """The share of the top 10% of the matrices in the total sensitivity."""
    values = sorted((site.value for site in sensitivity.included), reverse=True)
    top = max(1, round(len(values) / 10))
    share = math.fsum(values[:top]) / (math.fsum(values) or 1.0)
    return f"the top {top} of {len(values)} matrices hold {share:.1%}"


def _accuracy(sensitivity: Sensitivity) -> str:
    if sensitivity.share_error is None:
        return "the accuracy of a single batch is unknown"
    bound = sensitivity.share_bound
    at_most = "" if bound is None else f", at most {min(bound, 1.0):.1%} with 95% confidence"
    hint = "" if sensitivity.converged else " (above the tolerance: measure more batches)"
    expected = f"{sensitivity.share_error:.1%}"
    return f"importance on the wrong matrices: {expected} expected{at_most}{hint}"


def agreement_table(agreement: Agreement, first: str, second: str) -> str:
    """The rank correlation, and the shares of each matrix, with the largest differences first.

    >>> both = Agreement({"q": (0.25, 0.5), "k": (0.75, 0.5)}, 0.9, 0.25)
    >>> print(agreement_table(both, "a", "b").splitlines()[0])
    rank correlation 0.900 over 2 matrices; 25.0% of the importance is on other matrices
    """
    lines = [
        f"rank correlation {agreement.rank_correlation:.3f} over {len(agreement.shares)} "
        f"matrices; {agreement.moved:.1%} of the importance is on other matrices",
        f"A: {first}",
        f"B: {second}",
        "",
        f"{'A':>7}  {'B':>7}  {'B − A':>7}  matrix",
    ]
    changes = sorted(agreement.shares.items(), key=lambda item: -abs(item[1][1] - item[1][0]))
    for name, (a, b) in changes:
        lines.append(f"{a:>7.2%}  {b:>7.2%}  {b - a:>+7.2%}  {name}")
    return "\n".join(lines) + "\n"
