"""Layers of a joint model: the frozen weights once, the trained parameters of each run on its rows.

``joint_layer`` makes one from the same layer of several runs. What is frozen and equal in all of
them is computed once; linear layers with LoRA, with trained weights or with trained biases, and
normalizations with trained biases, are stacked; whatever else a run trains is computed by its own
layer on its own rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from iwlora.training.packed.randomness import OwnRandomness
from iwlora.training.packed.shares import NotPackable, Shares


class Pass:
    """What all layers of a joint model need to know of the pass that is being computed."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.randomness: OwnRandomness | None = None

    def alone(self, run: int) -> Any:
        """A block in which one run computes on its own rows, with its own random numbers."""
        assert self.randomness is not None
        return self.randomness.alone(run)


def trained_copy(module: nn.Module) -> nn.Module:
    """The module itself, or the copy of it that PEFT trains."""
    if isinstance(module, ModulesToSaveWrapper):
        copied = module.modules_to_save[module.active_adapters[0]]
        assert isinstance(copied, nn.Module)
        return copied
    return module


def without_adapter(module: nn.Module) -> nn.Module:
    """The module that an adapter or PEFT's wrapper stands for."""
    module = trained_copy(module)
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    assert isinstance(base, nn.Module)
    return base


def frozen_tensors(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module, str]]:
    """(name in the plain model, its module, its name there) of all that does not train."""
    module = without_adapter(module)
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is not None and not tensor.requires_grad:
            yield f"{prefix}{name}", module, name
    for name, child in module._modules.items():
        if child is not None:
            yield from frozen_tensors(child, f"{prefix}{name}.")


def joint_layer(modules: Sequence[nn.Module], joint: Pass) -> nn.Module:
    """One layer for the rows of all runs, from the layer of each."""
    modules = [trained_copy(module) for module in modules]
    first = modules[0]
    if not any(map(_is_own, modules)) and _same_tensors(modules):
        return first
    linear = [part for module in modules if (part := _Linear.of(module)) is not None]
    if len(linear) == len(modules) and len({part.shape for part in linear}) == 1:
        return JointLinear(modules, linear, joint)
    if all(type(module) is nn.LayerNorm for module in modules):
        return JointLayerNorm(modules, joint)
    children = [list(module._modules) for module in modules]
    alike = all(type(m) is type(first) for m in modules) and _same_own_parameters(modules)
    if alike and children[0] and all(names == children[0] for names in children):
        return _with_joint_children(modules, joint)
    return EachAlone(modules, joint)


def _with_joint_children(modules: Sequence[nn.Module], joint: Pass) -> nn.Module:
    layer = copy.copy(modules[0])
    vars(layer).pop("forward", None)  # what a Trainer or a pack put in place of the class's own
    layer._modules = {
        name: child and joint_layer([m._modules[name] or child for m in modules], joint)
        for name, child in modules[0]._modules.items()
    }
    return layer


def _is_own(module: nn.Module) -> bool:
    """Whether a run has something of its own in a module: an adapter, or what trains."""
    return any(isinstance(m, (BaseTunerLayer, ModulesToSaveWrapper)) for m in module.modules()) or (
        any(parameter.requires_grad for parameter in module.parameters())
    )


def _same_own_parameters(modules: Sequence[nn.Module]) -> bool:
    """Whether all share their own parameters, as the scales of ConvNeXt's and BEiT's blocks."""
    return all(
        all(parameter is None for parameter in of_name) or _shared(of_name)
        for name in modules[0]._parameters
        for of_name in [[module._parameters.get(name) for module in modules]]
    )


def _same_tensors(modules: Sequence[nn.Module]) -> bool:
    first, *others = [[*m.parameters(), *m.buffers()] for m in modules]
    return all(
        len(first) == len(other)
        and all(a.data_ptr() == b.data_ptr() for a, b in zip(first, other, strict=True))
        for other in others
    )


@dataclass(frozen=True)
class _Linear:
    """A linear layer in its parts: W of shape (d_out, d_in), b, and scaling · B A."""

    base: nn.Module
    transposed: bool
    A: Tensor | None = None
    B: Tensor | None = None
    scaling: float = 0.0
    dropout: nn.Module | None = None

    @classmethod
    def of(cls, module: nn.Module) -> _Linear | None:
        """The parts; None for a layer that is not linear, or not in these parts."""
        if type(module) in (nn.Linear, Conv1D):
            return cls(module, type(module) is Conv1D)
        if not isinstance(module, LoraLinear) or module.merged or module.disable_adapters:
            return None
        base, names = module.get_base_layer(), module.active_adapters
        if type(base) not in (nn.Linear, Conv1D) or len(names) != 1:
            return None
        (name,) = names
        if name not in module.lora_A:
            return cls(base, type(base) is Conv1D)
        if name in module.lora_variant or module.lora_B[name].bias is not None:
            return None
        A, B = module.lora_A[name].weight, module.lora_B[name].weight
        assert isinstance(A, Tensor)
        assert isinstance(B, Tensor)
        scaling, dropout = float(module.scaling[name]), module.lora_dropout[name]
        return cls(base, type(base) is Conv1D, A, B, scaling, dropout)

    @property
    def weight(self) -> Tensor:
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight.t() if self.transposed else weight

    @property
    def bias(self) -> Tensor | None:
        bias = self.base.bias
        return bias if isinstance(bias, Tensor) else None

    @property
    def shape(self) -> tuple[Any, ...]:
        return (*self.weight.shape, self.weight.dtype, self.bias is None)

    @property
    def p(self) -> float:
        """The probability of LoRA's dropout now."""
        layer = self.dropout
        return layer.p if isinstance(layer, nn.Dropout) and layer.training else 0.0


