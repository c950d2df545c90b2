"""Which layers the forward pass calls: an adapter on any other layer has no effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from iwlora.sites import Site, differentiable_weight, used_by_kernels


@torch.no_grad()
def uncalled_sites(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any],
) -> list[Site]:
    """The sites whose layer the forward pass does not call.

    PEFT's adapters compute when their layer is called. Where the model does not use a layer, or
    uses its weight without calling it, an adapter has no effect. The passes are made as for
    predictions, in evaluation mode and without gradients. They end when every layer was called. A
    layer of which there are several, one of which was called, such as an expert, counts as called;
    one whose weight the model's CUDA kernels use without calling it does not.

    Args:
        model: the model, before an adapter is attached.
        sites: the sites to check.
        batches: what ``forward`` takes; on the CPU or on the model's device.
        forward: ``forward(model, batch)`` makes a forward pass.

    Returns:
        The sites that no pass called, in the order of ``sites``.

    Example:
        >>> model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        >>> both = [Site(str(i), layer, "w", 2, 2, i, str(i)) for i, layer in enumerate(model)]
        >>> forward = lambda model, x: model[1](x)
        >>> [site.name for site in uncalled_sites(model, both, [torch.ones(1, 2)], forward)]
        ['0']
    """
    called: set[nn.Module] = set()
    layers = {site.layer for site in sites}
    device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(_evaluation_mode(model))
        for layer in layers:
            stack.enter_context(differentiable_weight(layer))
            stack.enter_context(_recording_calls(layer, called))
        for batch in batches:
            forward(model, send_to_device(batch, device))
            if called == layers:
                break
    roles = {_role(site) for site in sites if site.layer in called}
    return [
        site
        for site in sites
        if used_by_kernels(model, site) or not (site.layer in called or _role(site) in roles)
    ]


def _role(site: Site) -> tuple[str, str]:
    """The block, and the path inside it without the numbers that members of a list have."""
    inside = site.name.removeprefix(f"{site.block}.")
    return site.block, re.sub(r"\b\d+\b", "*", inside)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _recording_calls(layer: nn.Module, called: set[nn.Module]) -> Iterator[None]:
    """Add the layer to ``called`` when it is called.

    A hook would not do: ``nn.TransformerEncoderLayer`` has a fast path that calls no linear layer,
    and it does not take that path when there are hooks.
    """
    forward, own = layer.forward, vars(layer).get("forward")

    def recorded(*args: Any, **kwargs: Any) -> Any:
        called.add(layer)
        return forward(*args, **kwargs)

    layer.forward = recorded
    try:
        yield
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own
