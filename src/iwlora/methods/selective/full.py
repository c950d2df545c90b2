"""Full fine-tuning: every parameter of the model moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.methods.contract import Attached, Method, split_head
from iwlora.results import layout

if TYPE_CHECKING:
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class Full(Method):
    """All weights of the pretrained model and the task head are trained."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "full fine-tuning: every parameter moves"
    paper: ClassVar[str] = "Devlin et al. 2019, arXiv:1810.04805"
    unpackable: ClassVar[str | None] = "packed weights are fixed, and it trains all weights"

    def parameters(self, model: Any, sites: Sequence[Site], size: int | None) -> int:
        """All parameters outside the task head."""
        backbone, _ = split_head(model)
        return sum(model.get_parameter(name).numel() for name in backbone)

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Let everything train; nothing is added to the model."""
        model.requires_grad_(True)
        backbone, head = split_head(model)

        def save(folder: Path) -> None:
            model.save_pretrained(folder / layout.MODEL)

        return Attached(
            model=model,
            adapter=backbone,
            head=head,
            save=save,
            count=lambda: self.parameters(model, sites, size),
        )