class EachAlone(nn.Module):
    """The layer of each run on its own rows."""

    def __init__(self, modules: Sequence[nn.Module], joint: Pass) -> None:
        super().__init__()
        self._layers, self._joint = tuple(modules), joint  # a tuple: they stay modules of the runs

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The outputs of all runs, in the order of their rows."""
        if args or any(value is not None for value in kwargs.values()):
            raise NotPackable(f"a {type(self._layers[0]).__name__} trains and has several inputs")
        shares, parts = self._joint.shares, []
        for run, layer in enumerate(self._layers):
            with self._joint.alone(run):
                part = layer(shares.own(run, x))
            if not isinstance(part, Tensor):
                raise NotPackable(f"a {type(layer).__name__} trains and has several outputs")
            parts.append(part)
        return shares.joined(parts)


class JointLinear(nn.Module):
    """y = x Wᵀ + b_i + scaling_i · (x A_iᵀ) B_iᵀ on the rows of run i; W_i where W trains."""

    def __init__(self, modules: Sequence[nn.Module], parts: Sequence[_Linear], joint: Pass) -> None:
        super().__init__()
        self._parts, self._joint = tuple(parts), joint
        self._each = (EachAlone(modules, joint),)
        first = parts[0]
        self._same_weight = _shared([part.weight for part in parts])
        self._same_bias = first.bias is None or _shared([part.bias for part in parts])
        self._has_lora = any(part.A is not None for part in parts)
        self._rank = max((part.A.shape[0] for part in parts if part.A is not None), default=0)

    @property
    def weight(self) -> Tensor:
        """The first run's W, whose type models ask for."""
        return self._parts[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ..., d_out) from (rows, ..., d_in)."""
        parts, runs = self._parts, len(self._parts)
        if not self._joint.shares.equal or x.shape[0] != self._joint.shares.rows:
            y: Tensor = self._each[0](x)
            return y
        first, x_n = parts[0], x.reshape(runs, -1, x.shape[-1])
        if self._same_weight:
            y = functional.linear(x, first.weight, first.bias if self._same_bias else None)
            y = y.reshape(runs, -1, y.shape[-1])
        else:
            y = torch.bmm(x_n, torch.stack([part.weight for part in parts]).mT)
        if not (self._same_weight and self._same_bias) and first.bias is not None:
            bias = torch.stack([part.bias for part in parts if part.bias is not None])
            y = y + bias[:, None].to(y.dtype)  # which autocast may have made half as wide
        if self._has_lora:
            y = self._with_updates(y, x, x_n)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _with_updates(self, y: Tensor, x: Tensor, x_n: Tensor) -> Tensor:
        p = [part.p for part in self._parts]
        if any(p):
            assert self._joint.randomness is not None
            x_n = self._joint.randomness.drop_out(x, p).reshape(x_n.shape)
        A = torch.stack([self._factor(part, part.A, 0) for part in self._parts])
        B = torch.stack([self._factor(part, part.B, 1) for part in self._parts])
        scaling = B.new_tensor([part.scaling for part in self._parts])
        return torch.baddbmm(y, torch.bmm(x_n, A.mT), (B * scaling[:, None, None]).mT)

    def _factor(self, part: _Linear, factor: Tensor | None, axis: int) -> Tensor:
        """A (axis 0 the rank) or B (axis 1) with zeros up to the largest rank."""
        if factor is None:
            width = part.weight.shape[1 - axis]
            shape = (self._rank, width) if axis == 0 else (width, self._rank)
            return part.weight.new_zeros(shape, dtype=self._dtype())
        lacking = self._rank - factor.shape[axis]
        pads = (0, 0, 0, lacking) if axis == 0 else (0, lacking)
        return functional.pad(factor, pads) if lacking else factor

    def _dtype(self) -> torch.dtype:
        return next(part.A.dtype for part in self._parts if part.A is not None)


class JointLayerNorm(nn.Module):
    """Layer normalization with the weight and the bias of each run."""

    def __init__(self, modules: Sequence[Any], joint: Pass) -> None:
        super().__init__()
        self._layers, self._joint = tuple(modules), joint
        self._each = (EachAlone(modules, joint),)

    def forward(self, x: Tensor) -> Tensor:
        """The normalized rows."""
        if not self._joint.shares.equal or x.shape[0] != self._joint.shares.rows:
            y: Tensor = self._each[0](x)
            return y
        first = self._layers[0]
        y = functional.layer_norm(x, first.normalized_shape, eps=first.eps)
        y = y.reshape(len(self._layers), -1, x.shape[-1])
        if first.weight is not None:
            y = y * torch.stack([layer.weight for layer in self._layers])[:, None]
        if first.bias is not None:
            y = y + torch.stack([layer.bias for layer in self._layers])[:, None]
        return y.reshape(x.shape)


def _shared(tensors: Sequence[Tensor | None]) -> bool:
    """Whether all are one frozen tensor."""
    return all(t is not None and not t.requires_grad for t in tensors) and (
        len({t.data_ptr() for t in tensors if t is not None}) == 1
    )
