"""Importance weights from sensitivities, and penalty coefficients and ranks from weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral

from iwlora.errors import IwloraError, unknown
from iwlora.rank_pattern import allocate_ranks
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
    ascending = sorted(values.values())
    first = {value: ascending.index(value) for value in ascending}
    # Equal values share the mean of their ranks.
    middle = {value: first[value] + ascending.count(value) / 2 for value in first}
    return {name: middle[value] / len(ascending) for name, value in values.items()}


NORMALIZATIONS: dict[str, Callable[[Mapping[str, float]], dict[str, float]]] = {
    "sum": _sum,
    "max": _max,
    "mean": _mean,
    "rank": _rank,
}


@dataclass(frozen=True)
class Importance:
    """The importance of each measured site.

    =============  ===========================  ==================================
    ``normalize``  weight w_k                   penalty coefficient c_k
    =============  ===========================  ==================================
    ``sum``        s_k / Σ_j s_j                (1 − w_k)^β
    ``max``        s_k / max_j s_j              (1 − w_k)^β
    ``rank``       (rank of s_k − ½) / K        (1 − w_k)^β
    ``mean``       s_k / mean_j s_j             w_k^(−β), rescaled to mean 1
    =============  ===========================  ==================================

    ``sum`` is the original form of the method. With K sites of similar importance, its coefficients
    are all close to 1 − 1/K. So the penalty is almost uniform unless β is of the order of K. The
    coefficients of the other three do not depend on K in this way.

    Args:
        sensitivity: a measurement, from ``iwlora.measure`` or ``iwlora.Sensitivity.load``.
        normalize: ``sum``, ``max``, ``mean`` or ``rank``.

    Raises:
        IwloraError: the normalization is unknown, ``sensitivity`` is not a ``Sensitivity``, all
            sensitivities are 0, or one is 0 with ``mean``.

    Example:
        >>> from iwlora.results.sensitivity import SiteSensitivity
        >>> sites = (SiteSensitivity("a", "query", 0, 4, 4, value=1.0, stderr=0.0),
        ...          SiteSensitivity("b", "query", 1, 4, 4, value=3.0, stderr=0.0))
        >>> importance = Importance(Sensitivity(sites, "exact", 8, 0.0, True, 0.1))
        >>> importance.weights
        {'a': 0.25, 'b': 0.75}
        >>> importance.coefficients(beta=2.0)
        {'a': 0.5625, 'b': 0.0625}
    """

    sensitivity: Sensitivity
    normalize: str = "sum"

    def __post_init__(self) -> None:
        if self.normalize not in NORMALIZATIONS:
            raise unknown("normalization", self.normalize, NORMALIZATIONS)
        if not isinstance(self.sensitivity, Sensitivity):
            raise IwloraError(
                "expected the result of iwlora.measure or iwlora.Sensitivity.load(FILE) as "
                f"sensitivity, got a {type(self.sensitivity).__name__}"
            )
        zero = [site.name for site in self.sensitivity.included if site.value <= 0]
        if len(zero) == len(self.sensitivity.included):
            raise IwloraError("every sensitivity is 0: the loss does not depend on these matrices")
        if self.normalize == "mean" and zero:
            raise IwloraError(
                f"normalize='mean' divides by the sensitivity, which is 0 for {len(zero)} of "
                f"{len(self.sensitivity.included)} sites, the first is {zero[0]}; take "
                "normalize='rank', 'max' or 'sum'"
            )

    @property
    def weights(self) -> dict[str, float]:
        """{site name: w_k}, see the table above; 0 for the excluded sites."""
        included = {site.name: site.value for site in self.sensitivity.included}
        weights = NORMALIZATIONS[self.normalize](included)
        return {site.name: weights.get(site.name, 0.0) for site in self.sensitivity.sites}

    def coefficients(self, beta: float = 1.0) -> dict[str, float]:
        """{site name: c_k}, the factor of each site in the penalty; see the table above.

        It is 0 for the excluded sites, where no adapter has an effect.

        Args:
            beta: the exponent β; 0 gives a uniform penalty.

        Raises:
            IwloraError: β is negative or not finite.
        """
        check_beta(beta)
        excluded = set(self.sensitivity.excluded)
        weights = {name: w for name, w in self.weights.items() if name not in excluded}
        if self.normalize != "mean":
            coefficients = {name: (1.0 - weight) ** beta for name, weight in weights.items()}
        else:
            least = min(weights.values())  # its coefficient is the largest and must stay finite
            inverse = {name: (least / weight) ** beta for name, weight in weights.items()}
            mean = sum(inverse.values()) / len(inverse)
            coefficients = {name: value / mean for name, value in inverse.items()}
        return coefficients | dict.fromkeys(excluded, 0.0)

    def rank_pattern(
        self, r: int = 8, lora_alpha: float | None = None, minimum: int = 1
    ) -> tuple[dict[str, int], dict[str, float]]:
        """(rank_pattern, alpha_pattern) for ``peft.LoraConfig``: ranks in proportion to s_k.

        The number of parameters, Σ_k r_k (d_in + d_out), is exactly that of the uniform rank ``r``,
        limited to the smaller side of each router. The matrices of all experts of a block have one
        rank. Each r_k is between ``minimum`` and min(d_in, d_out). Of all such ranks, the result
        has the smallest sum of squared distances from the proportional ranks. If all matrices have
        the same d_in + d_out, this is the method of largest remainders.

        Args:
            r: the uniform rank that gives the number of parameters.
            lora_alpha: every site has the scaling ``lora_alpha / r``; by default ``r``.
            minimum: the smallest rank. With 0, sites of rank 0 have no entry; remove them from
                ``target_modules`` too.

        Returns:
            ({site name: rank}, {site name: alpha}), without the excluded sites. A name that ends
            with another site's name comes before it, because PEFT uses the first entry that
            matches the end of a module's name.

        Raises:
            IwloraError: ``r`` is not a whole number from 1 to the smaller side of the smallest
                matrix, ``minimum`` is not a whole number from 0 to ``r``, or ``lora_alpha`` is not
                above 0.

        Example:
            >>> from iwlora.results.sensitivity import SiteSensitivity
            >>> sites = (SiteSensitivity("a", "query", 0, 16, 16, value=1.0, stderr=0.0),
            ...          SiteSensitivity("b", "query", 1, 16, 16, value=3.0, stderr=0.0))
            >>> importance = Importance(Sensitivity(sites, "exact", 8, 0.0, True, 0.1))
            >>> importance.rank_pattern(r=4, lora_alpha=8)
            ({'a': 2, 'b': 6}, {'a': 4.0, 'b': 12.0})
        """
        sites = self.sensitivity.included
        limit = {site.name: site.largest_rank for site in sites}
        # A router has one row for each expert; its rank is limited, and not that of all others.
        narrow = [limit[site.name] for site in sites if not site.is_router] or limit.values()
        if not isinstance(r, Integral) or not 1 <= r <= min(narrow):
            raise IwloraError(
                f"expected a rank from 1 to {min(narrow)}, the smaller side of the "
                f"smallest matrix, got {r!r}"
            )
        if not isinstance(minimum, Integral) or not 0 <= minimum <= r:
            raise IwloraError(f"expected a number from 0 to the rank, {r}, got minimum={minimum}")
        lora_alpha = float(r) if lora_alpha is None else lora_alpha
        if not 0 < lora_alpha < math.inf:
            raise IwloraError(f"expected a number above 0, got lora_alpha={lora_alpha}")
        cost = {site.name: site.parameters_per_rank for site in sites}
        values = {site.name: site.value for site in sites}
        ranks = allocate_ranks(values, cost, limit, r, minimum)
        kept = {name: ranks[name] for name in sorted(ranks, key=len, reverse=True) if ranks[name]}
        return kept, {name: lora_alpha / r * rank for name, rank in kept.items()}


def check_beta(beta: float) -> None:
    """Raise ``IwloraError`` for an exponent that is negative or not finite."""
    if not 0 <= beta < math.inf:
        raise IwloraError(f"expected a finite number of at least 0, got beta={beta}")
