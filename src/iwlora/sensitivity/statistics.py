"""The statistics that score a matrix by its weight gradients: one row of a table for each.

A statistic reads a scalar from one batch of one site. The mean of these scalars over batches,
times the ``scale`` of the site, is the sensitivity. Only ``mean`` keeps a matrix for each site,
because the norm of a mean needs one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    gradient_norms,
    projected_gradient,
    projection,
)
from iwlora.sites import Site, dense_weight

Read = Callable[[Site, Tensor, Tensor, str], Tensor]
"""(site, its inputs, the gradients of its outputs, a seed) -> the scalar of one batch."""
ReadGradient = Callable[[Site, Tensor], Tensor]
"""(site, its gradient (..., d_out, d_in)) -> the scalar of one batch, for each expert."""


@dataclass(frozen=True)
class Statistic:
    """One way to score a matrix.

    Args:
        source: where the statistic is from.
        reader: ``reader(estimator)`` is the function that reads the scalar of one batch.
        scale: ``scale(site, expert)`` multiplies the mean of the scalars, of the whole site if
            ``expert`` is None.
        estimators: the estimators that can compute it.
        per_example: whether a batch is weighted by its number of examples.
        gradient_reader: ``gradient_reader(estimator)`` reads the scalars of one batch from a
            gradient, for experts and routers. None if the statistic needs more than the gradient.
        order: the scalar of a site is the norm of this order of those of its experts.
    """

    source: str
    reader: Callable[[str], Read]
    scale: Callable[[Site, int | None], float] = lambda _site, _expert: 1.0
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    per_example: bool = False
    gradient_reader: Callable[[str], ReadGradient] | None = lambda _: lambda _, G: gradient_norms(G)
    order: int = 2

    def read_gradient(self, estimator: str, site: Site, G: Tensor) -> Tensor:
        """The scalars of one batch from the gradient of a parameter.

        Raises:
            IwloraError: the statistic needs more than the gradient.
        """
        if self.gradient_reader is None:
            raise IwloraError(
                f"{site.name} is measured by the gradient of the batch, and this statistic needs "
                "that of each example; take another statistic, or leave the site out with sites="
            )
        return self.gradient_reader(estimator)(site, G)


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


def saliency_of_gradient(_estimator: str) -> ReadGradient:
    """Σ_ij |W_ij G_ij| for each expert."""
    return lambda site, G: (G * dense_weight(site).to(G)).abs().sum(dim=(-2, -1))


def mean_of_gradient(estimator: str) -> ReadGradient:
    """G_b, or G_b P as in :func:`mean_gradient`."""

    def read(site: Site, G: Tensor) -> Tensor:
        if estimator == "exact" or site.d_in <= COLUMNS:
            return G
        return G @ projection(site.name, site.d_in, COLUMNS).to(G)

    return read


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


def _entries(site: Site, expert: int | None) -> int:
    return site.d_in * site.d_out * (site.experts if expert is None else 1)


def _per_entry(site: Site, expert: int | None) -> float:
    return 1 / _entries(site, expert)


def _per_root_entry(site: Site, expert: int | None) -> float:
    return 1 / math.sqrt(_entries(site, expert))


def _per_weight(site: Site, expert: int | None) -> float:
    weight = dense_weight(site) if expert is None else dense_weight(site)[expert]
    size = float(torch.linalg.vector_norm(weight.double()))
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
        gradient_reader=saliency_of_gradient,
        order=1,
    ),
    "mean": Statistic(
        "the gradient of the expected loss",
        mean_gradient,
        estimators=("exact", "sketch", "auto"),
        per_example=True,
        gradient_reader=mean_of_gradient,
    ),
    "example": Statistic(
        "Katharopoulos & Fleuret 2018, arXiv:1803.00942",
        example_norms,
        per_example=True,
        gradient_reader=None,
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

    def row(
        self, gradients: Mapping[str, Tensor], sites: Sequence[Site], weight: float
    ) -> list[float]:
        """Add a batch of all sites; returns the length of each; 0 for a site without a gradient."""
        lengths = {name: self.add(name, G, weight) for name, G in gradients.items()}
        return [lengths.get(site.name, 0.0) for site in sites]

    def norms(self, site: Site, total: float, device: torch.device) -> Tensor:
        """‖Σ_b weight_b G_b‖_F / total over the batches of all processes, of each expert."""
        stack = (site.experts,) if site.experts > 1 else ()
        shape = (*stack, site.d_out, int(min(site.d_in, self._columns)))
        local = self._sums.get(site.name, torch.zeros(shape)).double()
        total_sum = distributed.sum_over_processes(local, device)
        whole = torch.linalg.vector_norm
        norms: Tensor = gradient_norms(total_sum) if site.experts > 1 else whole(total_sum)
        return norms / total
