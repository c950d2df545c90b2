"""A low-rank update of a matrix, as methods declare it and penalties read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LowRankPair:
    """A low-rank update Δ = scaling · B A, with A of shape (..., r, d_in), B (..., d_out, r).

    A layer may keep its factors in other shapes, as a convolution does. Then ``shape_A`` and
    ``shape_B`` are the shapes of the matrices; gradients have the shapes of the layer's factors.
    The update of ``experts`` matrices is kept as PEFT keeps it: A is (experts · r, d_in), ordered
    by expert, and B is (d_out, r · experts), ordered by rank.
    """

    name: str
    A: Tensor
    B: Tensor
    scaling: float = 1.0
    shape_A: tuple[int, ...] | None = None
    shape_B: tuple[int, ...] | None = None
    experts: int = 1

    @property
    def rank(self) -> int:
        """r, of each expert."""
        return self.matrices()[0].shape[-2]

    def matrices(self) -> tuple[Tensor, Tensor]:
        """(A, B) in the shapes of a matrix product; views, so gradients reach the parameters."""
        if self.experts > 1:
            return self.A.reshape(self.experts, -1, self.A.shape[-1]), self.matrix_B(self.B)
        A = self.A if self.shape_A is None else self.A.reshape(self.shape_A)
        return A, self.matrix_B(self.B)

    def matrix_B(self, B: Tensor) -> Tensor:
        """A tensor in the shape of the layer's B as (..., d_out, r)."""
        if self.experts > 1:
            return B.reshape(len(B), -1, self.experts).movedim(-1, 0)
        return B if self.shape_B is None else B.reshape(self.shape_B)

    def layer_factors(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """(A, B) in the shapes of :meth:`matrices` in the shapes of the layer's factors.

        >>> import torch
        >>> A, B = torch.arange(12.0).view(4, 3), torch.arange(20.0).view(5, 4)
        >>> pair = LowRankPair("w", A, B, experts=2)
        >>> [torch.equal(*same) for same in zip(pair.layer_factors(*pair.matrices()), (A, B))]
        [True, True]
        """
        if self.experts > 1:
            B = B.movedim(0, -1)
        return A.reshape(self.A.shape), B.reshape(self.B.shape)
