"""The weight of a site, whatever its layer keeps: plain, quantized, offloaded or stacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from iwlora.mixture_of_experts import is_transposed
from iwlora.sites.site import Site, is_conv1d

if TYPE_CHECKING:
    from torch import Tensor, nn


def plain_weight(site: Site) -> nn.Parameter | None:
    """The parameter with the site's weight; None if it is quantized, offloaded or sharded."""
    from torch import nn

    weight = stored_weight(site)
    if type(weight) is not nn.Parameter or not weight.is_floating_point() or weight.is_meta:
        return None
    return weight if weight.numel() == site.size else None


def stored_weight(site: Site) -> Any:
    """What the module keeps as its weight; another shape or type if it is quantized."""
    return getattr(site.layer, site.parameter or "weight", None)


def outputs_first(site: Site, weight: Tensor) -> Tensor:
    """A tensor in the shape of the site's parameter as (..., d_out, d_in).

    >>> from torch import nn
    >>> layer = nn.Conv2d(3, 8, kernel_size=2)
    >>> outputs_first(Site("w", layer, "w", 3 * 2 * 2, 8, 0), layer.weight).shape
    torch.Size([8, 12])
    """
    if site.is_convolution:
        return weight.flatten(1)
    stacked = weight.dim() == 3
    inputs_first = is_transposed(site.layer) if stacked else is_conv1d(site.layer)
    return weight.mT if inputs_first else weight


def dense_weight(site: Site) -> Tensor:
    """The site's weight as a dense (d_out, d_in) tensor, or (experts, d_out, d_in).

    A quantized or offloaded weight is computed from the layer's outputs for the unit vectors. So
    it is the weight that the model computes with, to the precision of these outputs.

    >>> from torch import nn
    >>> dense_weight(Site("w", nn.Linear(3, 2), "w", 3, 2, 0)).shape
    torch.Size([2, 3])
    """
    import torch

    layer: Any = site.layer
    plain = plain_weight(site)
    if plain is not None:
        return outputs_first(site, plain.detach())
    weight = layer.weight
    like = next((p for p in (layer.bias, weight) if p is not None and p.is_floating_point()), None)
    dtype = torch.float32 if like is None else like.dtype
    device = torch.device("cpu") if weight.is_meta else weight.device
    basis = torch.eye(site.d_in, dtype=dtype, device=device)
    with torch.no_grad(), differentiable_weight(layer):
        outputs: Tensor = layer(basis) - layer(torch.zeros_like(basis[:1]))
    return outputs.mT


@contextmanager
def differentiable_weight(layer: nn.Module) -> Iterator[None]:
    """Keep a 4-bit weight in the memory layout that has a backward pass.

    On CPUs with bfloat16 instructions, bitsandbytes changes the layout of 4-bit weights for
    inference, in place, when the layer is not in training mode. ``state_dict()`` undoes that.
    """
    mode = layer.training
    if getattr(layer, "support_avx512bf16_for_cpu", False):
        if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
            layer.state_dict()
        layer.training = True  # has no other effect in this layer
    try:
        yield
    finally:
        layer.training = mode
