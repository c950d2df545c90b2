"""The base of methods that train parameters of the model itself, without PEFT's wrapper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from iwlora.methods.contract import (
    Attached,
    Method,
    check_unattached,
    mark_attached,
    seeded,
    split_head,
    train_only,
)
from iwlora.methods.saving import save_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import nn


class NamedParameters(Method):
    """Base of methods that train the head and some parameters of the model, by their names."""

    def trained_names(self, model: Any) -> tuple[str, ...]:
        """Names of the trained parameters outside the head."""
        raise NotImplementedError

    def insert(self, model: Any, sites: Sequence[Site]) -> list[nn.Parameter]:
        """Add new modules, by default none; returns what trains outside the head."""
        return [model.get_parameter(name) for name in self.trained_names(model)]

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """The sum of the sizes of the trained parameters outside the head."""
        return sum(model.get_parameter(name).numel() for name in self.trained_names(model))

    def trained_modules(self, model: Any, sites: Sequence[Site]) -> Sequence[str] | None:
        """The adapted sites and the trained parameters."""
        adapted = [site.name for site in sites] if self.adapts_sites else []
        return [*adapted, *self.trained_names(model)]

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Insert what trains, and freeze everything except it and the head."""
        check_unattached(model)
        self.check_model(model, sites)
        self.check(sites)
        return attach_inserted(self, model, sites, seed, lambda: self.insert(model, sites))


def attach_inserted(
    method: Method,
    model: Any,
    sites: Sequence[Site],
    seed: int,
    insert: Callable[[], Iterable[nn.Parameter]],
) -> Attached:
    """Insert what trains, freeze everything except it and the head, and save parameters by name.

    Args:
        method: the method as it is saved, whose ``attach`` needs no sensitivity.
        model: the model, to which no method is attached.
        sites: the adapted matrices.
        seed: the seed of all initial values.
        insert: puts what trains into the model, and returns it without the head.
    """
    _, head = split_head(model)  # new modules inside it are not part of it
    with seeded(seed):
        adapter = parameter_names(model, insert())
    train_only(model, adapter + head)
    mark_attached(model, method.name)
    return Attached(
        model=model,
        adapter=adapter,
        head=head,
        save=partial(save_parameters, method, model, adapter + head, sites),
        count=lambda: sum(model.get_parameter(name).numel() for name in adapter),
    )


def parameter_names(model: nn.Module, parameters: Iterable[nn.Parameter]) -> tuple[str, ...]:
    """The names of these parameters in the model, in the order given."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return tuple(names[id(parameter)] for parameter in parameters)
