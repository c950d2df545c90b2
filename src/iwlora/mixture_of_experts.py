"""The weights of mixtures of experts: stacked experts, routers, and how many tokens experts see.

transformers keeps the matrices of all experts of a block in one parameter of shape
(experts, d_out, d_in) or (experts, d_in, d_out). A router has a matrix with one row for each
expert. The model uses most of these weights without calling a linear layer. So they are measured
and adapted as parameters of their modules.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Children that choose experts, or that weigh a shared expert, in a module that has experts.
_ROUTERS = re.compile(r"(\w+_)?(gate|router)")
# What modules of experts are called; the second in the first versions of transformers 5.
_EXPERTS = re.compile(r"Expert|NaiveMoe")
# Modules that compute x W with W of shape (experts, d_in, d_out), without transformers' field
# ``is_transposed``.
_TRANSPOSED = ("Llama4TextExperts",)


def expert_weights(module: nn.Module) -> list[str]:
    """Names of the parameters that stack the matrices of all experts of a module.

    Raises:
        IwloraError: they are quantized, so that they have no gradient.
    """
    if not _EXPERTS.search(type(module).__name__):
        return []
    # While PEFT computes with an adapted weight, the module has it under ``parametrizations``.
    names = [name for name, p in module._parameters.items() if p is not None and p.dim() == 3]
    for name in names:
        if not module.get_parameter(name).is_floating_point():
            raise IwloraError(
                f"the experts of {type(module).__name__}.{name} are quantized "
                f"({module.get_parameter(name).dtype}) and have no gradient; load the model with "
                "dequantized experts, such as a bfloat16 checkpoint"
            )
    return names


def is_transposed(module: nn.Module) -> bool:
    """Whether the stacked weights have the shape (experts, d_in, d_out)."""
    by_class = type(module).__name__ in _TRANSPOSED
    return bool(getattr(module, "is_transposed", by_class))


def routers(model: nn.Module) -> set[nn.Module]:
    """The modules with a matrix ``weight`` that choose experts, or weigh a shared expert.

    >>> from transformers import MixtralConfig, MixtralModel
    >>> config = MixtralConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...                        num_key_value_heads=2, intermediate_size=16, vocab_size=10)
    >>> [type(router).__name__ for router in routers(MixtralModel(config))]
    ['MixtralTopKRouter']
    """
    return {router for module in model.modules() for router in _routers_of(module)}


def count_routed_tokens(
    module: nn.Module, experts: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:
    """How many tokens each expert gets in a call of a module with stacked experts.

    Padding counts, because the model computes it too.

    Args:
        module: the module.
        experts: the number of experts.
        args: the positional arguments of the call: hidden states and the index of the experts of
            each token, of shape (tokens, experts per token); hidden states sorted by expert and
            the number of tokens of each expert; or the hidden states of all tokens for each
            expert, which are 0 where the token is not for the expert.
        kwargs: the keyword arguments of the call.

    Returns:
        The numbers, of shape (experts,).
    """
    import torch
    from torch import Tensor

    values = inspect.signature(module.forward).bind(*args, **kwargs).arguments.values()
    for value in values:
        if isinstance(value, Tensor) and not value.is_floating_point():
            return torch.bincount(value.flatten(), minlength=experts)[:experts]
        if isinstance(value, list) and len(value) == experts:
            return torch.tensor(value)
    hidden = next(value for value in values if isinstance(value, Tensor))
    return (hidden.reshape(experts, -1, hidden.shape[-1]) != 0).any(dim=-1).sum(dim=-1)


def _routers_of(module: nn.Module) -> Iterator[nn.Module]:
    children = {name: _base(child) for name, child in module.named_children()}
    if "experts" not in children and not any(map(expert_weights, children.values())):
        return
    for name, child in children.items():
        if _ROUTERS.fullmatch(name):
            for router in (child, *map(_base, child.children())):
                weight = router._parameters.get("weight")
                if weight is not None and weight.dim() == 2 and not _is_read_by_its_parent(router):
                    yield router


def _is_read_by_its_parent(router: nn.Module) -> bool:
    """Whether a router has buffers that it does not use itself, so that nothing may wrap it.

    So it is with DeepSeek-V3 types in the first versions of transformers 5.
    """
    names = list(router._buffers)
    return bool(names) and not all(
        name in inspect.getsource(type(router).forward) for name in names
    )


def _base(module: nn.Module) -> nn.Module:
    """The module itself, or that inside an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: nn.Module = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return base
