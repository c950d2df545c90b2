"""The mean of the measured norms over batches and processes, its error, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from iwlora import distributed
from iwlora.errors import Diverged, IwloraError
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sensitivity.options import MeasureOptions
from iwlora.sites import Site

MIN_BATCHES = 8  # with fewer, a rule that is tested after every batch stops too early by chance

Matrix = np.ndarray[Any, np.dtype[np.float64]]


class ExpertColumns:
    """The columns that a row has after those of the sites.

    For every site with several experts, first the number of each expert, then of all these sites
    the number of tokens that each expert got.

    >>> from torch import nn
    >>> columns = ExpertColumns([Site("w", nn.Linear(2, 2), "expert_up", 2, 2, 0, "w", experts=2)])
    >>> columns.names
    ['expert 0 of w', 'expert 1 of w']
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = [site for site in sites if site.experts > 1]
        self.names = [
            f"expert {e} of {site.name}" for site in self.sites for e in range(site.experts)
        ]

    def __len__(self) -> int:
        return 2 * len(self.names)

    def row(self, values: Mapping[str, Tensor], tokens: Mapping[str, Tensor]) -> list[float]:
        """The columns of one batch.

        Args:
            values: {site name: the number of each expert}; 0 for sites without an entry.
            tokens: {site name: the tokens of each expert}; 0 for sites without an entry.
        """
        return [
            number
            for source in (values, tokens)
            for site in self.sites
            for number in (
                source[site.name].double().tolist() if site.name in source else [0.0] * site.experts
            )
        ]

    def values(
        self, rows: Matrix, weights: Matrix, scale: Callable[[Site, int], float]
    ) -> dict[str, tuple[float, ...]]:
        """{site name: the scaled mean of each expert} from all rows of these columns."""
        means = np.average(rows[:, : len(self.names)], axis=0, weights=weights).tolist()
        return {
            site.name: tuple(scale(site, e) * mean for e, mean in enumerate(part))
            for site, part in self._parts(means)
        }

    def tokens(self, rows: Matrix) -> dict[str, tuple[int, ...]]:
        """{site name: the tokens of each expert in all rows}, where tokens were counted."""
        sums = rows[:, len(self.names) :].sum(axis=0).tolist()
        return {site.name: tuple(map(int, part)) for site, part in self._parts(sums) if any(part)}

    def _parts(self, numbers: Sequence[float]) -> list[tuple[Site, Sequence[float]]]:
        ends = np.cumsum([site.experts for site in self.sites]).tolist()
        return [
            (site, numbers[end - site.experts : end])
            for site, end in zip(self.sites, ends, strict=True)
        ]


