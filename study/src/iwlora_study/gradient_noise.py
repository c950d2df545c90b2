"""The signal to noise of a matrix's gradient over batches: an estimate, and its error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCKS = 4  # of batches, for the jackknife; one matrix is kept for each


@dataclass(frozen=True)
class Estimate:
    """s = ‖E g‖² / E‖g − E g‖² of one matrix, and its standard error (NaN below 8 batches).

    Args:
        value: at least 0.
        stderr: of the value before it was limited to 0.
    """

    value: float
    stderr: float


class GradientMoments:
    """The moments of one matrix's gradients g_b (d_out, d_in) over n batches.

    With S = Σ g_b and Q = Σ ‖g_b‖², two estimates without bias are

        ‖E g‖²       ≈ (‖S‖² − Q) / (n (n − 1)), the mean of ⟨g_a, g_b⟩ over all pairs a ≠ b,
        E‖g − E g‖²  ≈ (Q − ‖S‖²/n) / (n − 1).

    ‖S/n‖² itself would be too large, by a part 1/n of the noise: of pure noise it would make s
    1/n. s is the ratio of the two, limited to at least 0. The limit makes a small s too large on
    average, and of a ratio the mean is not the ratio of the means: s is too large by about 2 s / ν,
    where ν is (n − 1) times the number of directions that share the noise. Noise below the rounding
    of float32 counts as that rounding, so that s is finite.

    The standard error is the jackknife's over four blocks of batches: with s₋ⱼ the estimate without
    block j, its square is ¾ Σ_j (s₋ⱼ − mean)². It is too wide on average, never too narrow (Efron
    and Stein 1981): by a quarter where s is small. It needs four matrices of the size of the
    weight.

    g is the gradient of a batch, so s grows with the batch: of single rows it is s / batch size.

    Example:
        >>> moments = GradientMoments()
        >>> for g in ([[3.0, 1.0]], [[3.0, -1.0]]):
        ...     moments.add(torch.tensor(g))
        >>> moments.estimate().value  # the mean of ⟨g_a, g_b⟩ is 8, and the noise 2
        4.0
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._squares, self._counts = [0.0] * _BLOCKS, [0] * _BLOCKS

    def add(self, gradient: Tensor) -> None:
        """Add the gradient of the next batch."""
        block = sum(self._counts) % _BLOCKS
        if block == len(self._sums):
            self._sums.append(torch.zeros_like(gradient, dtype=torch.float32))
        self._sums[block].add_(gradient)
        self._squares[block] += _square(gradient)
        self._counts[block] += 1

    def estimate(self) -> Estimate:
        """s and its standard error.

        Raises:
            ValueError: there are fewer than two batches.
        """
        total = torch.stack(self._sums).sum(dim=0) if self._sums else torch.zeros(())
        square, count = sum(self._squares), sum(self._counts)
        if count < 2:
            raise ValueError(f"{count} batches have no noise; give at least two")
        value, stderr = _ratio(_square(total), square, count), math.nan
        if count >= 2 * _BLOCKS:
            without = [
                _ratio(_square(total - part), square - squares, count - batches)
                for part, squares, batches in zip(
                    self._sums, self._squares, self._counts, strict=True
                )
            ]
            mean = sum(without) / _BLOCKS
            spread = sum((one - mean) ** 2 for one in without)
            stderr = math.sqrt((_BLOCKS - 1) / _BLOCKS * spread)
        return Estimate(max(value, 0.0), stderr)


def _ratio(square_of_sum: float, sum_of_squares: float, count: int) -> float:
    """The ratio of the two estimates; 0 where all gradients are 0."""
    if sum_of_squares == 0:
        return 0.0
    signal = (square_of_sum - sum_of_squares) / (count * (count - 1))
    noise = (sum_of_squares - square_of_sum / count) / (count - 1)
    return signal / max(noise, torch.finfo(torch.float32).eps * sum_of_squares / count)


def _square(gradient: Tensor) -> float:
    """‖g‖_F², in float64."""
    return float(gradient.double().square().sum())
