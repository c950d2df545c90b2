"""Which convolutions have low-rank updates."""

from __future__ import annotations

from typing import Any

from iwlora.sites.site import Site


def not_an_update(site: Site) -> str | None:
    """Why PEFT's LoRA on a site is no update of its weight by a product B A; None if it is one.

    >>> from torch import nn
    >>> not_an_update(Site("w", nn.Conv2d(4, 4, 3, groups=4), "w", 9, 4, 0))
    'they have groups, as depthwise ones have, and the A of PEFT reads all channels for each'
    """
    layer: Any = site.layer
    if not site.is_convolution:
        return None
    if layer.groups > 1:
        return (
            "they have groups, as depthwise ones have, and the A of PEFT reads all channels "
            "for each"
        )
    if {*layer.dilation} != {1}:
        return "they are dilated, and the A of PEFT is not"
    if layer.padding_mode != "zeros":
        return f"they pad by padding_mode={layer.padding_mode!r}, and the A of PEFT with zeros"
    return None
