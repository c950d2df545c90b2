"""IW-LoRA: LoRA + importance + penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.methods.base import Attached
from iwlora.methods.lora import Lora

if TYPE_CHECKING:
    from iwlora.sensitivity.record import Sensitivity
    from iwlora.sites import Site


class IWLora(Lora):
    """Plain LoRA trained on L_task + α Σ_k (1 − w_k)^β ‖Δ_k‖_F², with w_k measured beforehand.

    The weights come from the sensitivities s_k = E‖∂L/∂W_k‖_F of the frozen model through
    ``normalize``, see ``iwlora.Importance``; ``relative`` takes ‖Δ_k‖² / ‖W_k‖² in place of
    ‖Δ_k‖². The result is an ordinary LoRA adapter.
    """

    name: ClassVar[str] = "iw-lora"
    summary: ClassVar[str] = "LoRA whose unimportant updates are penalised"
    paper: ClassVar[str] = "this project"

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    normalize: Literal["sum", "max", "mean", "rank"] = "sum"
    relative: bool = False
    max_batches: Annotated[int, Field(ge=1, strict=True)] = 200
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02

    def calibration(self) -> dict[str, Any]:
        """Exact sensitivities, until stable or ``max_batches``."""
        return {
            "estimator": "exact",
            "max_batches": self.max_batches,
            "tolerance": self.tolerance,
        }

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """LoRA on the sites, and the penalty weighted by their measured sensitivity."""
        from iwlora.penalty.apply import Penalty

        if sensitivity is None:
            raise IwloraError(f"{self.name} needs the measured sensitivity of its sites")
        attached = super().attach(model, sites, size, seed)
        coefficients = Importance(sensitivity, self.normalize).coefficients(self.beta)
        penalty = Penalty(attached.model, coefficients, self.alpha, self.relative)
        return replace(attached, regularizer=penalty)
