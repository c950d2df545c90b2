"""Kernels that make a step faster without changing what it computes, and a run's precision.

Each kernel relies on details of torch, PEFT or transformers. It is imported only for models and
devices that it is made for, and a version of the library that no longer fits it is warned about
once: the run then takes the library's own path.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from inspect import signature
from typing import Any

import torch
from torch import nn

from iwlora.training.device import resolve_precision, warn_once

# file of the kernel -> where the layers are defined that it speeds up
_LAYER_KERNELS = {"lora": "peft.tuners.lora", "deberta": "transformers.models.deberta_v2"}


class KernelMismatch(Exception):
    """The installed version of a library is not one that the kernel fits."""


@contextmanager
def fast_kernels(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside the block, compute a model's steps with every kernel that fits it, if ``enabled``.

    Args:
        model: its LoRA layers take one pass, its DeBERTa layers score near positions only; on a
            CPU dropout and attention take faster forms.
        enabled: False leaves everything to the libraries.
    """
    with ExitStack() as stack:
        for kernel in _kernels_for(model) if enabled else ():
            stack.enter_context(kernel)
        yield


@contextmanager
def training_numerics(
    model: nn.Module, use_fast_kernels: bool, precision: str, device: torch.device
) -> Iterator[None]:
    """The kernels and the precision of training, for passes that no Trainer makes."""
    bf16 = resolve_precision(precision, device) == "bf16"
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    with fast_kernels(model, use_fast_kernels), autocast:
        yield


def _kernels_for(model: nn.Module) -> Iterator[AbstractContextManager[object]]:
    origins = {type(module).__module__ for module in model.modules()}
    for name, origin in _LAYER_KERNELS.items():
        if any(module.startswith(origin) for module in origins):
            yield _kernel(name, origin.partition(".")[0], model)
    if next(model.parameters()).device.type == "cpu":
        yield _kernel("cpu", "torch", model)


def _kernel(name: str, package: str, model: nn.Module) -> AbstractContextManager[object]:
    """The kernel; or nothing, and a warning, where the package's version does not fit it."""
    try:
        kernel: AbstractContextManager[object]
        kernel = importlib.import_module(f"{__name__}.{name}").kernel(model)
        return kernel
    except (KernelMismatch, ImportError, AttributeError, ValueError) as error:
        warn_once(
            f"the fast kernel {name} does not fit {package} {version(package)} ({error}): the run "
            "takes the ordinary path, which is slower and computes the same"
        )
        return nullcontext()


def check_arguments(function: Callable[..., Any], *names: str) -> None:
    """Raise ``KernelMismatch`` if a library's function takes other arguments than these."""
    arguments = list(signature(function).parameters)
    if arguments != list(names):
        raise KernelMismatch(f"{function.__qualname__} takes {', '.join(arguments)}")


@contextmanager
def replacing_class(
    model: nn.Module, original: type[nn.Module], faster: type[nn.Module]
) -> Iterator[None]:
    """Inside the block, the layers of exactly the original class are of the faster one."""
    layers = [module for module in model.modules() if type(module) is original]
    for layer in layers:
        layer.__class__ = faster
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = original
