"""What makes a step quick without changing what it computes: precision and kernels of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from iwlora.training.kernels.cpu import FastCpu
from iwlora.training.kernels.deberta import near_positions
from iwlora.training.kernels.lora import fused


@contextmanager
def fast_kernels(model: nn.Module, wanted: bool) -> Iterator[None]:
    """If ``wanted``, LoRA in one pass, near positions in DeBERTa, quick dropout and attention on
    a CPU."""
    with ExitStack() as stack:
        if wanted:
            stack.enter_context(fused(model))
            stack.enter_context(near_positions(model))
            stack.enter_context(FastCpu())
        yield


@contextmanager
def as_trained(
    model: nn.Module, fast: bool, precision: str, device: torch.device
) -> Iterator[None]:
    """The kernels and the precision of training, for passes that no Trainer makes."""
    half = resolve_precision(precision, device) == "bf16"
    with fast_kernels(model, fast), torch.autocast(device.type, torch.bfloat16, enabled=half):
        yield


def resolve_precision(wanted: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; of ``auto``, bf16 where the device multiplies it in hardware.

    >>> resolve_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        # PyTorch has no public question for this in the versions that are supported.
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native else "fp32"
    return "fp32"
