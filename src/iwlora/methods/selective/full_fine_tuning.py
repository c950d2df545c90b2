"""Full fine-tuning: every parameter of the model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from iwlora.methods.contract import Attached, Method, split_head
from iwlora.results import layout
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site


class Full(Method):
    """All weights of the pretrained model and the task head are trained."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "full fine-tuning: every parameter is trained"
    paper: ClassVar[str] = "Devlin et al. 2019, arXiv:1810.04805"
    not_quantizable: ClassVar[str | None] = "it trains all weights, and 4-bit weights cannot change"

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """All parameters outside the task head."""
        backbone, _ = split_head(model)
        return sum(model.get_parameter(name).numel() for name in backbone)

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Make every parameter trainable; nothing is added to the model."""
        model.requires_grad_(True)
        backbone, head = split_head(model)

        def save(folder: Path) -> None:
            model.save_pretrained(folder / layout.MODEL)

        return Attached(
            model=model,
            adapter=backbone,
            head=head,
            save=save,
            count=lambda: self.parameters(model, sites),
        )
