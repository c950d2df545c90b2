"""The optimizer's groups of parameters: the Trainer's, split as the method says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iwlora.methods.contract import Attached, ParameterGroup

_REST = ParameterGroup(())


def split_groups(groups: Sequence[dict[str, Any]], attached: Attached) -> list[dict[str, Any]]:
    """Each group of an optimizer, in one part for each of the method's groups, none of them empty.

    Args:
        groups: as in ``Optimizer.param_groups``.
        attached: the method on its model, with its groups.
    """
    get, methods = attached.model.get_parameter, attached.groups()
    kinds = sorted((_REST, *methods), key=lambda kind: kind.lr_factor)
    own = {get(name): group for group in methods for name in group.names}
    parts = [
        (group, kind, [p for p in group["params"] if own.get(p, _REST) is kind])
        for group in groups
        for kind in kinds
    ]
    return [
        {
            **group,
            "params": parameters,
            "lr": kind.lr_factor * group["lr"],
            "weight_decay": (
                group["weight_decay"] if kind.weight_decay is None else kind.weight_decay
            ),
        }
        for group, kind, parameters in parts
        if parameters
    ]
