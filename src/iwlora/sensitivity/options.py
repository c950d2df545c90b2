"""The options of a measurement that functions, methods, recipes and the callback share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.limits import Count


class MeasureOptions(BaseModel):
    """How the sensitivity is estimated and when measuring ends, as in ``iwlora.measure``.

    Methods whose recipes have these fields inherit from this class. ``DEFAULTS`` are the default
    values everywhere.

    Args:
        estimator: ``exact``, ``ghost``, ``sketch`` or ``auto``; ``lora`` if training steps are
            measured.
        max_batches: the largest number of calibration batches.
        tolerance: measuring ends when the expected error of the shares is at most this; 0 turns
            this rule off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    estimator: Literal["exact", "ghost", "sketch", "auto", "lora"] = "exact"
    max_batches: Count = 200
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02

    @classmethod
    def checked(
        cls, estimator: str, max_batches: int, tolerance: float, accepted: Iterable[str]
    ) -> MeasureOptions:
        """The options, for a call from Python.

        Args:
            estimator: the name of an estimator.
            max_batches: the largest number of batches.
            tolerance: the accepted error of the shares.
            accepted: the names of estimators that the caller supports.

        Raises:
            IwloraError: the estimator or one of the limits is not accepted.

        Example:
            >>> MeasureOptions.checked("exact", 8, 0.0, accepted=["exact"]).max_batches
            8
        """
        if estimator not in (names := list(accepted)):
            raise unknown("estimator", estimator, names)
        if max_batches < 1 or not tolerance >= 0:
            raise IwloraError(
                f"max_batches={max_batches} and tolerance={tolerance} were given; "
                "accepted are max_batches of at least 1 and a tolerance of at least 0"
            )
        return cls(estimator=estimator, max_batches=int(max_batches), tolerance=float(tolerance))  # type: ignore[arg-type]

    def measure_arguments(self) -> dict[str, Any]:
        """The options as keyword arguments of ``iwlora.measure``."""
        return {name: getattr(self, name) for name in MeasureOptions.model_fields}


DEFAULTS = MeasureOptions()
