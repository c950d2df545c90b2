"""What the penalty does beside the task, site by site, and when to say that it is amiss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from iwlora.distributed import full_tensor
from iwlora.penalty.gram import LowRankPair

NOTHING = 1e-3  # largest site's ratio below which the penalty cannot be told from none
DOMINATES = 1.0  # median ratio above which the penalty decides where the parameters go


@dataclass(frozen=True)
class Effect:
    """One site at one step: ‖Δ_k‖_F, and the gradients over its A_k and B_k together.

    ``penalty`` is ‖∇R‖, ``task`` the norm of what stands beside it and ``inner`` the inner
    product of the two. On the route ``loss``, ``task`` is the sum of both gradients until
    :meth:`without_penalty`; on ``decoupled``, what the optimizer moved, divided by the learning
    rate.
    """

    norm: float
    penalty: float
    task: float
    inner: float

    @property
    def ratio(self) -> float:
        """‖∇R‖ / ‖∇L_task‖; infinite where the task has no gradient.

        >>> Effect(norm=1.0, penalty=0.5, task=2.0, inner=0.0).ratio
        0.25
        """
        if self.task > 0:
            return self.penalty / self.task
        return math.inf if self.penalty > 0 else 0.0

    def without_penalty(self, clip: float = 1.0) -> Effect:
        """The same with ∇L_task where ``task`` was ``clip`` · (∇L_task + ∇R).

        >>> Effect(norm=1.0, penalty=3.0, task=2.5, inner=4.5).without_penalty(clip=0.5).task
        4.0
        """
        square = (self.task / clip) ** 2 - 2 * self.inner / clip + self.penalty**2
        return replace(self, task=math.sqrt(max(square, 0.0)))


def effects(
    pairs: Sequence[LowRankPair],
    ours: Mapping[Tensor, Tensor],
    theirs: Mapping[Tensor, Tensor],
    norms: Mapping[str, float],
) -> dict[str, Effect]:
    """{site name: effect} from {factor: ∇R} and {factor: what stands beside it}."""
    factors = [(pair.name, p) for pair in pairs for p in (pair.A, pair.B) if p in ours]
    rows = []
    for _, p in factors:
        # On the route loss, the task's part is a small difference of large numbers.
        wide = torch.float32 if p.device.type == "mps" else torch.float64
        r, g = full_tensor(ours[p]).to(wide), full_tensor(theirs[p]).to(wide)
        rows.append(torch.stack([(r * r).sum(), (g * g).sum(), (r * g).sum()]))
    sums = {name: [0.0, 0.0, 0.0] for name, _ in factors}
    for (name, _), row in zip(factors, torch.stack(rows).tolist(), strict=True):
        sums[name] = [a + b for a, b in zip(sums[name], row, strict=True)]
    return {
        name: Effect(norms[name], math.sqrt(r), math.sqrt(g), rg)
        for name, (r, g, rg) in sums.items()
    }


def verdict(ratios: Sequence[Mapping[str, float]]) -> str | None:
    """What is wrong with the strength in plain words, from {site: ratio} of each step recorded.

    It does nothing when no site's ratio ever reached ``NOTHING``, and dominates when the median
    over sites is above ``DOMINATES`` at more than half of the steps.

    >>> print(verdict([{"a": 1e-5}, {"a": 2e-5}]))
    the penalty did nothing: at each of 2 recorded steps its gradient was at most 2e-05 of the \
task's at every site (0.001 is the least that shows); raise alpha about 2,000-fold, or train \
without it
    """
    if not ratios:
        return None
    largest = max(max(step.values()) for step in ratios)
    if largest < NOTHING:
        remedy = (
            f"raise alpha about {_round(0.05 / largest):,}-fold, or train without it"
            if largest > 0
            else "alpha or every coefficient is 0, or the updates are"
        )
        return (
            f"the penalty did nothing: at each of {len(ratios)} recorded steps its gradient was at "
            f"most {largest:.0e} of the task's at every site ({NOTHING} is the least that shows); "
            f"{remedy}"
        )
    middles = [median(step.values()) for step in ratios]
    above = sum(middle > DOMINATES for middle in middles)
    if above > len(middles) / 2:
        return (
            f"the penalty dominates: at {above} of {len(middles)} recorded steps its gradient was "
            f"larger than the task's at half of the sites or more (median ratio "
            f"{median(middles):.1e}), so the updates shrink instead of learning; lower alpha about "
            f"{_round(median(middles) / 0.05):,}-fold"
        )
    return None


def _round(value: float) -> int:
    """To one leading digit: 2,413 -> 2,000."""
    digits = max(math.floor(math.log10(value)), 0)
    unit = 10.0**digits
    return max(int(round(value / unit) * unit), 2)
