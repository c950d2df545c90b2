"""Designs of low-rank updates alone: one adapter of PEFT with a rank for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from iwlora.methods.contract import Attached, ParameterGroup
from iwlora.methods.peft_models import target_name
from iwlora.sites import Site


def attach_low_rank(
    model: Any, updates: Sequence[tuple[Site, Any]], seed: int, lr_factor: float | None
) -> Attached:
    """Attach a low-rank method with the rank of each site, and its scaling, as patterns of PEFT.

    Args:
        model: the model.
        updates: for each site, in the order of the model, the method with its rank.
        seed: the seed of all initial values.
        lr_factor: factor of the learning rate; None: no group of parameters for it.
    """
    # A name that ends with another one comes before it: PEFT takes the first that matches.
    ordered = sorted(updates, key=lambda update: len(target_name(update[0])), reverse=True)
    least = min((method for _, method in ordered), key=lambda method: method.rank)
    patterns: dict[str, Any] = {}
    if any(method.rank != least.rank for _, method in ordered):
        patterns = {
            "rank_pattern": {target_name(site): method.rank for site, method in ordered},
            "alpha_pattern": {target_name(site): method.lora_alpha for site, method in ordered},
        }
    attached: Attached = least.attach_with(model, [site for site, _ in updates], seed, **patterns)
    if lr_factor is None:
        return attached
    return replace(attached, parameter_groups=(ParameterGroup(attached.adapter, lr_factor),))
