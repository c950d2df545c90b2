"""A linear probe: only the task head is trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.methods.contract import Attached, Method, split_head, train_only
from iwlora.methods.saving import save_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site, head_modules

if TYPE_CHECKING:
    from torch import nn


class Head(Method):
    """The new task head is trained on the features of the frozen backbone."""

    name: ClassVar[str] = "head"
    summary: ClassVar[str] = "linear probe: only the task head is trained"
    paper: ClassVar[str] = "Alain and Bengio 2016, arXiv:1610.01644"

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """0: only the task head is trained."""
        return 0

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """The model must have a task head."""
        if not head_modules(model):
            raise IwloraError(
                f"head trains only the task head, and {type(model).__name__} has none; take lora"
            )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Freeze the backbone; nothing is added to the model."""
        self.check_model(model, sites)
        _, head = split_head(model)
        train_only(model, head)
        return Attached(
            model=model,
            adapter=(),
            head=head,
            save=partial(save_parameters, self, model, head, sites),
            count=lambda: 0,
        )
