"""The module of a prompt generator: from a class to several vectors that a transformer reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_SPREAD = 0.02
"""Standard deviation of new vectors, as in BERT."""


class Prompts(nn.Module):
    """P[c, s], S prompts of width d for each class c.

    Without ``factors``, P[c, s] = LayerNorm(E[c] + T[s]). With ``hidden`` the vectors E and T are
    of that width, and a linear layer follows: W LayerNorm(E[c] + T[s]) + b.

    With F ``factors``, P[c, s] = LayerNorm(W₃ (f(c) ⊙ g(s)) + b₃), where f(c) = W₁ gelu(E[c]) + b₁
    and g(s) = W₂ gelu(T[s]) + b₂ have F values, and E and T are of width ``hidden`` or F.

    With ``images``, each training image i of a class has a vector too, and E[c] + V[c, i] is in the
    place of E[c]. Where no image is given, V[c, i] is the mean of the class: training learns the
    sum, so the mean does not depend on how E and V share it. All V begin with 0.

    Args:
        classes: C.
        tokens: S.
        width: d.
        eps: Of the normalization.
        factors: F; None for the sum.
        hidden: The width of E and T; None: d, or F.
        images: The number of training images of each class that have a vector; none by default.

    Source:
        Sohn et al. 2023, arXiv:2210.00990, and the released code for the sum. That of the factors
        and of images is not released, and its formula here is ours.

    Example:
        >>> prompts = Prompts(classes=10, tokens=8, width=96, eps=1e-12)
        >>> sum(p.numel() for p in prompts.parameters()), prompts(torch.tensor([3, 3])).shape
        (1920, torch.Size([2, 8, 96]))
    """

    images: tuple[int, ...]
    """The number of training images of each class that have a vector; empty if none have."""
    _counts: Tensor
    _first: Tensor

    def __init__(
        self,
        classes: int,
        tokens: int,
        width: int,
        eps: float,
        factors: int | None = None,
        hidden: int | None = None,
        images: Sequence[int] = (),
    ) -> None:
        super().__init__()
        inner = hidden or factors or width
        spread = 1.0 if factors else _SPREAD  # products of small numbers would vanish
        self.classes = nn.Parameter(spread * torch.randn(classes, inner))
        self.places = nn.Parameter(spread * torch.randn(tokens, inner))
        self.norm = nn.LayerNorm(width if factors else inner, eps=eps)
        if factors:
            self.class_factors = nn.Linear(inner, factors)
            self.place_factors = nn.Linear(inner, factors)
            self.output = nn.Linear(factors, width)
        elif hidden:
            self.output = nn.Linear(hidden, width)
        self.images = tuple(images)
        if self.images:
            counts = torch.tensor(self.images)
            self.instances = nn.Parameter(torch.zeros(sum(self.images), inner))
            self.register_buffer("_counts", counts, persistent=False)
            self.register_buffer("_first", counts.cumsum(0) - counts, persistent=False)
        self._is_factorized = bool(factors)
        self._has_layer = bool(hidden)

    def forward(self, classes: Tensor, instances: Tensor | None = None) -> Tensor:
        """(rows,) class ids, and numbers of training images in their class -> (rows, S, d)."""
        of_class = self.classes[classes][:, None]  # (rows, 1, inner)
        if self.images:
            of_class = of_class + self._of_instances(classes, instances)[:, None]
        of_place = self.places[None]  # (1, S, inner)
        prompts: Tensor
        if self._is_factorized:
            factors = self.class_factors(gelu(of_class)) * self.place_factors(gelu(of_place))
            prompts = self.norm(self.output(factors))
            return prompts
        prompts = self.norm(of_class + of_place)
        return self.output(prompts) if self._has_layer else prompts

    def _of_instances(self, classes: Tensor, instances: Tensor | None) -> Tensor:
        """(rows, inner): the vectors of images; the mean of the class where the number is -1."""
        class_of = torch.arange(len(self.images), device=classes.device)
        class_of = class_of.repeat_interleave(self._counts)
        sums = torch.zeros_like(self.classes).index_add(0, class_of, self.instances)
        means = (sums / self._counts.clamp(min=1)[:, None])[classes]
        if instances is None:
            return means
        of_images = self.instances[(self._first[classes] + instances).clamp(min=0)]
        return torch.where(instances[:, None] < 0, means, of_images)


def generator_parameters(
    classes: int,
    tokens: int,
    width: int,
    factors: int | None = None,
    hidden: int | None = None,
    images: int = 0,
) -> int:
    """The number of parameters of :class:`Prompts`.

    Args:
        classes: C.
        tokens: S.
        width: d.
        factors: F.
        hidden: h.
        images: N, those that have a vector.

    Returns:
        (C + S + N) d + 2 d; with h: (C + S + N + 2) h + (h + 1) d; with F, and h or F for i:
        (C + S + N) i + 2 (i + 1) F + (F + 1) d + 2 d.

    Example:
        >>> generator_parameters(classes=10, tokens=1, width=96)
        1248
    """
    inner = hidden or factors or width
    tables = (classes + tokens + images) * inner
    if factors:
        return tables + 2 * (inner + 1) * factors + (factors + 1) * width + 2 * width
    return tables + 2 * inner + ((hidden + 1) * width if hidden else 0)
