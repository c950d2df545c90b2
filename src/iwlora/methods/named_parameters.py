"""The base of methods that train parameters of the model itself, without PEFT's wrapper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from iwlora.methods.contract import Attached, Method, split_head, train_only
from iwlora.methods.saving import save_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site


class NamedParameters(Method):
    """Base of methods that train the head and some parameters of the model, by their names."""

    def trained_names(self, model: Any) -> tuple[str, ...]:
        """Names of the trained parameters outside the head."""
        raise NotImplementedError

    def add_modules(self, model: Any, sites: Sequence[Site], seed: int) -> None:
        """Add new modules to the model; by default none."""

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """The sum of the sizes of the trained parameters outside the head."""
        return sum(model.get_parameter(name).numel() for name in self.trained_names(model))

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Add the new modules, and freeze everything except the trained parameters and the head."""
        self.check_model(model, sites)
        self.check(sites)
        _, head = split_head(model)  # new modules inside it are not part of it
        self.add_modules(model, sites, seed)
        adapter = self.trained_names(model)
        train_only(model, adapter + head)
        return Attached(
            model=model,
            adapter=adapter,
            head=head,
            save=partial(save_parameters, self, model, adapter + head, sites),
            count=lambda: sum(model.get_parameter(name).numel() for name in adapter),
        )
