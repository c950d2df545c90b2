"""AdaLoRA: SVD-form LoRA whose least important triplets are pruned during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.svd_lora import SvdLora, kept_pairs

if TYPE_CHECKING:
    from torch import nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


def _part_or_steps(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError(
            f"{value} was given; accepted is a part of all steps below 1, or a whole number of them"
        )
    return value


Duration = Annotated[int | float, Field(ge=0, allow_inf_nan=False), AfterValidator(_part_or_steps)]
"""A part of all optimizer steps if below 1, else a number of them."""


class AdaLora(SvdLora):
    """Each site begins with 1.5 × ``rank`` triplets and is left with ``rank`` on average.

    A triplet (P_·i, λ_i, Q_i·) has the score s(λ_i) + mean s(P_·i) + mean s(Q_i·), where s = Ī Ū
    with Ī and Ū the moving averages (``beta1``, ``beta2``) of I = |w ∂L/∂w| and of |I − Ī|.
    After step t, and at every ``delta_t``-th, the λ of all but the b(t) triplets with the highest
    scores become 0, with

        b(t) = b_T + (b_0 − b_T) (1 − (t − t_init) / (T − t_final − t_init))³

    between ``t_init`` and T − ``t_final``. Then the choice stays for the last ``t_final`` steps.
    All three are parts of training when below 1, else steps. Zhang et al. 2023, equations 7 to
    12 and algorithm 1.

    Masks and averages are PEFT's. PEFT reads the importance after the optimizer's step, from the
    new weights with the old gradients, and chooses last by what it knew a step earlier; here, as
    in the paper, weights and gradients are of one step, and the last choice knows it too.
    """

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "LoRA in SVD form, pruned by importance while training"

    t_init: Duration = 0.1
    t_final: Duration = 0.4
    delta_t: Annotated[Duration, Field(gt=0)] = 10
    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.85
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.85

    @model_validator(mode="after")
    def _leaves_time_to_prune(self) -> AdaLora:
        if self.t_init < 1 and self.t_final < 1 and self.t_init + self.t_final >= 1:
            raise ValueError(
                f"t_init={self.t_init} and t_final={self.t_final} leave no steps for pruning; "
                "accepted are parts that sum to less than 1"
            )
        return self

    def initial_rank(self, rank: int) -> int:
        """Half as many again, and one more at least."""
        return max(rank + 1, round(1.5 * rank))

    def parameters(self, model: nn.Module, sites: Sequence[Site], size: int | None) -> int:
        """About r Σ_k (d_in + d_out): exact where all sites have one shape, else it depends on
        which triplets stay."""
        return super().parameters(model, sites, size)

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Wrap the model with PEFT's AdaLoRA; a callback prunes after every optimizer step."""
        from iwlora.methods.low_rank.adalora_schedule import RankAllocation

        attached = super().attach(model, sites, size, seed)
        durations = {"tinit": self.t_init, "tfinal": self.t_final, "deltaT": self.delta_t}
        allocation = RankAllocation(attached.model, durations, self.beta1, self.beta2)

        def ranks() -> dict[str, int]:
            kept = {pair.name: pair.A.shape[0] for pair in kept_pairs(attached.model)}
            return {site.name: kept.get(site.name, 0) for site in sites}

        return replace(
            attached, callbacks=(allocation,), ranks=ranks, settled=lambda: allocation.settled
        )
