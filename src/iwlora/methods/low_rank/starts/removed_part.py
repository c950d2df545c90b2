"""LoRA that starts from a product B₀ A₀ which is removed from the frozen weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.saving import save_as_lora
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import Tensor


class RemovedPart(Lora):
    """Base of PiSSA, LoRA-GA and CorDA: W − s B₀ A₀ is frozen, and B A starts as B₀ A₀.

    The update is Δ = s (B A − B₀ A₀). It is saved as plain LoRA of rank 2r for the original
    backbone, [B, −B₀] [A; A₀]. A₀ and B₀ do not train, so only the trained parameters,
    r Σ_k (d_in + d_out), are counted: half of those in the file.
    """

    not_for_parameters: ClassVar[str | None] = "PEFT changes the weights of layers only"
    not_for_convolutions: ClassVar[str | None] = "the method starts from linear layers only"
    not_packable: ClassVar[str | None] = "it removes a part of the frozen weights of each run"
    identity_at_init: ClassVar[bool] = False  # equal up to the rounding of W − BA + BA
    saved_as_other_ranks: ClassVar[bool] = True
    not_quantizable: ClassVar[str | None] = (
        "it removes a part of the weights, and 4-bit weights cannot change"
    )

    def attach_start(self, model: Any, sites: Sequence[Site], seed: int) -> tuple[Attached, Start]:
        """LoRA attached, saved relative to the start; and the start, as it is now."""
        attached = super().attach(model, sites, seed)
        start = Start(attached.pairs)

        def save(folder: Path) -> None:
            save_as_lora(attached.model, start.updates(), folder)

        relative = replace(
            attached, pairs=(), save=save, derived=attached.count(), changes_weights=True
        )
        return relative, start


class Start:
    """A₀ and B₀ of each update: the values of A and B when :meth:`keep` was called last."""

    def __init__(self, pairs: Sequence[LowRankPair]) -> None:
        self.pairs = pairs
        self.values: list[tuple[Tensor, Tensor]] = []
        self.keep()

    def keep(self) -> None:
        """Take the values of A and B now."""
        self.values = [(p.A.detach().clone(), p.B.detach().clone()) for p in self.pairs]

    def updates(self) -> list[LowRankPair]:
        """Each update relative to the start, [B, −B₀] [A; A₀]."""
        import torch

        return [
            replace(pair, A=torch.cat([pair.A, A]), B=torch.cat([pair.B, -B], dim=1))
            for pair, (A, B) in zip(self.pairs, self.values, strict=True)
        ]
