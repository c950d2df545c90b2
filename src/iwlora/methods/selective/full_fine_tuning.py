"""Full fine-tuning: every parameter of the model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from iwlora.methods.contract import Attached, seeded, split_head
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

    from_scratch: Annotated[bool, Field(strict=True)] = False
    """Replace all pretrained weights by new random ones first, by ``train.seed``: what the training
    rows alone teach. The head is that of other methods."""

    def trained_names(self, model: Any) -> tuple[str, ...]:
        """All parameters outside the task head."""
        return split_head(model)[0]

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Make every parameter trainable, new ones if asked for; the whole model is saved."""
        attached = super().attach(model, sites, seed)
        if self.from_scratch:
            _draw_again(model, seed)
        return replace(attached, save=lambda folder: model.save_pretrained(folder / layout.MODEL))


def _draw_again(model: Any, seed: int) -> None:
    """Give the backbone of a model of transformers the weights of a new one."""
    import torch

    backbone, _ = split_head(model)
    with seeded(seed):
        new = type(model)._from_config(model.config)
    drawn = {**dict(new.named_parameters()), **dict(new.named_buffers())}
    buffers = [name for name, _ in model.named_buffers()]
    with torch.no_grad():
        for name in (*backbone, *buffers):
            holder, _, attribute = name.rpartition(".")
            getattr(model.get_submodule(holder), attribute).copy_(drawn[name])
