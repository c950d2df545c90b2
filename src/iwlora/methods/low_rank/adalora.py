"""AdaLoRA: SVD-form LoRA whose least important triplets are pruned during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.svd_lora import SvdLora, remaining_pairs
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site


def _fraction_or_steps(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError(
            f"{value} was given; accepted is a fraction of all steps below 1, or a whole number of "
            "steps"
        )
    return value


Duration = Annotated[
    int | float, Field(ge=0, allow_inf_nan=False), AfterValidator(_fraction_or_steps)
]
"""A fraction of all optimizer steps if below 1, otherwise a number of steps."""


class AdaLora(SvdLora):
    """Each site starts with 1.5 × ``rank`` triplets; after training, ``rank`` remain on average.

    A triplet (P_·i, λ_i, Q_i·) has the score s(λ_i) + mean s(P_·i) + mean s(Q_i·), where s = Ī Ū
    with Ī and Ū the moving averages (``beta1``, ``beta2``) of I = |w ∂L/∂w| and of |I − Ī|.
    After step t, and at every ``delta_t``-th, the λ of all but the b(t) triplets with the highest
    scores become 0, with

        b(t) = b_T + (b_0 − b_T) (1 − (t − t_init) / (T − t_final − t_init))³

    between ``t_init`` and T − ``t_final``. The selection is fixed for the last ``t_final`` steps.
    All three durations are fractions of training if below 1, otherwise steps.

    The number of parameters, r Σ_k (d_in + d_out), is exact if all sites have one shape. Otherwise
    it is approximate, because it depends on which triplets remain.

    Masks and moving averages are PEFT's. PEFT computes the importance after the optimizer's step,
    from the new weights and the old gradients, and its last selection uses the importance of the
    step before. Here, as in the paper, weights and gradients belong to the same step, and the last
    selection uses them.

    Source:
        Zhang et al. 2023, arXiv:2303.10512, equations 7 to 12 and algorithm 1.
    """

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "LoRA in SVD form, pruned by importance while training"

    t_init: Duration = 0.1
    """Steps before the pruning: a fraction of all steps if below 1, else their number."""
    t_final: Duration = 0.4
    """Last steps, without pruning: a fraction of all steps if below 1, else their number."""
    delta_t: Annotated[Duration, Field(gt=0)] = 10
    """Steps from one pruning to the next: a fraction of all steps if below 1, else their number."""
    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.85
    """Decay of the moving average of the importance."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.85
    """Decay of the moving average of how much the importance changes."""

    @model_validator(mode="after")
    def _leaves_time_to_prune(self) -> AdaLora:
        if self.t_init < 1 and self.t_final < 1 and self.t_init + self.t_final >= 1:
            raise ValueError(
                f"t_init={self.t_init} and t_final={self.t_final} leave no steps for pruning; "
                "accepted are fractions that sum to less than 1"
            )
        return self

    @property
    def initial_rank(self) -> int:
        """1.5 × ``rank``, and at least ``rank`` + 1."""
        return max(self.rank + 1, round(1.5 * self.rank))

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Wrap the model with PEFT's AdaLoRA; a callback prunes after every optimizer step."""
        from iwlora.methods.low_rank.adalora_schedule import RankAllocation

        attached = super().attach(model, sites, seed)
        durations = {"tinit": self.t_init, "tfinal": self.t_final, "deltaT": self.delta_t}
        allocation = RankAllocation(attached.model, durations, self.beta1, self.beta2)

        def ranks() -> dict[str, int]:
            remaining = {pair.name: pair.A.shape[0] for pair in remaining_pairs(attached.model)}
            return {site.name: remaining.get(site.name, 0) for site in sites}

        return replace(
            attached, callbacks=(allocation,), ranks=ranks, settled=lambda: allocation.settled
        )