class RunningEstimate:
    """The statistics of all sites by batch, over all processes; each process has all of them.

    A *row* has one number for each site, from one batch; then follow those of single experts, in
    the columns ``experts``. ``scale`` multiplies the numbers of each site, and
    ``expert_scale(site, e)`` those of its expert e. The weight of a row in the mean is 1, or the
    number of examples in the batch.
    """

    def __init__(self, sites: Sequence[Site], options: MeasureOptions) -> None:
        self.sites = list(sites)
        self.names = [site.name for site in sites]
        self.scale: Matrix = np.ones(len(self.sites))
        self.experts = ExpertColumns(self.sites)
        self.expert_scale: Callable[[Site, int], float] = lambda _site, _expert: 1.0
        self._options = options
        self._rows: list[list[float]] = []
        self._weights: list[float] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Sequence[float] | None, weight: float, device: torch.device) -> bool:
        """Add the next row of every process, by one all-reduce.

        Args:
            row: the next row of this process; None when it has no more batches. Every process
                must call this method equally often.
            weight: the weight of the row.
            device: where the processes communicate.

        Returns:
            Whether any process had a row.

        Raises:
            Diverged: in all processes, if a number is infinite or NaN.
        """
        weighted = None if row is None else [weight, *row]
        names = [*self.names, *self.experts.names, *self.experts.names]
        gathered = distributed.gather_rows(weighted, 1 + len(names), device)
        for weight, *values in gathered:
            for name, value in zip(names, values, strict=True):
                if not math.isfinite(value):
                    raise Diverged(
                        f"the gradient of {name} is not finite in calibration batch "
                        f"{len(self._rows)}: check this batch for broken rows and the model for "
                        "NaN or infinite weights, or measure in float32 or bfloat16",
                        len(self._rows),
                    )
            self._rows.append(values)
            self._weights.append(weight)
        return bool(gathered)

    @property
    def finished(self) -> bool:
        """Whether the shares have converged, or one more batch per process would be too many."""
        rows = len(self._rows)
        full = rows > 0 and rows + distributed.world_size() > self._options.max_batches
        return full or (self._options.tolerance > 0 and rows >= MIN_BATCHES and self.converged)

    @property
    def converged(self) -> bool:
        """Whether :func:`share_error` is at most the tolerance."""
        error = self.share_error
        return error is not None and error <= self._options.tolerance

    def state(self) -> dict[str, Any]:
        """The rows so far as plain values, for :meth:`restore`."""
        return {"rows": self._rows, "weights": self._weights}

    def restore(self, rows: Sequence[Sequence[float]], weights: Sequence[float]) -> None:
        """Continue from the rows of a :meth:`state`."""
        if len(rows) != len(weights) or any(not len(self.names) <= len(row) for row in rows):
            raise IwloraError("the checkpoint has a measurement of other sites")
        self._rows, self._weights = [list(row) for row in rows], list(weights)

    @property
    def without_gradient(self) -> set[str]:
        """Names of the sites with a number of 0 in every row."""
        return {n for i, n in enumerate(self.names) if not any(row[i] for row in self._rows)}

    @property
    def total_weight(self) -> float:
        """The sum of the weights of all rows."""
        return math.fsum(self._weights)

    @property
    def rows(self) -> Matrix:
        """The scaled numbers, of shape (batches, sites)."""
        return np.array(self._rows)[:, : len(self.names)] * self.scale

    @property
    def share_error(self) -> float | None:
        """:func:`share_error` of the rows so far."""
        return share_error(self.rows, np.array(self._weights))

    def result(
        self,
        statistic: str,
        seconds: float,
        values: Sequence[float] | None = None,
        noise: Matrix | None = None,
        excluded: Collection[str] = (),
        expert_values: Mapping[str, tuple[float, ...]] | None = None,
    ) -> Sensitivity:
        """The measurement.

        Args:
            statistic: what the rows are.
            seconds: how long it took.
            values: replace the means of the rows.
            noise: the relative standard error that is in all rows of a site alike.
            excluded: names of sites that must not get importance.
            expert_values: replace the means of the experts' columns.

        Raises:
            IwloraError: there are no rows, or all numbers are zero.
        """
        if not self._rows:
            raise IwloraError("there are no calibration batches; give at least one")
        rows, weights = self.rows, np.array(self._weights)
        means = np.average(rows, axis=0, weights=weights) if values is None else np.array(values)
        if not means.sum() > 0:
            raise IwloraError(
                "every gradient is zero: does the loss depend on the model's output, and are there "
                "labels other than -100?"
            )
        included = np.array([name not in excluded for name in self.names])
        deviations = share_deviations(rows * included, weights)
        errors = standard_error(rows, weights) if len(rows) > 1 else np.full(len(self.sites), None)
        if noise is not None and deviations is not None:
            errors, shares = np.hypot(errors, noise * means), means / means[included].sum()
            shares *= included
            # The delta method: a share grows with its own norm and falls with every other norm.
            projection = shares**2 * ((1 - 2 * shares) * noise**2 + ((shares * noise) ** 2).sum())
            deviations = np.sqrt(deviations**2 + projection)
        error = None if deviations is None else expected_distance(deviations)
        columns = np.array(self._rows)[:, len(self.names) :]
        if expert_values is None:
            expert_values = self.experts.values(columns, weights, self.expert_scale)
        tokens = self.experts.tokens(columns)
        return Sensitivity(
            tuple(
                SiteSensitivity(
                    *(s.name, s.kind, s.depth, s.d_in, s.d_out, value, error),
                    expert_values=expert_values.get(s.name),
                    expert_tokens=tokens.get(s.name),
                )
                for s, value, error in zip(self.sites, means.tolist(), errors.tolist(), strict=True)
            ),
            estimator=self._options.estimator,
            batches=len(rows),
            share_error=error,
            share_bound=None if deviations is None else distance_bound(deviations, len(rows)),
            converged=error is not None and error <= self._options.tolerance,
            seconds=seconds,
            statistic=statistic,
            excluded=tuple(name for name in self.names if name in excluded),
            tolerance=self._options.tolerance,
        )


def share_error(norms: Matrix, weights: Matrix | None = None) -> float | None:
    """The expected part of the total importance that is assigned to the wrong matrices.

    The shares are w_k = s_k / Σ_j s_j. The total variation distance between the estimated and the
    true shares is ½ Σ_k |ŵ_k − w_k|. For normal errors of standard deviation σ_k its expectation
    is ½ √(2/π) Σ_k σ_k. The delta method for a ratio of means over n batches gives σ_k as the
    standard error of (g_bk − ŵ_k Σ_j g_bj) / mean_b Σ_j g_bj. The standard deviation of n normal
    numbers is too low on average, by the factor c₄(n), and is divided by it.

    Args:
        norms: of shape (batches, sites).
        weights: the weight of each batch; by default equal weights.

    Returns:
        A number from 0 to 1; None for fewer than two batches, or if all norms are zero.

    Example:
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
    """A bound of ½ Σ_k |ε_k| with 95% confidence, for any dependence between the errors ε_k.

    Each error is within Student's 97.5% quantile times its standard error.
    """
    return float(0.5 * stdtrit(batches - 1, 0.975) * deviations.sum())


def standard_error(samples: Matrix, weights: Matrix) -> Matrix:
    """The standard error of the weighted mean of independent rows; s / √n for equal weights."""
    count = len(samples)
    parts = (weights / weights.sum())[:, None]
    deviations = samples - (parts * samples).sum(axis=0)
    variance: Matrix = ((parts * deviations) ** 2).sum(axis=0) * count / (count - 1)
    return np.sqrt(variance)
