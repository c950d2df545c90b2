"""The task head alone: a linear probe of the frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.methods.adapter_files import save_declared
from iwlora.methods.contract import Attached, Method, split_head, train_only
from iwlora.sites import head_modules

if TYPE_CHECKING:
    from torch import nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class Head(Method):
    """Linear probe: the new task head is trained on the features of the frozen backbone."""

    name: ClassVar[str] = "head"
    summary: ClassVar[str] = "linear probe: the task head alone is trained"
    paper: ClassVar[str] = "Alain and Bengio 2016, arXiv:1610.01644"

    def parameters(self, model: nn.Module, sites: Sequence[Site], size: int | None) -> int:
        """None beside the task head."""
        return 0

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """There must be a task head."""
        if not head_modules(model):
            raise IwloraError(
                f"head trains the task head alone, and {type(model).__name__} has none; take lora"
            )

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Freeze the backbone; nothing is added to the model."""
        self.check_model(model, sites)
        _, head = split_head(model)
        train_only(model, head)
        return Attached(
            model=model,
            adapter=(),
            head=head,
            save=partial(save_declared, self, model, head, sites, None),
            count=lambda: 0,
        )
