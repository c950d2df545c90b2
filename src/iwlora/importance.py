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
        self, r: int = 8, lora_alpha: float | None = None
    ) -> tuple[dict[str, int], dict[str, float]]:
        """(rank_pattern, alpha_pattern) for ``peft.LoraConfig``: ranks in proportion to s_k.

        Ranks lie between 1 and min(d_in, d_out), and Σ_k r_k (d_in + d_out) is at most that of
        a uniform rank ``r``, short of it by less than the parameters of one rank. The alphas
        keep the scaling ``lora_alpha / r`` (``lora_alpha`` is ``r`` by default) the same at
        every site.

        Raises ``IwloraError`` for a rank below 1 or above the smallest matrix.
        """
        sites = self.sensitivity.sites
        limit = {site.name: min(site.d_in, site.d_out) for site in sites}
        if not 1 <= r <= min(limit.values()):
            raise IwloraError(
                f"rank {r} was given; accepted are 1 to {min(limit.values())}, "
                "the smaller side of the smallest matrix"
            )
        cost = {site.name: site.d_in + site.d_out for site in sites}
        budget = r * sum(cost.values())
        values = self.sensitivity.values
        ranks = dict.fromkeys(values, 1)
        spare = budget - sum(cost.values())
        # One rank at a time to the site that is furthest below its share; ties go to the first.
        while True:
            open_sites = [n for n in ranks if ranks[n] < limit[n] and cost[n] <= spare]
            if not open_sites:
                break
            neediest = max(open_sites, key=lambda name: values[name] / ranks[name])
            ranks[neediest] += 1
            spare -= cost[neediest]
        scaling = (r if lora_alpha is None else lora_alpha) / r
        return ranks, {name: scaling * rank for name, rank in ranks.items()}
