"""The statistics that score a matrix by its weight gradients: one row of a table for each.

A statistic reads a scalar from one batch of one site. The mean of these scalars over batches,
times the ``scale`` of the site, is the sensitivity. Only ``mean`` keeps a matrix for each site,
because the norm of a mean needs one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from iwlora import distributed
from iwlora.errors import IwloraError, unknown
from iwlora.sensitivity.estimators import (
    COLUMNS,
    ESTIMATORS,
    Estimator,
    gradient,
    projected_gradient,
)
from iwlora.sites import Site, dense_weight

Read = Callable[[Site, Tensor, Tensor, str], Tensor]
"""(site, its inputs, the gradients of its outputs, a seed) -> the scalar of one batch."""


@dataclass(frozen=True)
class Statistic:
    """One way to score a matrix.

    Args:
        source: where the statistic is from.
        reader: ``reader(estimator)`` is the function that reads the scalar of one batch.
        scale: ``scale(site)`` multiplies the mean of the scalars.
        estimators: the estimators that can compute it.
        per_example: whether a batch is weighted by its number of examples.
    """

    source: str
    reader: Callable[[str], Read]
    scale: Callable[[Site], float] = lambda _site: 1.0
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    per_example: bool = False


def norm(estimator: str) -> Read:
    """‖G_b‖_F of the batch's gradient."""
    estimate = ESTIMATORS[estimator]
    return lambda _site, x, delta, seed: estimate(x, delta, seed)


def saliency(_estimator: str) -> Read:
    """Σ_ij |W_ij G_ij|; a quantized W is dequantized."""

    def read(site: Site, x: Tensor, delta: Tensor, _seed: str) -> Tensor:
        product = gradient(x, delta)
        return product.mul_(dense_weight(site).to(product)).abs_().sum()

    return read


def example_norms(estimator: str) -> Read:
    """Σ_i ‖G_i‖_F over the examples of a batch, where G_i is the gradient's part from example i.

    If the loss of the batch is the mean over examples, this is the mean norm of the gradients of
    the single examples. Raises ``IwloraError`` for a layer whose inputs have no example dimension.
    """
    estimate: Estimator = ESTIMATORS[estimator]

    def read(site: Site, x: Tensor, delta: Tensor, seed: str) -> Tensor:
        if x.dim() < 3:
            raise IwloraError(
                f"{site.name} has inputs of shape {tuple(x.shape)}, without a dimension of "
                "examples, or its weight is used without calling the layer; take another "
                "statistic, or leave the site out with sites="
            )
        norms = [estimate(x[i], delta[i], f"{seed}/{i}") for i in range(len(x))]
        return torch.stack(norms).sum()

    return read


def mean_gradient(estimator: str) -> Read:
    """G_b, or G_b P with one random projection P for each site, the same for all batches.

    With ``exact``, one matrix of the size of the weight is kept for every site.
    """
    if estimator == "exact":
        return lambda _site, x, delta, _seed: gradient(x, delta)
    return lambda site, x, delta, _seed: projected_gradient(x, delta, site.name, COLUMNS)


def choose_statistic(statistic: str, estimator: str) -> Statistic:
    """The statistic; raises ``IwloraError`` if it is unknown or the estimator does not fit it."""
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    chosen = STATISTICS[statistic]
    if estimator not in chosen.estimators:
        raise IwloraError(
            f"statistic={statistic!r} cannot be computed with estimator={estimator!r}; "
            f"accepted are {', '.join(chosen.estimators)}"
        )
    return chosen


def _per_entry(site: Site) -> float:
    return 1 / (site.d_in * site.d_out)


def _per_root_entry(site: Site) -> float:
    return 1 / math.sqrt(site.d_in * site.d_out)


def _per_weight(site: Site) -> float:
    size = float(torch.linalg.vector_norm(dense_weight(site).double()))
    if not size > 0:
        raise IwloraError(f"the weight of {site.name} has the norm {size}; take another statistic")
    return 1 / size


# The formulas are in iwlora.results.sensitivity.FORMULAS.
STATISTICS = {
    "norm": Statistic("this project", norm),
    "rms": Statistic("the root mean square of a gradient's entries", norm, _per_root_entry),
    "relative": Statistic("You et al. 2017, arXiv:1708.03888 (inverse)", norm, _per_weight),
    "saliency": Statistic(
        "Molchanov et al. 2019, arXiv:1906.10771; Zhang et al. 2023, arXiv:2303.10512",
        saliency,
        _per_entry,
        ("exact", "auto"),
    ),
    "mean": Statistic(
        "the gradient of the expected loss",
        mean_gradient,
        estimators=("exact", "sketch", "auto"),
        per_example=True,
    ),
    "example": Statistic(
        "Katharopoulos & Fleuret 2018, arXiv:1803.00942",
        example_norms,
        per_example=True,
    ),
}


class MeanGradients:
    """The running mean gradient of each site, and the length of each batch's gradient along it.

    >>> means = MeanGradients("exact")
    >>> means.add("w", torch.tensor([[3.0, 4.0]]), weight=1.0)
    5.0
    >>> means.add("w", torch.tensor([[-4.0, 3.0]]), weight=1.0)  # orthogonal to the first
    0.0
    """

    def __init__(self, estimator: str) -> None:
        self._columns = math.inf if estimator == "exact" else COLUMNS
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, weight: float) -> float:
        """Add a batch; returns ⟨u, G_b⟩, where u is the direction of the mean of earlier batches.

        For the first batch, u is its own direction. By the delta method, the spread of these
        numbers is that of ‖mean‖; a noisy direction makes it too wide, not too narrow.
        """
        total = self._sums.setdefault(name, torch.zeros_like(value))
        size = torch.linalg.vector_norm(total)
        along = (total * value).sum() / size if size > 0 else torch.linalg.vector_norm(value)
        total.add_(value, alpha=weight)
        return float(along)

    def norm(self, site: Site, total: float, device: torch.device) -> float:
        """‖Σ_b weight_b G_b‖_F / total over the batches of all processes."""
        shape = (site.d_out, int(min(site.d_in, self._columns)))
        local = self._sums.get(site.name, torch.zeros(shape)).double()
        total_sum = distributed.sum_over_processes(local, device)
        return float(torch.linalg.vector_norm(total_sum)) / total
