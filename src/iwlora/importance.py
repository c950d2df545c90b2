"""From sensitivities to weights, and from weights to penalty coefficients or ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral

from iwlora.errors import IwloraError, unknown
from iwlora.rank_pattern import allocate
from iwlora.results.sensitivity import Sensitivity


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

    Raises ``IwloraError`` for an unknown normalisation, anything but a ``Sensitivity``, one of
    zeros alone, and for ``mean`` one with a single 0.

    >>> from iwlora.results.sensitivity import SiteSensitivity
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
        if not isinstance(self.sensitivity, Sensitivity):
            raise IwloraError(
                f"a {type(self.sensitivity).__name__} was given as sensitivity; accepted is what "
                "iwlora.measure returns or iwlora.Sensitivity.load(FILE) reads"
            )
        zero = [name for name, value in self.sensitivity.values.items() if value <= 0]
        if len(zero) == len(self.sensitivity.sites):
            raise IwloraError("every sensitivity is 0, so no matrix matters more than another")
        if self.normalize == "mean" and zero:
            raise IwloraError(
                f"normalize='mean' divides by the sensitivity, which is 0 for {len(zero)} of "
                f"{len(self.sensitivity.sites)} sites, the first being {zero[0]}; take "
                "normalize='rank', 'max' or 'sum'"
            )

    @property
    def weights(self) -> dict[str, float]:
        """{site name: w_k}, as ``normalize`` defines it."""
        return NORMALIZATIONS[self.normalize](self.sensitivity.values)

    def coefficients(self, beta: float = 1.0) -> dict[str, float]:
        """{site name: c_k}: how strongly each site's update is penalised, as in the table above.

        Raises ``IwloraError`` for a negative β, which would reward what it should punish.
        """
        check_beta(beta)
        weights = self.weights
        if self.normalize != "mean":
            return {name: (1.0 - weight) ** beta for name, weight in weights.items()}
        least = min(weights.values())  # its coefficient is the largest, and stays finite
        inverse = {name: (least / weight) ** beta for name, weight in weights.items()}
        mean = sum(inverse.values()) / len(inverse)
        return {name: value / mean for name, value in inverse.items()}

    def rank_pattern(
        self, r: int = 8, lora_alpha: float | None = None, minimum: int = 1
    ) -> tuple[dict[str, int], dict[str, float]]:
        """(rank_pattern, alpha_pattern) for ``peft.LoraConfig``: ranks in proportion to s_k.

        Ranks r_k lie between ``minimum`` and min(d_in, d_out), and Σ_k r_k (d_in + d_out) is
        exactly that of the uniform rank ``r``. Of all such ranks they are the nearest to the
        proportional ones, in the sum of squares; where all matrices cost alike, those are the ranks
        of largest remainders. The alphas keep the scaling ``lora_alpha / r`` (``lora_alpha`` is
        ``r`` by default) the same at every site. With ``minimum=0``, sites of rank 0 have no entry;
        leave them out of ``target_modules`` too. Names that end in another site's name come before
        it, because PEFT takes the first entry that fits the end of a module's name.

        Raises ``IwloraError`` for a rank that is not a whole number from 1 to the smaller side of
        the smallest matrix, a minimum that is not one from 0 to ``r``, and an alpha that is not
        above 0.

        >>> from iwlora.results.sensitivity import SiteSensitivity
        >>> found = [SiteSensitivity("a", "query", 0, 16, 16, value=1.0, stderr=0.0),
        ...          SiteSensitivity("b", "query", 1, 16, 16, value=3.0, stderr=0.0)]
        >>> importance = Importance(Sensitivity(tuple(found), "exact", 8, 0.0, True, 0.1))
        >>> importance.rank_pattern(r=4, lora_alpha=8)
        ({'a': 2, 'b': 6}, {'a': 4.0, 'b': 12.0})
        """
        sites = self.sensitivity.sites
        limit = {site.name: min(site.d_in, site.d_out) for site in sites}
        if not isinstance(r, Integral) or not 1 <= r <= min(limit.values()):
            raise IwloraError(
                f"rank {r!r} was given; accepted are 1 to {min(limit.values())}, "
                "the smaller side of the smallest matrix"
            )
        if not isinstance(minimum, Integral) or not 0 <= minimum <= r:
            raise IwloraError(f"minimum={minimum} was given; accepted are 0 to the rank, {r}")
        lora_alpha = float(r) if lora_alpha is None else lora_alpha
        if not 0 < lora_alpha < math.inf:
            raise IwloraError(f"lora_alpha={lora_alpha} was given; accepted is a number above 0")
        cost = {site.name: site.d_in + site.d_out for site in sites}
        ranks = allocate(self.sensitivity.values, cost, limit, r, minimum)
        kept = {name: ranks[name] for name in sorted(ranks, key=len, reverse=True) if ranks[name]}
        return kept, {name: lora_alpha / r * rank for name, rank in kept.items()}


def check_beta(beta: float) -> None:
    """Raise ``IwloraError`` for an exponent that is negative or not finite."""
    if not 0 <= beta < math.inf:
        raise IwloraError(f"beta={beta} was given; accepted is a finite number of at least 0")
