"""A linear probe: only the task head is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.methods.named_parameters import NamedParameters
from iwlora.sites import Site


class Head(NamedParameters):
    """The new task head is trained on the features of the frozen backbone."""

    name: ClassVar[str] = "head"
    summary: ClassVar[str] = "linear probe: only the task head is trained"
    paper: ClassVar[str] = "Alain and Bengio 2016, arXiv:1610.01644"
    adapts_sites: ClassVar[bool] = False
    not_packable: ClassVar[str | None] = None

    def trained_names(self, model: Any) -> tuple[str, ...]:
        """None: only the task head is trained."""
        return ()

    def check_model(self, model: Any, sites: Sequence[Site]) -> None:
        """The model must have a task head."""
        if not head_modules(model):
            raise IwloraError(
                f"head trains only the task head, and {type(model).__name__} has none; take lora"
            )
