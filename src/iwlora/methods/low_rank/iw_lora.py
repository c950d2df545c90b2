"""IW-LoRA: LoRA whose unimportant updates are penalized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from iwlora.importance import Importance
from iwlora.methods.contract import Attached, not_measured
from iwlora.methods.low_rank.lora import Lora
from iwlora.penalty.routes import DEFAULT_ROUTE
from iwlora.results import layout
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.options import DEFAULTS, MeasureOptions
from iwlora.sites import Site


class IWLora(MeasureOptions, Lora):
    """Plain LoRA trained on L_task + α Σ_k (1 − w_k)^β ‖Δ_k‖_F², with measured weights w_k.

    The weights come from the sensitivities s_k = E‖∂L/∂W_k‖_F of the frozen model by ``normalize``,
    see ``iwlora.Importance``. They are measured in the first training steps, and the penalty starts
    after them (``measure: in-flight``); or before training (``measure: before``). ``route``,
    ``relative``, ``schedule`` and ``penalty_warmup`` (the part of training in which the penalty
    rises) are options of ``iwlora.IWLoraCallback``; ``estimator``, ``max_batches`` and
    ``tolerance`` are options of ``iwlora.measure``. In flight there is also ``estimator: lora``;
    without an estimator, measuring adds at most 2% to the operations of a run. The result is a
    plain LoRA adapter.
    """

    name: ClassVar[str] = "iw-lora"
    summary: ClassVar[str] = (
        "LoRA with a penalty, smaller for important matrices; no benefit over LoRA was measured"
    )
    paper: ClassVar[str] = "this project"
    former_defaults: ClassVar[Mapping[int, Mapping[str, Any]]] = {
        1: {"route": "loss"},
        3: {"measure": "before", "estimator": "exact"},
    }

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """α, the strength of the penalty α Σ_k (1 − w_k)^β ‖Δ_k‖_F²; 0: none."""
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """β of the penalty: the larger, the weaker it is for important matrices; 0: alike for all."""
    normalize: Literal["sum", "max", "mean", "rank"] = "sum"
    """How the sensitivities become the weights w_k: divided by their sum, their maximum or their
    mean; rank: by their order."""
    route: Literal["loss", "gradient", "decoupled"] = DEFAULT_ROUTE
    """How the penalty acts: in the loss; in the gradient before each step; or on the parameters, in
    the manner of AdamW's weight decay."""
    relative: bool = False
    """Whether ‖Δ_k‖_F is divided by ‖W_k‖_F, the norm of the frozen matrix."""
    schedule: Literal["constant", "warmup", "cosine"] = "constant"
    """How α changes during training: constant; warmup: it rises from 0 in the first part, which
    ``penalty_warmup`` sets; cosine: after this rise it falls to 0 at the last step."""
    penalty_warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Fraction of all steps in which α rises, for the schedules warmup and cosine."""
    measure: Literal["before", "in-flight"] = "in-flight"
    """When the sensitivities are measured: before training, or in its first steps."""
    estimator: Literal["exact", "ghost", "sketch", "auto", "lora"] | None = None  # type: ignore[assignment]
    """How the sensitivities are estimated, as by ``iwlora.measure``. lora: from the gradients of A
    and B, in flight. None: exact before training; in flight what adds at most 2% to the run."""

    @model_validator(mode="after")
    def _lora_estimator_needs_training_steps(self) -> IWLora:
        if self.estimator == "lora" and self.measure == "before":
            raise ValueError(
                "estimator=lora reads training steps, so it needs measure=in-flight; with "
                "measure=before take another estimator"
            )
        return self

    def calibration(self) -> dict[str, Any] | None:
        """The arguments for measuring before training; None in flight."""
        return self.measure_arguments() if self.measure == "before" else None

    def measure_arguments(self) -> dict[str, Any]:
        """The options as keyword arguments of ``iwlora.measure``."""
        return {**super().measure_arguments(), "estimator": self.estimator or DEFAULTS.estimator}

    def coefficients(self, sensitivity: Sensitivity) -> dict[str, float]:
        """{site name: c_k} of the penalty."""
        return Importance(sensitivity, self.normalize).coefficients(self.beta)

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA, and a callback that penalizes each site by its coefficient."""
        from iwlora.penalty.callback import IWLoraCallback

        if sensitivity is None and self.measure == "before":
            raise not_measured(self.name)
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
            **{**self.measure_arguments(), "estimator": self.estimator},
        )

        def save(folder: Path) -> None:
            attached.save(folder)
            if callback.sensitivity is not None:
                callback.sensitivity.save(folder / layout.SENSITIVITY)

        return replace(
            attached,
            save=save,
            callbacks=(*attached.callbacks, callback),
            panels=callback.panels,
            notes=lambda: (callback.verdict,) if callback.verdict else (),
        )


class IWLoraAsWritten(IWLora):
    """IW-LoRA as it was first written: L_task + 10⁻⁴ Σ_k (1 − s_k / Σ_j s_j) ‖Δ_k‖_F².

    s_k is measured before training with whole gradients, and the penalty is part of the loss from
    the first step. These options are pinned, so this method stays the same when the defaults of
    ``iw-lora`` change.
    """

    name: ClassVar[str] = "iw-lora-as-written"
    summary: ClassVar[str] = "IW-LoRA in the form that was first written, with pinned options"
    former_defaults: ClassVar[Mapping[int, Mapping[str, Any]]] = {}
    pinned: ClassVar[Sequence[str]] = (
        "alpha beta normalize route relative schedule measure estimator".split()
    )
    """The options that accept no other value than their default."""

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    normalize: Literal["sum", "max", "mean", "rank"] = "sum"
    route: Literal["loss", "gradient", "decoupled"] = "loss"
    relative: bool = False
    schedule: Literal["constant", "warmup", "cosine"] = "constant"
    measure: Literal["before", "in-flight"] = "before"
    estimator: Literal["exact", "ghost", "sketch", "auto", "lora"] | None = "exact"

    @field_validator(*pinned)
    @classmethod
    def _is_as_written(cls, value: Any, info: ValidationInfo) -> Any:
        pinned = cls.model_fields[str(info.field_name)].default
        if value != pinned:
            raise ValueError(f"{cls.name} always has {pinned}; for other values take iw-lora")
        return value
