"""PEFT's LoRA layers in one pass: no copy of the input, no full-size product for the scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

from iwlora.training.kernels import KernelMismatch, check_arguments, replacing_class
from iwlora.training.kernels.casts import cast

_ATTRIBUTES = (
    *("base_layer", "active_adapters", "disable_adapters", "merged", "scaling"),
    *("lora_A", "lora_B", "lora_dropout", "lora_variant"),
)


def kernel(model: nn.Module) -> AbstractContextManager[object]:
    """Raises ``KernelMismatch`` where PEFT's LoRA layer is another than we know."""
    check_arguments(LoraLinear.forward, "self", "x", "args", "kwargs")
    layers = [module for module in model.modules() if type(module) is LoraLinear]
    missing = [name for name in _ATTRIBUTES if not all(hasattr(layer, name) for layer in layers)]
    if missing:
        raise KernelMismatch(f"a LoRA layer has no {', '.join(missing)}")
    return fused_lora(model)


def fused_lora(model: nn.Module) -> AbstractContextManager[object]:
    """Inside the block, the plain LoRA layers of a model compute in one pass.

    >>> from peft import LoraConfig, get_peft_model
    >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 3)), LoraConfig(target_modules=["0"]))
    >>> x = torch.randn(2, 4)
    >>> with fused_lora(model):
    ...     one_pass = model(x)
    >>> torch.allclose(one_pass, model(x))
    True
    """
    return replacing_class(model, LoraLinear, FusedLoraLinear)


class FusedLoraLinear(LoraLinear):
    """A LoRA layer of PEFT that computes in one pass where it is plain, and as PEFT elsewhere.

    Plain means: one active adapter, not merged, without dropout or a variant such as DoRA, on an
    unquantized ``nn.Linear`` without hooks.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """y = x Wᵀ + b + scaling · (x Aᵀ) Bᵀ."""
        if args or kwargs or not self._is_plain():
            return super().forward(x, *args, **kwargs)
        base: nn.Linear = self.base_layer  # type: ignore[assignment]
        (name,) = self.active_adapters
        A, B = self.lora_A[name].weight, self.lora_B[name].weight
        one_pass = _OnePass.apply(x, base.weight, base.bias, A, B, self.scaling[name])  # type: ignore[no-untyped-call]
        # Here, not in the function: what follows may change a view of autograd's in place only.
        return one_pass.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]

    def _is_plain(self) -> bool:
        base, names = self.base_layer, self.active_adapters
        return (
            type(base) is nn.Linear
            and not (base.weight.requires_grad or base._forward_hooks or base._forward_pre_hooks)
            and not (base._backward_hooks or base._backward_pre_hooks)
            and not (self.disable_adapters or self.merged)
            and len(names) == 1
            and names[0] in self.lora_A
            and names[0] not in self.lora_variant
            and isinstance(self.lora_dropout[names[0]], nn.Identity)
            and self.lora_B[names[0]].bias is None
        )


class _OnePass(torch.autograd.Function):
    """The formula of ``FusedLoraLinear`` and its gradient, for a frozen W and b; y is 2-D.

    With g = ∂L/∂y:  ∂L/∂x = g W + s (g B) A,  ∂L/∂A = s (g B)ᵀ x,  ∂L/∂B = s gᵀ (x Aᵀ).

    Narrow products have the rank as their first dimension, as in A xᵀ: with few columns instead
    of few rows, a CPU takes up to seven times as long.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, A: Tensor, B: Tensor, s: float
    ) -> Tensor:
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
        ctx.scaling, ctx.shape, ctx.dtypes = s, x.shape, (x.dtype, A.dtype, B.dtype)
        x, W, A = x.reshape(-1, x.shape[-1]).to(dtype), cast(W, dtype), A.to(dtype)
        scaled, inner = (B * s).t(), A @ x.t()
        if b is not None:  # one more row; torch.addmm would write b to all of y before the product
            scaled = torch.cat([scaled, b[None]])
            inner = functional.pad(inner, (0, 0, 0, 1), value=1)
        scaled = scaled.to(dtype)
        ctx.save_for_backward(x, W, A, scaled, inner)
        return (x @ W.t()).addmm_(inner.t(), scaled)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, W, A, scaled, inner = ctx.saved_tensors
        of_x, of_a, of_b = ctx.dtypes
        scaled, inner = scaled[: len(A)], inner[: len(A)]
        narrow = scaled @ g.t()
        dx = dA = dB = None
        if ctx.needs_input_grad[0]:
            dx = (g @ W).addmm_(narrow.t(), A).view(ctx.shape).to(of_x)
        if ctx.needs_input_grad[3]:
            dA = (narrow @ x).to(of_a)
        if ctx.needs_input_grad[4]:
            dB = (inner @ g).t().to(of_b) * ctx.scaling
        return dx, None, None, dA, dB, None
