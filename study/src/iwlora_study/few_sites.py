"""Candidate: low-rank updates of a few matrices that together have a share of the parameters."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.options import DEFAULTS, MeasureOptions
from iwlora.sites import Site, abbreviate_names

if TYPE_CHECKING:
    from torch import nn

_WHOLE_RANK = 8  # a share is a part of the parameters of this rank at every matrix


def _fraction(text: str) -> str:
    try:
        in_range = 0 < Fraction(text) <= 1
    except (ValueError, ZeroDivisionError):
        in_range = False
    if not in_range:
        raise ValueError("expected a fraction above 0 and at most 1, such as 1/24")
    return text


class FewSites(MeasureOptions, Lora):
    """LoRA of one ``rank`` at some of the matrices, and nothing at the others.

    The matrices are taken in the order that ``choose`` gives, until they have the ``share`` of the
    parameters of rank 8 at every matrix. The number of parameters is the largest up to the share
    that whole matrices have, whichever they are: one that would leave a rest that the later ones
    cannot fill is skipped. So all choices from one pool have the same number of parameters.

    ================  ==============================================================================
    ``choose``        order
    ================  ==============================================================================
    ``top``           s² / (d_in + d_out), the largest first; s is the sensitivity, measured before
                      training on this task or read from the file ``importance``
    ``bottom``        the same, the smallest first
    ``random``        random, by the run's seed
    ``last``          from the model's output to its input
    ``query-value``   queries and values only, of evenly spaced blocks that include the last; there
                      are as many blocks as the share allows
    ================  ==============================================================================
    """

    name: ClassVar[str] = "lora-few-sites"
    summary: ClassVar[str] = "LoRA at few matrices, with a share of the parameters"
    paper: ClassVar[str] = Lora.paper
    size_knob: ClassVar[str | None] = None  # the share sets the number of parameters
    not_for_parameters: ClassVar[str | None] = "it chooses among layers"
    not_for_convolutions: ClassVar[str | None] = "the method chooses among linear layers only"

    rank: Count = 1
    lora_alpha: Annotated[Number, Field(gt=0)] = 2.0
    share: Annotated[str, BeforeValidator(str), AfterValidator(_fraction)] = "1/24"
    """Part of the parameters of rank 8 at every matrix; 1/8 is rank 1 at every matrix."""
    choose: Literal["top", "bottom", "random", "last", "query-value"] = "top"
    """Which matrices are taken first."""
    importance: str | None = None
    """A file of ``iwlora measure``, for example of another task, to choose by; null: this task."""
    estimator: Literal["exact", "ghost", "sketch", "auto"] = DEFAULTS.estimator  # type: ignore[assignment]

    @model_validator(mode="after")
    def _file_needs_an_order_by_importance(self) -> FewSites:
        if self.importance is not None and not self._by_importance:
            raise ValueError(
                f"importance={self.importance} is a file to choose by, and choose={self.choose} "
                "does not use it; take choose=top or choose=bottom, or remove it"
            )
        return self

    @property
    def _by_importance(self) -> bool:
        return self.choose in ("top", "bottom")

    def calibration(self) -> dict[str, Any] | None:
        """The arguments for measuring before training, if this task's importance is used."""
        return self.measure_arguments() if self._by_importance and not self.importance else None

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """Σ r (d_in + d_out) of the chosen sites, which is the same for any order of one pool."""
        chosen = self._fill(self._pool(sites), sites)
        return sum(self.rank * site.parameters_per_rank for site in chosen)

    def check(self, sites: Sequence[Site]) -> None:
        """The rank must fit the sites, one site must fit the share, and a file must have all."""
        super().check(sites)
        self._fill(self._pool(sites), sites)
        if self.importance is not None:
            self._foreign(sites)

    def chosen(
        self, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> list[Site]:
        """The sites that are adapted, in the order in which they are taken.

        Args:
            sites: the sites to choose from.
            seed: of the random order.
            sensitivity: the measurement that :meth:`calibration` asked for.

        Raises:
            IwloraError: not even one site fits the share, or the importance is not known.
        """
        pool = self._pool(sites)
        if self._by_importance:
            measured = self._foreign(sites) if self.importance is not None else sensitivity
            if measured is None:
                raise IwloraError(f"{self.name} needs the measured sensitivity of its sites")
            sign, without_effect = -1 if self.choose == "top" else 1, set(measured.excluded)
            s = measured.values
            density = {p.name: s[p.name] ** 2 / p.parameters_per_rank for p in pool}
            pool.sort(key=lambda p: (p.name in without_effect, sign * density[p.name]))
        elif self.choose == "random":
            random.Random(seed).shuffle(pool)
        elif self.choose == "last":
            pool.reverse()
        else:
            pool = self._spread(pool, sites)
        return self._fill(pool, sites)

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA to the chosen sites."""
        self.check(sites)
        chosen = {site.name for site in self.chosen(sites, seed, sensitivity)}
        lora = Lora(rank=self.rank, lora_alpha=self.lora_alpha, dropout=self.dropout)
        attached = lora.attach(model, [site for site in sites if site.name in chosen], seed)
        ranks = {site.name: self.rank if site.name in chosen else 0 for site in sites}
        return replace(attached, ranks=lambda: ranks)

    def _pool(self, sites: Sequence[Site]) -> list[Site]:
        """The sites that may be chosen."""
        if self.choose != "query-value":
            return list(sites)
        pool = [s for s in sites if s.kind.removeprefix("decoder_") in ("query", "value")]
        if not pool:
            raise IwloraError(
                f"choose=query-value was given, and none of the {len(sites)} sites is a query or a "
                "value; give other targets, or another choice"
            )
        return pool

    def _budget(self, sites: Sequence[Site]) -> int:
        """Parameters per unit of rank that the chosen sites may have together."""
        whole = _WHOLE_RANK * sum(site.parameters_per_rank for site in sites)
        return math.floor(Fraction(self.share) * whole / self.rank)

    def _fill(self, order: Sequence[Site], sites: Sequence[Site]) -> list[Site]:
        cost = {site.name: site.parameters_per_rank for site in order}
        budget = self._budget(sites)
        names = set(fill(cost, budget))
        if not names:
            raise IwloraError(
                f"share={self.share} is {self.rank * budget:,} parameters, and rank {self.rank} "
                f"needs at least {self.rank * min(cost.values()):,}; give a larger share"
            )
        return [site for site in order if site.name in names]

    def _spread(self, pool: Sequence[Site], sites: Sequence[Site]) -> list[Site]:
        """The pool, with evenly spaced blocks first: as many as the share allows whole."""
        blocks = list(dict.fromkeys(site.block for site in pool))[::-1]  # the last first
        of_block = sum(site.parameters_per_rank for site in pool) / len(blocks)
        count = min(len(blocks), max(1, int(self._budget(sites) / of_block)))
        even = [blocks[place * len(blocks) // count] for place in range(count)]
        order = even + [block for block in blocks if block not in even]
        return sorted(pool, key=lambda site: order.index(site.block))

    def _foreign(self, sites: Sequence[Site]) -> Sensitivity:
        """The measurement in the file ``importance``, which must have every site."""
        assert self.importance is not None
        measured = Sensitivity.load(self.importance)
        if missing := [site.name for site in sites if site.name not in measured.values]:
            raise IwloraError(
                f"importance={self.importance} was measured on another model or on other targets: "
                f"it has not {len(missing)} of the {len(sites)} sites: {abbreviate_names(missing)}"
            )
        return measured


def fill(cost: Mapping[str, int], budget: int) -> list[str]:
    """The first names whose costs add up to the largest sum, up to the budget, that any names have.

    A name is skipped if the later ones could not fill the rest.

    Args:
        cost: the cost of each name, above 0, in the order of preference.
        budget: the largest sum of the costs.

    Example:
        >>> fill({"a": 3, "b": 4, "c": 6, "d": 2}, budget=8)
        ['c', 'd']
        >>> fill({"a": 3, "b": 4, "c": 6, "d": 2}, budget=7)
        ['a', 'b']
    """
    unit = math.gcd(*cost.values())
    units = {name: value // unit for name, value in cost.items()}
    below = (1 << budget // unit + 1) - 1  # bit n of a sum's set: n units are possible
    later = [1]  # for each name, from the last: the sums of the names after it
    for name in reversed(units):
        later.append((later[-1] | later[-1] << units[name]) & below)
    left, names = later.pop().bit_length() - 1, []
    for name in units:
        rest = left - units[name]
        if rest >= 0 and later[-1] >> rest & 1:
            names.append(name)
            left = rest
        later.pop()
    return names
