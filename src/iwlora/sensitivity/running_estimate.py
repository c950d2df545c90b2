"""Readings over batches and processes: their means, how sure they are, when they are enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

from iwlora import distributed
from iwlora.errors import Diverged, IwloraError
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sites import Site

MIN_BATCHES = 8  # a rule that looks after every batch stops too early by luck with fewer

Matrix = np.ndarray[Any, np.dtype[np.float64]]


class Tally:
    """The rows of readings so far, one for each batch of any process, the same in all of them.

    ``scale`` multiplies the reading of each site. A row's weight is the number that its mean is
    taken with: 1, or the examples of the batch.
    """

    def __init__(self, sites: Sequence[Site], tolerance: float, max_batches: int) -> None:
        check_stopping(max_batches, tolerance)
        self.sites = list(sites)
        self.names = [site.name for site in sites]
        self.scale: Matrix = np.ones(len(self.sites))
        self._tolerance = tolerance
        self._max_batches = max_batches
        self._rows: list[list[float]] = []
        self._weights: list[float] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Sequence[float] | None, weight: float, device: torch.device) -> bool:
        """Add this process's next row, None when it has no more, and those of all the others.

        One all-reduce; every process must call it equally often. False once none has a row.
        Raises ``IwloraError``, in all processes, for a reading that is not finite.
        """
        own = None if row is None else [weight, *row]
        joined = distributed.gather_rows(own, 1 + len(self.names), device)
        for weight, *readings in joined:
            for name, reading in zip(self.names, readings, strict=True):
                if not math.isfinite(reading):
                    raise Diverged(
                        f"the gradient of {name} is not finite in calibration batch "
                        f"{len(self._rows)}: look at that batch for broken rows and at the model "
                        "for weights that are no numbers, or measure in float32 or bfloat16",
                        len(self._rows),
                    )
            self._rows.append(readings)
            self._weights.append(weight)
        return bool(joined)

    @property
    def enough(self) -> bool:
        """Whether the shares are stable, or another round of batches would be too many."""
        rows = len(self._rows)
        full = rows > 0 and rows + distributed.world_size() > self._max_batches
        return full or (self._tolerance > 0 and rows >= MIN_BATCHES and self.stable)

    @property
    def stable(self) -> bool:
        """Whether :func:`share_error` is at most the tolerance."""
        error = self.share_error
        return error is not None and error <= self._tolerance

    def state(self) -> dict[str, Any]:
        """The rows so far as plain values, which :meth:`restore` takes."""
        return {"rows": self._rows, "weights": self._weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the rows of a :meth:`state`."""
        self._rows = [list(row) for row in state["rows"]]
        self._weights = list(state["weights"])

    @property
    def total(self) -> float:
        """The weights of all rows together."""
        return math.fsum(self._weights)

    @property
    def rows(self) -> Matrix:
        """The readings of all batches, (batches, sites), scaled."""
        return np.array(self._rows) * self.scale

    @property
    def share_error(self) -> float | None:
        """:func:`share_error` of the rows so far."""
        return share_error(self.rows, np.array(self._weights))

    def result(
        self, estimator: str, statistic: str, seconds: float, values: Sequence[float] | None = None
    ) -> Sensitivity:
        """What the rows say; ``values`` take the place of their means.

        Raises ``IwloraError`` if there are no rows, or zeros alone.
        """
        if not self._rows:
            raise IwloraError("there are no calibration batches; give at least one")
        rows, weights = self.rows, np.array(self._weights)
        means = np.average(rows, axis=0, weights=weights) if values is None else np.array(values)
        if not means.sum() > 0:
            raise IwloraError(
                "every gradient is zero, so no matrix matters more than another: does the loss "
                "depend on the model's output, and are there labels other than -100?"
            )
        several, spread = len(rows) > 1, share_deviations(rows, weights)
        errors = standard_error(rows, weights).tolist() if several else [None] * len(self.sites)
        return Sensitivity(
            tuple(
                SiteSensitivity(s.name, s.kind, s.depth, s.d_in, s.d_out, value, error)
                for s, value, error in zip(self.sites, means.tolist(), errors, strict=True)
            ),
            estimator=estimator,
            batches=len(rows),
            share_error=self.share_error,
            share_bound=None if spread is None else distance_bound(spread, len(rows)),
            converged=self.stable,
            seconds=seconds,
            statistic=statistic,
        )


def check_stopping(max_batches: int, tolerance: float) -> None:
    """Raise ``IwloraError`` for limits of a measurement that no measurement could keep."""
    if max_batches < 1 or not tolerance >= 0:
        raise IwloraError(
            f"max_batches={max_batches} and tolerance={tolerance} were given; "
            "accepted are max_batches of at least 1 and a tolerance of at least 0"
        )


def share_error(norms: Matrix, weights: Matrix | None = None) -> float | None:
    """Expected part of the total importance on the wrong matrices, from norms (batches, sites).

    The shares are w_k = s_k / Σ_j s_j. Their total variation distance to the true shares is
    ½ Σ_k |ŵ_k − w_k|; with normal errors of standard deviation σ_k it is expected to be
    ½ √(2/π) Σ_k σ_k. The delta method for a ratio of means over n batches gives σ_k as the
    standard error of (g_bk − ŵ_k Σ_j g_bj) / mean_b Σ_j g_bj. A standard deviation of n normal
    numbers is on average low by the factor c₄(n), which is divided out.

    None for fewer than two batches, or when all norms are zero.

    >>> share_error(np.array([[1.0, 3.0], [2.0, 6.0]]))  # the shares do not vary
    0.0
    """
    deviations = share_deviations(norms, weights)
    return None if deviations is None else expected_distance(deviations)


def share_deviations(norms: Matrix, weights: Matrix | None = None) -> Matrix | None:
    """σ_k of :func:`share_error`: the standard error of each share."""
    count = len(norms)
    if count < 2 or not norms.sum() > 0:
        return None
    weights = np.ones(count) if weights is None else weights
    total = norms.sum(axis=1, keepdims=True)
    shares = np.average(norms, axis=0, weights=weights)
    shares /= shares.sum()
    residuals = (norms - shares * total) / np.average(total[:, 0], weights=weights)
    log_ratio = math.lgamma(count / 2) - math.lgamma((count - 1) / 2)
    c4 = math.sqrt(2 / (count - 1)) * math.exp(log_ratio)
    return standard_error(residuals, weights) / c4


def expected_distance(deviations: Matrix) -> float:
    """½ Σ_k E|ε_k| for normal errors ε_k of these standard deviations."""
    return float(0.5 * math.sqrt(2 / math.pi) * deviations.sum())


def distance_bound(deviations: Matrix, batches: int) -> float:
    """½ Σ_k |ε_k| at most, with 95% confidence, however the errors ε_k go together.

    Each is within Student's 97.5% quantile of its standard error; they may all be out at once.
    """
    return float(0.5 * stdtrit(batches - 1, 0.975) * deviations.sum())


def standard_error(samples: Matrix, weights: Matrix) -> Matrix:
    """Of the weighted mean of independent rows; with equal weights the textbook's s / √n."""
    count = len(samples)
    parts = (weights / weights.sum())[:, None]
    deviations = samples - (parts * samples).sum(axis=0)
    variance: Matrix = ((parts * deviations) ** 2).sum(axis=0) * count / (count - 1)
    return np.sqrt(variance)
