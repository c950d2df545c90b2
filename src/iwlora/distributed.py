"""What several processes need: ``torch.distributed`` where it is initialized, else one process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from iwlora.errors import IwloraError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Result = TypeVar("Result")
Item = TypeVar("Item")


def _is_initialized() -> bool:
    """Whether this process is one of a ``torch.distributed`` process group."""
    if "torch.distributed" not in sys.modules:  # so it cannot have joined one
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """The number of processes."""
    if not _is_initialized():
        return 1
    from torch import distributed

    return distributed.get_world_size()


def rank() -> int:
    """The rank of this process, from 0."""
    if not _is_initialized():
        return 0
    from torch import distributed

    return distributed.get_rank()


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        from torch import distributed

        distributed.barrier()


def split_between_processes(items: Iterable[Item]) -> Iterator[Item]:
    """This process's share of items that all processes have: every ``world_size()``-th.

    >>> list(split_between_processes("abc"))
    ['a', 'b', 'c']
    """
    return islice(items, rank(), None, world_size())


def run_on_main_process(function: Callable[[], Result]) -> Result:
    """Call a function in process 0 and return its result in every process.

    Raises:
        IwloraError: in every process, if the function raises one in process 0.

    Example:
        >>> run_on_main_process(lambda: 3)
        3
    """
    if world_size() == 1:
        return function()
    from torch import distributed

    result_and_error: list[Any] = [None, None]
    if rank() == 0:
        try:
            result_and_error[0] = function()
        except IwloraError as error:
            result_and_error[1] = error
    distributed.broadcast_object_list(result_and_error)
    if result_and_error[1] is not None:
        raise result_and_error[1]
    result: Result = result_and_error[0]
    return result


def sum_over_processes(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum of the tensors of all processes, by one all-reduce.

    ``device`` is where the process group communicates; gloo communicates on the CPU.

    >>> import torch
    >>> sum_over_processes(torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    if world_size() == 1:
        return tensor
    from torch import distributed

    total = tensor.to("cpu" if distributed.get_backend() == "gloo" else device, copy=True)
    distributed.all_reduce(total)
    return total


def gather_rows(row: list[float] | None, width: int, device: torch.device) -> list[list[float]]:
    """The rows of all processes in order of rank, by one all-reduce.

    A process without a row passes None, and its row is left out.

    >>> import torch
    >>> gather_rows([1.0, 2.0], width=2, device=torch.device("cpu"))
    [[1.0, 2.0]]
    """
    import torch

    table = torch.zeros(world_size(), width + 1, dtype=torch.float64)
    if row is not None:
        table[rank()] = torch.tensor([1.0, *row], dtype=torch.float64)
    return [row for present, *row in sum_over_processes(table, device).tolist() if present]


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process holds only a part of the tensor, as with FSDP2."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor in every process (a collective call); others unchanged.

    Differentiable: the gradient of each process reaches the shard that it holds, counted once.
    """
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.full_tensor(grad_placements=[Replicate()] * tensor.device_mesh.ndim)


def local_shard(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor``, which every process has, sharded as ``like`` is; unchanged if that is not."""
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    replicated = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return cast("Tensor", replicated.redistribute(placements=like.placements))
