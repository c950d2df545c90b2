"""The processes that work together: ``torch.distributed`` where it is initialised, else one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Replicate

from iwlora.errors import IwloraError

Result = TypeVar("Result")
Item = TypeVar("Item")


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def count() -> int:
    """How many there are."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """The place of this one among them, from 0."""
    return distributed.get_rank() if _together() else 0


def own(items: Iterable[Item]) -> Iterator[Item]:
    """This process's part of what all of them have: every ``count()``-th, from ``rank()`` on.

    >>> list(own("abc"))
    ['a', 'b', 'c']
    """
    return islice(items, rank(), None, count())


def wait() -> None:
    """Until every process is here."""
    if count() > 1:
        distributed.barrier()


def by_first(work: Callable[[], Result]) -> Result:
    """What ``work`` gives in the first process, in all of them; so is its ``IwloraError``.

    >>> by_first(lambda: 3)
    3
    """
    if count() == 1:
        return work()
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = work()
        except IwloraError as error:
            told[1] = error
    distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    result: Result = told[0]
    return result


def summed(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum of the tensors of all processes, by one all-reduce, where ``device`` can take part.

    >>> summed(torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    if count() == 1:
        return tensor
    total = tensor.to("cpu" if distributed.get_backend() == "gloo" else device, copy=True)
    distributed.all_reduce(total)
    return total


def rows(row: list[float] | None, width: int, device: torch.device) -> list[list[float]]:
    """The rows of all processes in order of rank, by one all-reduce; absent ones are left out.

    >>> rows([1.0, 2.0], width=2, device=torch.device("cpu"))
    [[1.0, 2.0]]
    """
    table = torch.zeros(count(), width + 1, dtype=torch.float64)
    if row is not None:
        table[rank()] = torch.tensor([1.0, *row], dtype=torch.float64)
    return [row for present, *row in summed(table, device).tolist() if present]


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
