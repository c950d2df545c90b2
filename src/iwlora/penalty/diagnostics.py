"""The penalty's effect relative to the task, for each site, and warnings about its strength."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from iwlora.distributed import full_tensor
from iwlora.penalty.low_rank_pair import LowRankPair

NO_EFFECT = 1e-3  # if the largest ratio of all sites is below this, the penalty has no effect
DOMINATES = 1.0  # if the median ratio is above this, the penalty determines the updates


@dataclass(frozen=True)
class Effect:
    """The penalty's effect on one site at one step. Gradients are over A_k and B_k together.

    Args:
        norm: ‖Δ_k‖_F.
        penalty: ‖∇R‖.
        task: ‖∇L_task‖. On the route ``decoupled``, the norm of the optimizer's update divided by
            the learning rate; on ``loss``, ‖∇L_task + ∇R‖ until :meth:`without_penalty`.
        inner: the inner product of the two gradients.
    """

    norm: float
    penalty: float
    task: float
    inner: float

    @property
    def ratio(self) -> float:
        """‖∇R‖ / ‖∇L_task‖; infinite if the task has no gradient.

        >>> Effect(norm=1.0, penalty=0.5, task=2.0, inner=0.0).ratio
        0.25
        """
        if self.task > 0:
            return self.penalty / self.task
        return math.inf if self.penalty > 0 else 0.0

    def without_penalty(self, clip: float = 1.0) -> Effect:
        """The effect with ‖∇L_task‖, if ``task`` was ‖clip · (∇L_task + ∇R)‖.

        >>> Effect(norm=1.0, penalty=3.0, task=2.5, inner=4.5).without_penalty(clip=0.5).task
        4.0
        """
        square = (self.task / clip) ** 2 - 2 * self.inner / clip + self.penalty**2
        return replace(self, task=math.sqrt(max(square, 0.0)))


def effects(
    pairs: Sequence[LowRankPair],
    penalty_gradients: Mapping[Tensor, Tensor],
    task_gradients: Mapping[Tensor, Tensor],
    norms: Mapping[str, float],
) -> dict[str, Effect]:
    """{site name: effect}, from {factor: ∇R} and {factor: ∇L_task}."""
    factors = [(pair.name, p) for pair in pairs for p in (pair.A, pair.B) if p in penalty_gradients]
    rows = []
    for _, p in factors:
        # On the route loss, the task's gradient can be a small difference of large numbers.
        wide = torch.float32 if p.device.type == "mps" else torch.float64
        r, g = (full_tensor(of[p]).to(wide) for of in (penalty_gradients, task_gradients))
        rows.append(torch.stack([(r * r).sum(), (g * g).sum(), (r * g).sum()]))
    sums = {name: [0.0, 0.0, 0.0] for name, _ in factors}
    for (name, _), row in zip(factors, torch.stack(rows).tolist(), strict=True):
        sums[name] = [a + b for a, b in zip(sums[name], row, strict=True)]
    return {
        name: Effect(norms[name], math.sqrt(r), math.sqrt(g), rg)
        for name, (r, g, rg) in sums.items()
    }


def panels(importance: Mapping[str, float], step_effects: Mapping[str, Effect]) -> dict[str, float]:
    """What experiment trackers show: {name: number} of each site, and the median of the ratios.

    A tracker makes a group of names with the same text before the slash. Infinite ratios are left
    out.

    Args:
        importance: {site name: share of the total sensitivity}.
        step_effects: {site name: effect} of one step; empty before the penalty starts.

    Example:
        >>> effect = Effect(norm=1.5, penalty=0.5, task=2.0, inner=0.0)
        >>> panels({"q": 1.0}, {"q": effect})
        {'importance/q': 1.0, 'penalty_norm/q': 1.5, 'penalty_ratio/q': 0.25, \
'penalty/median_ratio': 0.25}
    """
    numbers = {f"importance/{name}": share for name, share in importance.items()}
    for name, effect in step_effects.items():
        numbers |= {f"penalty_norm/{name}": effect.norm, f"penalty_ratio/{name}": effect.ratio}
    if step_effects:
        middle = median(effect.ratio for effect in step_effects.values())
        numbers["penalty/median_ratio"] = middle
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


def verdict(ratios: Sequence[Mapping[str, float]]) -> str | None:
    """A warning about the strength of the penalty, from {site: ratio} of each recorded step.

    The penalty has no effect if no ratio ever reached ``NO_EFFECT``. It dominates if the median
    over sites is above ``DOMINATES`` at more than half of the steps. None if neither is true.

    >>> print(verdict([{"a": 1e-5}, {"a": 2e-5}]))
    the penalty had no effect: at each of 2 recorded steps its gradient was at most 2e-05 of the \
task's gradient at every site (it needs at least 0.001); raise alpha about 2,000-fold, or train \
without it
    """
    if not ratios:
        return None
    largest = max(max(step.values()) for step in ratios)
    if largest < NO_EFFECT:
        remedy = (
            f"raise alpha about {_one_digit(0.05 / largest):,}-fold, or train without it"
            if largest > 0
            else "alpha, all coefficients or all updates are 0"
        )
        return (
            f"the penalty had no effect: at each of {len(ratios)} recorded steps its gradient was "
            f"at most {largest:.0e} of the task's gradient at every site (it needs at least "
            f"{NO_EFFECT}); {remedy}"
        )
    medians = [median(step.values()) for step in ratios]
    above = sum(value > DOMINATES for value in medians)
    if above > len(medians) / 2:
        return (
            f"the penalty dominates: at {above} of {len(medians)} recorded steps its gradient was "
            f"larger than the task's gradient at half of the sites or more (median ratio "
            f"{median(medians):.1e}), so the updates shrink instead of learning; lower alpha about "
            f"{_one_digit(median(medians) / 0.05):,}-fold"
        )
    return None


def _one_digit(value: float) -> int:
    """The value rounded to its first digit, at least 2: 2,413 -> 2,000."""
    unit = 10.0 ** max(math.floor(math.log10(value)), 0)
    return max(int(round(value / unit) * unit), 2)
