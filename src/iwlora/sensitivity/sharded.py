"""Parameters that FSDP2 spreads over processes: read whole, write back one's own piece."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every process (a collective call); any other tensor as it is.

    Differentiable: each process's gradient reaches the piece that it holds, counted once.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    everywhere = [Replicate()] * tensor.device_mesh.ndim
    return tensor.full_tensor(grad_placements=everywhere)


def piece(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of ``tensor``, which all have alike, when split as ``like`` is."""
    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    full = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return cast(Tensor, full.redistribute(placements=like.placements))
