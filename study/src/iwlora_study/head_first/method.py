"""Head first: at the beginning only the task head trains, then everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from iwlora.methods import Attached, Method
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.selective.full_fine_tuning import Full
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site


class HeadFirst(Method):
    """Lets another method train its head alone in the first ``share`` of the steps.

    A random head sends random gradients into the backbone, which distort what it has learned; after
    a linear probe they point somewhere. The adapter has no gradient in these steps, and Adam counts
    its own steps and moments of the adapter from the first one after them. The learning rate keeps
    its schedule over all steps. The adapter's gradients are computed and dropped, so that several
    processes and packed runs work as always; the first part does not take less time.

    It is the first base class of a method, whose options it keeps::

        class HeadFirstBitFit(HeadFirst, BitFit):
            name = "head-first-bitfit"

    Source:
        Kumar et al. 2022, arXiv:2202.10054, section 4, where both parts have a learning rate of
        their own; here it is one, and a search chooses it.
    """

    share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Fraction of all optimizer steps in which only the head trains."""

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach the method, and a callback that holds its adapter back."""
        from iwlora_study.head_first.callback import HoldBack

        attached = super().attach(model, sites, seed, sensitivity)
        adapter = [attached.model.get_parameter(name) for name in attached.adapter]
        return replace(attached, callbacks=(HoldBack(adapter, self.share), *attached.callbacks))


class HeadFirstLora(HeadFirst, Lora):
    """LoRA after a linear probe."""

    name: ClassVar[str] = "head-first-lora"
    summary: ClassVar[str] = "candidate: LoRA, with the head alone in the first steps"
    paper: ClassVar[str] = "Kumar et al. 2022, arXiv:2202.10054"


class HeadFirstFull(HeadFirst, Full):
    """Full fine-tuning after a linear probe: the published method."""

    name: ClassVar[str] = "head-first-full"
    summary: ClassVar[str] = "candidate: full fine-tuning, with the head alone in the first steps"
    paper: ClassVar[str] = "Kumar et al. 2022, arXiv:2202.10054"
