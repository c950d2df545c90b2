"""The control arms of IW-LoRA: what is left of its gain with another importance, or with none.

Each costs what IW-LoRA costs: the same LoRA parameters, and the same measurement.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.methods.low_rank.lora import Lora

if TYPE_CHECKING:
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site

Seed = Annotated[int | None, Field(ge=0)]


class UniformPenalty(IWLora):
    """Every c_k is the mean of IW-LoRA's: as strong a penalty, with no importance in it."""

    name: ClassVar[str] = "lora-uniform-penalty"
    summary: ClassVar[str] = "control: IW-LoRA's mean penalty on every matrix"
    control_of: ClassVar[str | None] = IWLora.name

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: mean of IW-LoRA's c_k}."""
        found = super().coefficients(sensitivity)
        return dict.fromkeys(found, sum(found.values()) / len(found))


class PermutedImportance(IWLora):
    """IW-LoRA with the sensitivities dealt to the matrices at random, by the run's seed.

    ``permutation`` fixes the seed of the permutation for all runs.
    """

    name: ClassVar[str] = "iw-lora-permuted"
    summary: ClassVar[str] = "control: IW-LoRA with the importance of other matrices, at random"
    control_of: ClassVar[str | None] = IWLora.name

    permutation: Seed = None

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: the c_k of a matrix drawn at random}, each drawn once."""
        return super().coefficients(permuted(sensitivity, self.permutation or 0))

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """As IW-LoRA, by the permutation of this seed where none is given."""
        if self.permutation is None:
            drawn = self.model_copy(update={"permutation": seed})
            return drawn.attach(model, sites, seed, sensitivity)
        return super().attach(model, sites, seed, sensitivity)


class InvertedImportance(IWLora):
    """IW-LoRA with the order of the sensitivities turned round.

    The most sensitive matrix gets the sensitivity of the least sensitive one, and so on.
    """

    name: ClassVar[str] = "iw-lora-inverted"
    summary: ClassVar[str] = "control: IW-LoRA that penalises the important matrices"
    control_of: ClassVar[str | None] = IWLora.name

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: the c_k of the matrix in the opposite place}."""
        order = sorted(sensitivity.values, key=sensitivity.values.__getitem__)
        opposite = dict(zip(order, reversed(order), strict=True))
        return super().coefficients(dealt(sensitivity, opposite))


class ImportanceRanks(Lora):
    """LoRA with ranks in proportion to the measured sensitivity, and no penalty.

    The parameters are exactly as many as those of a uniform ``rank``.
    The scaling lora_alpha / rank is the same at every site. See ``Importance.rank_pattern``.
    """

    name: ClassVar[str] = "lora-importance-ranks"
    summary: ClassVar[str] = "control: LoRA with more rank for important matrices"
    paper: ClassVar[str] = IWLora.paper
    control_of: ClassVar[str | None] = IWLora.name

    max_batches: Annotated[int, Field(ge=1, strict=True)] = 200
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02

    def calibration(self) -> dict[str, Any]:
        """Exact sensitivities, until stable or ``max_batches``."""
        return {
            "estimator": "exact",
            "max_batches": self.max_batches,
            "tolerance": self.tolerance,
        }

    def allocated(self, sensitivity: Sensitivity, seed: int) -> Sensitivity:
        """What the ranks are in proportion to."""
        return sensitivity

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """LoRA with a rank pattern."""
        if sensitivity is None:
            raise IwloraError(f"{self.name} needs the measured sensitivity of its sites")
        self.check(sites)
        importance = Importance(self.allocated(sensitivity, seed))
        ranks, alphas = importance.rank_pattern(self.rank, self.lora_alpha)
        attached = self._attach(model, sites, seed, rank_pattern=ranks, alpha_pattern=alphas)
        found = {pair.name: pair.A.shape[0] for pair in attached.pairs}
        return replace(attached, ranks=lambda: found)


class RandomRanks(ImportanceRanks):
    """The same, with the sensitivities dealt to the matrices at random, by the run's seed.

    The ranks are as uneven as those by importance; ``permutation`` fixes the seed for all runs.
    """

    name: ClassVar[str] = "lora-random-ranks"
    summary: ClassVar[str] = "control: LoRA with ranks as uneven, at random"

    permutation: Seed = None

    def allocated(self, sensitivity: Sensitivity, seed: int) -> Sensitivity:
        """The sensitivities, permuted."""
        return permuted(sensitivity, seed if self.permutation is None else self.permutation)


def permuted(sensitivity: Sensitivity, seed: int) -> Sensitivity:
    """Each site with the sensitivity of one drawn at random without putting back."""
    names = list(sensitivity.values)
    drawn = random.Random(seed).sample(names, len(names))
    return dealt(sensitivity, dict(zip(names, drawn, strict=True)))


def dealt(sensitivity: Sensitivity, source: Mapping[str, str]) -> Sensitivity:
    """Each site with the sensitivity of the site that ``source`` names for it."""
    measured = {site.name: site for site in sensitivity.sites}
    sites = [
        replace(
            site,
            value=measured[source[site.name]].value,
            stderr=measured[source[site.name]].stderr,
        )
        for site in sensitivity.sites
    ]
    return replace(sensitivity, sites=tuple(sites))
