"""A model sharded over the processes that train it, by FSDP2: each holds a part of every weight.

Only the pretrained model's own parameters are sharded, frozen or trained. What a method adds is
small: every process keeps it whole and its gradients are averaged, so that regularizers, penalties
and pruning see what they see in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from iwlora import distributed
from iwlora.distributed import full_tensor, local_shard
from iwlora.errors import IwloraError
from iwlora.sites import blocks


def shard(model: nn.Module, pretrained: Container[int], device: torch.device) -> None:
    """Shard the pretrained parameters of a model over all processes, in place, onto their devices.

    New parameters of type ``DTensor`` replace them. The weights of a block are whole in a process
    only while it computes with them.

    Args:
        model: the model with its adapter.
        pretrained: ids of the parameters to shard. Ids, because references to the parameters
            would keep them whole in memory.
        device: of this process.
    """
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    added = {parameter for parameter in model.parameters() if id(parameter) not in pretrained}
    for module in (*blocks(model), model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=added)
    for parameter in added:
        parameter.data = parameter.data.to(device)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def is_sharded(model: nn.Module) -> bool:
    """Whether any of the parameters is sharded."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


@contextmanager
def gathered(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Make the named parameters whole in the first process inside the block; a collective call."""
    full: dict[Any, nn.Parameter] = {}
    for parameter in map(model.get_parameter, names):
        if isinstance(parameter, DTensor):
            tensor = full_tensor(parameter.detach())
            if distributed.rank() == 0:
                full[parameter] = nn.Parameter(tensor.cpu(), requires_grad=parameter.requires_grad)
    entries: list[tuple[dict[str, Any], str, Any]] = [
        (module._parameters, key, parameter)
        for module in model.modules()
        for key, parameter in module._parameters.items()
        if parameter in full
    ]
    try:
        for owner, key, parameter in entries:
            owner[key] = full[parameter]
        yield
    finally:
        for owner, key, parameter in entries:
            owner[key] = parameter


def full_parameters(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The values of the named parameters, whole and on the CPU; a collective call."""
    return {name: full_tensor(model.get_parameter(name).detach()).cpu() for name in names}


@torch.no_grad()
def set_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set parameters to these whole values; each process keeps its own shard."""
    for name, value in values.items():
        parameter = model.get_parameter(name)
        parameter.copy_(local_shard(value.to(parameter.device), parameter))


def full_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The ``state_dict`` with whole tensors on the CPU; a collective call."""
    return _map_state(optimizer.state_dict(), lambda _, value: full_tensor(value).cpu())


def shard_optimizer_state(
    optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> dict[str, Any]:
    """This process's shards of a :func:`full_optimizer_state`: a hook before it is loaded.

    Raises ``IwloraError`` for the state of a model that is sharded where this one is not.
    """
    if len(state["param_groups"]) != len(optimizer.param_groups):
        raise IwloraError(
            "the checkpoint was written by another number of processes: its optimizer has "
            f"{len(state['param_groups'])} groups of parameters, this one "
            f"{len(optimizer.param_groups)}; resume with as many processes as the run began with"
        )
    like = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def shard_moment(key: int, value: Tensor) -> Tensor:
        return local_shard(value, like[key]) if value.shape == like[key].shape else value

    return _map_state(state, shard_moment)


def _map_state(state: dict[str, Any], change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
    """The state of an optimizer, each tensor changed; ``change`` takes the parameter's number."""
    moments = {
        key: {
            name: change(key, value) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for key, values in state["state"].items()
    }
    return {**state, "state": moments}
