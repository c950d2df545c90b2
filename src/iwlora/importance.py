"""From sensitivities to weights, and from weights to penalty coefficients or ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iwlora.errors import IwloraError, unknown
from iwlora.sensitivity.record import Sensitivity


def _sum(values: Mapping[str, float]) -> dict[str, float]:
    total = sum(values.values())
    return {name: value / total for name, value in values.items()}


def _max(values: Mapping[str, float]) -> dict[str, float]:
    largest = max(values.values())
    return {name: value / largest for name, value in values.items()}


def _mean(values: Mapping[str, float]) -> dict[str, float]:
    mean = sum(values.values()) / len(values)
    return {name: value / mean for name, value in values.items()}


def _rank(values: Mapping[str, float]) -> dict[str, float]:
    ordered = sorted(values.values())
    first = {value: ordered.index(value) for value in ordered}
    count = {value: ordered.count(value) for value in first}
    middle = {value: first[value] + count[value] / 2 for value in first}  # ties share a place
    return {name: middle[value] / len(ordered) for name, value in values.items()}


NORMALIZATIONS: dict[str, Callable[[Mapping[str, float]], dict[str, float]]] = {
    "sum": _sum,
    "max": _max,
    "mean": _mean,
    "rank": _rank,
}


@dataclass(frozen=True)
class Importance:
    """Importance of each site among the sites measured.

    =============  ===========================  ==================================
    ``normalize``  weight w_k                   penalty coefficient c_k
    =============  ===========================  ==================================
    ``sum``        s_k / Σ_j s_j                (1 − w_k)^β
    ``max``        s_k / max_j s_j              (1 − w_k)^β
    ``rank``       (place of s_k − ½) / K       (1 − w_k)^β
    ``mean``       s_k / mean_j s_j             w_k^(−β), rescaled to mean 1
    =============  ===========================  ==================================

    ``sum`` is the method as first stated. With K sites of like importance its coefficients all
    lie near 1 − 1/K, so it penalises almost uniformly unless β is of the order of K; the other
    three spread the coefficients whatever K is.

    Raises ``IwloraError`` for an unknown normalisation, and for ``mean`` with a sensitivity of 0.

    >>> from iwlora.sensitivity.record import SiteSensitivity
    >>> found = [SiteSensitivity("a", "query", 0, 4, 4, value=1.0, stderr=0.0),
    ...          SiteSensitivity("b", "query", 1, 4, 4, value=3.0, stderr=0.0)]
    >>> importance = Importance(Sensitivity(tuple(found), "exact", 8, 0.0, True, 0.1))
    >>> importance.weights
    {'a': 0.25, 'b': 0.75}
    >>> importance.coefficients(beta=2.0)
    {'a': 0.5625, 'b': 0.0625}
    """

    sensitivity: Sensitivity
    normalize: str = "sum"

    def __post_init__(self) -> None:
        if self.normalize not in NORMALIZATIONS:
            raise unknown("normalisation", self.normalize, NORMALIZATIONS)
        zero = [name for name, value in self.sensitivity.values.items() if value <= 0]
        if self.normalize == "mean" and zero:
            raise IwloraError(
                f"normalize='mean' divides by the sensitivity, which is 0 for {', '.join(zero)}; "
                "take normalize='rank', 'max' or 'sum'"
            )

    @property
    def weights(self) -> dict[str, float]:
        """{site name: w_k}, as ``normalize`` defines it."""
        return NORMALIZATIONS[self.normalize](self.sensitivity.values)

    def coefficients(self, beta: float = 1.0) -> dict[str, float]:
        """{site name: c_k}: how strongly each site's update is penalised, as in the table above.

        Raises ``IwloraError`` for a negative β, which would reward what it should punish.
        """
        if not beta >= 0:
            raise IwloraError(f"beta={beta} was given; accepted is a number of at least 0")
        weights = self.weights
        if self.normalize != "mean":
            return {name: (1.0 - weight) ** beta for name, weight in weights.items()}
        inverse = {name: weight**-beta for name, weight in weights.items()}
        mean = sum(inverse.values()) / len(inverse)
        return {name: value / mean for name, value in inverse.items()}

    def rank_pattern(
        self, r: int = 8, lora_alpha: float | None = None, minimum: int = 1
    ) -> tuple[dict[str, int], dict[str, float]]:
        """(rank_pattern, alpha_pattern) for ``peft.LoraConfig``: ranks in proportion to s_k.

        Ranks lie between ``minimum`` and min(d_in, d_out), and Σ_k r_k (d_in + d_out) is that of
        a uniform rank ``r``, short of it by less than the parameters of one more rank. What is
        left of the proportional ranks after rounding down goes to the largest remainders. The
        alphas keep the scaling ``lora_alpha / r`` (``lora_alpha`` is ``r`` by default) the same
        at every site. With ``minimum=0``, sites of rank 0 have no entry; leave them out of
        ``target_modules`` too. Names that end in another site's name come before it, because
        PEFT takes the first entry that fits the end of a module's name.

        Raises ``IwloraError`` for a rank below 1 or above the smallest matrix, and for a minimum
        outside 0 to ``r``.
        """
        sites = self.sensitivity.sites
        limit = {site.name: min(site.d_in, site.d_out) for site in sites}
        if not 1 <= r <= min(limit.values()):
            raise IwloraError(
                f"rank {r} was given; accepted are 1 to {min(limit.values())}, "
                "the smaller side of the smallest matrix"
            )
        if not 0 <= minimum <= r:
            raise IwloraError(f"minimum={minimum} was given; accepted are 0 to the rank, {r}")
        cost = {site.name: site.d_in + site.d_out for site in sites}
        spare = r * sum(cost.values())
        wanted = _proportional(self.sensitivity.values, cost, limit, minimum, spare)
        ranks = {name: max(minimum, int(rank)) for name, rank in wanted.items()}
        spare -= sum(ranks[name] * cost[name] for name in ranks)
        # One rank at a time to the largest remainder; ties go to the first.
        while fits := [n for n in ranks if ranks[n] < limit[n] and cost[n] <= spare]:
            neediest = max(fits, key=lambda name: wanted[name] - ranks[name])
            ranks[neediest] += 1
            spare -= cost[neediest]
        scaling = (r if lora_alpha is None else lora_alpha) / r
        ordered = {name: ranks[name] for name in sorted(ranks, key=len, reverse=True)}
        kept = {name: rank for name, rank in ordered.items() if rank}
        return kept, {name: scaling * rank for name, rank in kept.items()}


def _proportional(
    values: Mapping[str, float],
    cost: Mapping[str, int],
    limit: Mapping[str, int],
    minimum: int,
    budget: int,
) -> dict[str, float]:
    """{name: λ s_k within [minimum, limit]}, with λ such that Σ_k cost_k · rank_k is the budget."""
    values = values if any(values.values()) else dict.fromkeys(values, 1.0)

    def at(factor: float) -> dict[str, float]:
        return {n: min(max(factor * v, minimum), limit[n]) for n, v in values.items()}

    low, high = 0.0, max(limit.values()) / min(value for value in values.values() if value > 0)
    for _ in range(100):  # halving: as near as floating point gets
        middle = (low + high) / 2
        spent = sum(rank * cost[name] for name, rank in at(middle).items())
        low, high = (middle, high) if spent <= budget * (1 + 1e-12) else (low, middle)
    return {name: round(rank, 9) for name, rank in at(low).items()}
