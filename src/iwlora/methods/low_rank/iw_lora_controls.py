"""The control arms of IW-LoRA: is its gain from importance, or from something else?

Each has the costs of IW-LoRA: the same number of LoRA parameters and the same measurement.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from iwlora.importance import Importance
from iwlora.inputs.limits import Seed
from iwlora.methods.contract import Attached, not_measured
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.peft_models import target_name
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.options import DEFAULTS, MeasureOptions
from iwlora.sites import Site


class UniformPenalty(IWLora):
    """Every c_k is the mean of IW-LoRA's c_k: an equally strong penalty without importance."""

    name: ClassVar[str] = "lora-uniform-penalty"
    summary: ClassVar[str] = "control: IW-LoRA's mean penalty on every matrix"
    control_of: ClassVar[str | None] = IWLora.name

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: mean of IW-LoRA's c_k}."""
        weighted = super().coefficients(sensitivity)
        mean = sum(weighted.values()) / len(sensitivity.included)
        return {name: 0.0 if name in sensitivity.excluded else mean for name in weighted}


class PermutedImportance(IWLora):
    """IW-LoRA with the sensitivities randomly permuted among the matrices, by the run's seed.

    ``permutation`` is a seed of the permutation that is the same for all runs.
    """

    name: ClassVar[str] = "iw-lora-permuted"
    summary: ClassVar[str] = "control: IW-LoRA with randomly permuted importance"
    control_of: ClassVar[str | None] = IWLora.name

    permutation: Seed | None = None
    """Seed of the permutation, the same for all runs; None: the run's seed."""

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: the c_k of a random site}, each used once."""
        return super().coefficients(permute(sensitivity, self.permutation or 0))

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach IW-LoRA; the seed determines the permutation unless ``permutation`` does."""
        if self.permutation is None:
            seeded = self.model_copy(update={"permutation": seed})
            return seeded.attach(model, sites, seed, sensitivity)
        return super().attach(model, sites, seed, sensitivity)


class InvertedImportance(IWLora):
    """IW-LoRA with the order of the sensitivities reversed.

    The most sensitive matrix gets the sensitivity of the least sensitive one, and so on.
    """

    name: ClassVar[str] = "iw-lora-inverted"
    summary: ClassVar[str] = "control: IW-LoRA that penalizes the important matrices"
    control_of: ClassVar[str | None] = IWLora.name

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: the c_k of the site at the opposite rank}."""
        names = [site.name for site in sensitivity.included]
        ascending = sorted(names, key=sensitivity.values.__getitem__)
        opposite = dict(zip(ascending, reversed(ascending), strict=True))
        return super().coefficients(reassign(sensitivity, opposite))


class ImportanceRanks(MeasureOptions, Lora):
    """LoRA with ranks in proportion to the measured sensitivity, and no penalty.

    The number of parameters is exactly that of a uniform ``rank``, and the scaling
    lora_alpha / rank is the same at every site. See ``Importance.rank_pattern``.
    """

    name: ClassVar[str] = "lora-importance-ranks"
    summary: ClassVar[str] = "control: LoRA with more rank for important matrices"
    paper: ClassVar[str] = IWLora.paper
    control_of: ClassVar[str | None] = IWLora.name

    estimator: Literal["exact", "ghost", "sketch", "auto"] = DEFAULTS.estimator  # type: ignore[assignment]

    def calibration(self) -> dict[str, Any]:
        """The arguments for measuring before training."""
        return self.measure_arguments()

    def rank_weights(self, sensitivity: Sensitivity, seed: int) -> Sensitivity:
        """The sensitivities that the ranks are proportional to."""
        return sensitivity

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA with a rank for each site."""
        if sensitivity is None:
            raise not_measured(self.name)
        self.check(sites)
        importance = Importance(self.rank_weights(sensitivity, seed))
        ranks, alphas = importance.rank_pattern(self.rank, self.lora_alpha)
        included = [site for site in sites if site.name in ranks]
        # A name that ends with another one stays before it, as in ``ranks``.
        targets = {site.name: target_name(site) for site in included}
        patterns = {
            "rank_pattern": {targets[name]: rank for name, rank in ranks.items()},
            "alpha_pattern": {targets[name]: alpha for name, alpha in alphas.items()},
        }
        attached = self._attach(model, included, seed, **patterns)
        effective = {pair.name: pair.rank for pair in attached.pairs}
        return replace(attached, ranks=lambda: effective)


class RandomRanks(ImportanceRanks):
    """Ranks by importance with the sensitivities randomly permuted, by the run's seed.

    The ranks are as uneven as those by importance. ``permutation`` is a seed of the permutation
    that is the same for all runs.
    """

    name: ClassVar[str] = "lora-random-ranks"
    summary: ClassVar[str] = "control: LoRA with equally uneven ranks at random matrices"

    permutation: Seed | None = None
    """Seed of the permutation, the same for all runs; None: the run's seed."""

    def rank_weights(self, sensitivity: Sensitivity, seed: int) -> Sensitivity:
        """The permuted sensitivities."""
        return permute(sensitivity, seed if self.permutation is None else self.permutation)


def permute(sensitivity: Sensitivity, seed: int) -> Sensitivity:
    """Each included site gets the sensitivity of a random one; each one is used once."""
    names = [site.name for site in sensitivity.included]
    shuffled = random.Random(seed).sample(names, len(names))
    return reassign(sensitivity, dict(zip(names, shuffled, strict=True)))


def reassign(sensitivity: Sensitivity, source: Mapping[str, str]) -> Sensitivity:
    """Each site gets the sensitivity of the site ``source[name]``, or keeps its own."""
    measured = {site.name: site for site in sensitivity.sites}
    pairs = [(site, measured[source.get(site.name, site.name)]) for site in sensitivity.sites]
    sites = tuple(replace(site, value=m.value, stderr=m.stderr) for site, m in pairs)
    return replace(sensitivity, sites=sites)
