"""The scale that the targets of regression are learned on, and the way back to their units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from iwlora.errors import IwloraError

Values = npt.NDArray[np.float64]
Transform = Literal["log", "log1p", "rank"]
# A rank transform keeps at most this many quantiles of the training targets.
_MOST_QUANTILES = 1000


class TargetScale(BaseModel):
    """z = (t(y) - mean) / sd of a target y, where t is the transform, if any.

    Args:
        transform: ``log``, ``log1p`` (of 1 + y), or ``rank``: the fraction of the training targets
            below y, ties half.
        mean: Of t(y) over the training rows.
        sd: The standard deviation of t(y) over the training rows; 1 where all are equal.
        quantiles: Of the training targets, for ``rank``.
        not_in_head: Why the head of the saved model cannot return y itself; None where it does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    transform: Transform | None = None
    mean: float = 0.0
    sd: float = 1.0
    quantiles: tuple[float, ...] = ()
    not_in_head: str | None = None

    @classmethod
    def fit(
        cls, targets: Sequence[float], transform: Transform | None = None, standardize: bool = True
    ) -> Self:
        """The scale of training targets.

        Raises:
            IwloraError: The transform is not defined for a target.

        Example:
            >>> scale = TargetScale.fit([1.0, 3.0])
            >>> scale.mean, scale.sd, scale.to_z([5.0]).tolist(), scale.to_targets([3.0]).tolist()
            (2.0, 1.0, [3.0], [5.0])
        """
        values = np.asarray(targets, dtype=np.float64)
        quantiles: tuple[float, ...] = ()
        if transform == "rank":
            levels = np.linspace(0, 1, min(len(values), _MOST_QUANTILES))
            quantiles = tuple(np.quantile(values, levels).tolist())
        reason = transform and f"task.kind.transform={transform} is not linear"
        scale = cls(transform=transform, quantiles=quantiles, not_in_head=reason)
        if not standardize:
            return scale
        transformed = scale._transformed(values)
        low, spread = transformed.min(), np.ptp(transformed)
        if spread == 0:
            return scale.model_copy(update={"mean": float(low)})
        # From 0 to 1, so that the squares of large numbers are finite and small ones are not lost.
        unit = (transformed - low) / spread
        mean, sd = low + spread * unit.mean(), spread * unit.std()
        return scale.model_copy(update={"mean": float(mean), "sd": float(sd)})

    def to_z(self, targets: npt.ArrayLike) -> Values:
        """What is learned for these targets; raises ``IwloraError`` as :meth:`fit`."""
        values = self._transformed(np.asarray(targets, dtype=np.float64))
        return np.asarray((values - self.mean) / self.sd, dtype=np.float64)

    def to_targets(self, z: npt.ArrayLike) -> Values:
        """The targets for which this is learned: the inverse of :meth:`to_z`.

        The inverse of a rank is never beyond the training targets.
        """
        values = self.mean + self.sd * np.asarray(z, dtype=np.float64)
        if self.transform == "rank":
            levels = np.linspace(0, 1, len(self.quantiles))
            return np.asarray(np.interp(values, levels, self.quantiles))
        if self.transform is None:
            return values
        with np.errstate(over="ignore"):  # an infinite prediction is reported where it is scored
            return np.asarray(np.exp(values) if self.transform == "log" else np.expm1(values))

    def _transformed(self, values: Values) -> Values:
        if self.transform is None:
            return values
        if self.transform == "rank":
            # A tie is between the first and the last level that has its value.
            quantiles = np.array(self.quantiles)
            levels = np.linspace(0, 1, len(quantiles))
            from_above = 1 - np.interp(-values, -quantiles[::-1], levels)
            return np.asarray((np.interp(values, quantiles, levels) + from_above) / 2)
        low = 0.0 if self.transform == "log" else -1.0
        if (outside := values <= low).any():
            raise IwloraError(
                f"task.kind.transform={self.transform} needs targets above {low:g}; "
                f"{outside.sum():,} of {len(values):,} are not, such as {values[outside][0]:g}; "
                f"take {'log1p or ' if low == 0 and values.min() > -1 else ''}rank"
            )
        return np.asarray(np.log(values) if self.transform == "log" else np.log1p(values))
