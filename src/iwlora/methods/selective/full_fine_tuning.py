"""Full fine-tuning: every parameter of the model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from iwlora.methods.contract import Attached, split_head
from iwlora.methods.named_parameters import NamedParameters
from iwlora.results import layout
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site


class Full(NamedParameters):
    """All weights of the pretrained model and the task head are trained."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "full fine-tuning: every parameter is trained"
    paper: ClassVar[str] = "Devlin et al. 2019, arXiv:1810.04805"
    adapts_sites: ClassVar[bool] = False
    not_quantizable: ClassVar[str | None] = "it trains all weights, and 4-bit weights cannot change"
    no_token_training: ClassVar[str | None] = None

    def trained_names(self, model: Any) -> tuple[str, ...]:
        """All parameters outside the task head."""
        return split_head(model)[0]

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Make every parameter trainable; the whole model is saved."""
        attached = super().attach(model, sites, seed)
        return replace(attached, save=lambda folder: model.save_pretrained(folder / layout.MODEL))
