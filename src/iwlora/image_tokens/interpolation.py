"""Prompts between those of two classes. The formulas are ours.

The study interpolates prompts over the steps of decoding too, in what it calls a marquee header,
whose formula is not known here. A further formula is a further value of :data:`Interpolation`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Interpolation = Literal["linear", "spherical"]
_PARALLEL = 1e-4  # radians, below which an arc is a line


def interpolate(start: Tensor, end: Tensor, weight: float, kind: Interpolation) -> Tensor:
    """Vectors on the way from some to others.

    linear: (1 - w) a + w b. spherical: the direction moves along the arc between both at a constant
    speed, and the length from |a| to |b|: with θ the angle between a and b,
    (sin((1 - w) θ) a/|a| + sin(w θ) b/|b|) / sin θ · ((1 - w) |a| + w |b|).

    Args:
        start: a, (..., width).
        end: b, of the same shape.
        weight: w, in 0...1.
        kind: Which of them.

    Example:
        >>> a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
        >>> interpolate(a, b, 0.5, "linear").tolist()
        [0.5, 1.5]
        >>> round(interpolate(a, b, 0.5, "spherical").norm().item(), 4)
        2.0
    """
    straight = (1 - weight) * start + weight * end
    if kind == "linear":
        return straight
    lengths = [vector.norm(dim=-1, keepdim=True) for vector in (start, end)]
    a, b = start / lengths[0], end / lengths[1]
    angle = torch.acos((a * b).sum(-1, keepdim=True).clamp(-1, 1))
    arc = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)
    length = (1 - weight) * lengths[0] + weight * lengths[1]
    is_line = (angle < _PARALLEL) | (angle > torch.pi - _PARALLEL)
    return torch.where(is_line, straight, arc * length)
