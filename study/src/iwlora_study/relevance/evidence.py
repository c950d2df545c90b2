"""The evidence for the precisions of a Gaussian prior, as arithmetic on tensors.

The weights w have the prior N(0, 1/α_g) in each group g. With the diagonal h of the Hessian of the
summed loss at the mode, the number of *well-determined* parameters of a group is

    γ_g = Σ_j h_j / (h_j + α_g),

and the α_g that maximize the evidence fulfil α_g ‖w_g‖² = γ_g.

Source:
    MacKay 1992, "Bayesian interpolation", Neural Computation 4, equations 4.8 and 4.9;
    Tipping 2001, JMLR 1, equations 16 and 17.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-30  # of γ and of ‖w‖², so that a precision is finite and above 0
_START_STEPS = 50


class GradientVariance:
    """The variance of a mean gradient over batches, of which the recent ones weigh more.

    Batch t steps ago has a weight in proportion to ``decay``ᵗ. The weighted sample variance is
    without bias for gradients that are independent and have one mean:

        (m₂ − m₁²) / (1 − Σ wₜ²),   m_p = Σ wₜ gᵗᵖ,   Σ wₜ = 1.

    So what the gradients have in common, the signal, does not count as variance.

    Example:
        >>> variance = GradientVariance(decay=0.5)
        >>> for gradient in (1.0, 3.0):
        ...     variance.add(torch.tensor([gradient]))
        >>> round(variance.value().item(), 4)  # of two values, whatever their weights: (3 − 1)² / 2
        2.0
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.batches = 0
        self.first = self.second = torch.zeros(())

    def add(self, gradient: Tensor) -> None:
        """Count a gradient."""
        weight = 1 - self.decay
        if not self.batches:
            self.first, self.second = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.first.lerp_(gradient, weight)
        self.second.lerp_(gradient.square(), weight)
        self.batches += 1

    def value(self) -> Tensor:
        """The variance of each entry; at least two gradients are needed."""
        power = self.decay**self.batches
        total = 1 - power
        squares = (1 - self.decay) * (1 + power) / ((1 + self.decay) * total)  # Σ wₜ²
        mean = self.first / total
        return (self.second / total - mean.square()).clamp(min=0) / (1 - squares)


def fisher_from_batches(variance: Tensor, batch_size: int, rows: int) -> Tensor:
    """N · Var(g_n), the curvature h of the summed loss, from the variance of the batches' means.

    The mean over b of N rows, drawn without replacement, has the variance
    Var(g_n) / b · (N − b) / (N − 1). That h ≈ N · Var(g_n) assumes that the empirical Fisher
    information is the Hessian, as it is at the optimum of a model whose likelihood is right.

    Args:
        variance: of the mean gradient of a batch, any shape.
        batch_size: b, the rows of an optimizer step.
        rows: N, the training rows; more than b.

    Example:
        >>> fisher_from_batches(torch.tensor(1.0), batch_size=32, rows=1 << 20).item() / (1 << 20)
        32.0...
    """
    return variance * (rows * batch_size * (rows - 1) / (rows - batch_size))


def well_determined(curvature: Tensor, precision: Tensor) -> Tensor:
    """γ = Σ_j h_j / (h_j + α), which is n − α tr(H⁻¹) for the diagonal H = h + α.

    Args:
        curvature: h of shape (groups, n), of the summed loss without the prior.
        precision: α of shape (groups,), from 0 on.

    Returns:
        (groups,) in float64.

    Example:
        >>> well_determined(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0])).tolist()
        [1.25]
    """
    h = curvature.double()
    return (h / (h + precision.double().unsqueeze(-1)).clamp(min=_SMALLEST)).sum(-1)


def pool(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(groups,) the sums of the values (components,) whose ``group`` (components,) is the same.

    >>> pool(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 1]), groups=2).tolist()
    [1.0, 6.0]
    """
    return values.new_zeros(groups).index_add_(0, group, values)


def mackay(gamma: Tensor, squares: Tensor) -> Tensor:
    """α = γ / ‖w‖², each (groups,): MacKay's re-estimate.

    >>> mackay(torch.tensor([3.0]), torch.tensor([0.5])).tolist()
    [6.0]
    """
    return gamma.clamp(min=_SMALLEST) / squares.clamp(min=_SMALLEST)


def damped(precision: Tensor, target: Tensor, part: float) -> Tensor:
    """A step towards a re-estimate, on a logarithmic scale: α^(1 − part) · target^part.

    The fixed points stay the same. Where the prior decides (α ≫ h), γ ≈ Σ h / α, so that undamped
    updates jump between two values for ever; with ``part = ½`` they arrive in one step.

    >>> damped(torch.tensor([1.0]), torch.tensor([4.0]), 0.5).tolist()
    [2.0]
    """
    return precision ** (1 - part) * target**part


def shared_precision(curvature: list[Tensor], factors: Tensor, squares: Tensor) -> float:
    """The one α that maximizes the evidence if component i has the precision α · c_i.

    Args:
        curvature: h, tensors of shape (components, n), together as many components as ``factors``.
        factors: c, (components,).
        squares: ‖w_i‖², (components,).

    Example:
        >>> h, one = [torch.tensor([[1.0]])], torch.ones(1)
        >>> round(shared_precision(h, one, torch.tensor([0.5])), 6)  # α / 2 = 1 / (1 + α)
        1.0
    """
    energy = (factors * squares).sum()
    alpha = torch.ones((), dtype=torch.float64)
    for _ in range(_START_STEPS):
        precisions = alpha * factors
        parts = torch.split(precisions, [len(h) for h in curvature])
        gammas = [well_determined(h, p).sum() for h, p in zip(curvature, parts, strict=True)]
        alpha = damped(alpha, mackay(torch.stack(gammas).sum(), energy), 0.5)
    return float(alpha)
