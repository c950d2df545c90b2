"""LoRA whose start is computed from the run's training rows and removed from the frozen weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.starts.removed_part import RemovedPart
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import Tensor, nn


class StartFromData(RemovedPart):
    """Base of LoRA-GA and CorDA: ``set_start`` computes B₀ A₀ from the run's training rows.

    A checkpoint has A₀ and B₀, and a resumed run goes on from these.
    """

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA; ``initialize_with_loss`` then sets A, B and the frozen weights."""
        from iwlora.methods.low_rank.starts.stored_start import StoreStart

        attached, start = self.attach_start(model, sites, seed)

        def initialize(
            batches: Iterable[Mapping[str, Tensor]],
            loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
        ) -> None:
            self.set_start(attached.model, seed, batches, loss)
            start.keep()

        stored = StoreStart(attached.model, start)
        callbacks = (*attached.callbacks, stored)
        return replace(attached, callbacks=callbacks, initialize_with_loss=initialize)

    def set_start(
        self,
        peft_model: Any,
        seed: int,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        """Set A, B and the frozen weights.

        Args:
            peft_model: The model with LoRA attached.
            seed: For random numbers.
            batches: Of training rows.
            loss: The task's loss of a model on a batch.
        """
        raise NotImplementedError
