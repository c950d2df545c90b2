"""IW-LoRA: LoRA + importance + penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.results import layout

if TYPE_CHECKING:
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class IWLora(Lora):
    """Plain LoRA trained on L_task + α Σ_k (1 − w_k)^β ‖Δ_k‖_F², with w_k measured beforehand.

    The weights come from the sensitivities s_k = E‖∂L/∂W_k‖_F of the frozen model through
    ``normalize``, see ``iwlora.Importance``. ``measure: in-flight`` takes them from the first
    training steps instead, with the penalty from then on. ``route``, ``relative`` and
    ``schedule`` (with ``penalty_warmup``, a part of training) are those of ``IWLoraCallback``,
    ``estimator``, ``max_batches`` and ``tolerance`` those of ``iwlora.measure``; in flight
    ``estimator: lora`` costs nothing. The result is an ordinary LoRA adapter.
    """

    name: ClassVar[str] = "iw-lora"
    summary: ClassVar[str] = "LoRA whose unimportant updates are penalised"
    paper: ClassVar[str] = "this project"

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    normalize: Literal["sum", "max", "mean", "rank"] = "sum"
    route: Literal["loss", "gradient", "decoupled"] = "loss"
    relative: bool = False
    schedule: Literal["constant", "warmup", "cosine"] = "constant"
    penalty_warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    measure: Literal["before", "in-flight"] = "before"
    estimator: Literal["exact", "ghost", "sketch", "auto", "lora"] = "exact"
    max_batches: Annotated[int, Field(ge=1, strict=True)] = 200
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02

    @model_validator(mode="after")
    def _free_sketch_in_flight(self) -> IWLora:
        if self.estimator == "lora" and self.measure == "before":
            raise ValueError(
                "estimator=lora reads the training steps; accepted with it is measure=in-flight"
            )
        return self

    def calibration(self) -> dict[str, Any] | None:
        """How to measure before training; None in flight."""
        return self._how() if self.measure == "before" else None

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: c_k} of the penalty."""
        return Importance(sensitivity, self.normalize).coefficients(self.beta)

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """LoRA on the sites, and a callback that penalises by their sensitivity."""
        from iwlora.penalty.callback import IWLoraCallback

        if sensitivity is None and self.measure == "before":
            raise IwloraError(f"{self.name} needs the measured sensitivity of its sites")
        attached = super().attach(model, sites, seed)
        callback = IWLoraCallback(
            alpha=self.alpha,
            route=self.route,
            relative=self.relative,
            schedule=self.schedule,
            warmup=self.penalty_warmup,
            measure=self.measure,
            sensitivity=sensitivity,
            weigh=self.coefficients,
            warn=False,
            **self._how(),
        )

        def save(folder: Path) -> None:
            attached.save(folder)
            if callback.sensitivity is not None:
                callback.sensitivity.save(folder / layout.SENSITIVITY)

        return replace(
            attached,
            save=save,
            callbacks=(*attached.callbacks, callback),
            notes=lambda: (callback.verdict,) if callback.verdict else (),
        )

    def _how(self) -> dict[str, Any]:
        return {
            "estimator": self.estimator,
            "max_batches": self.max_batches,
            "tolerance": self.tolerance,
        }
