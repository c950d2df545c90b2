"""The control of starts from data: a random A of a rival's size, without its directions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from iwlora.inputs.limits import Count
from iwlora.methods.contract import Attached, Method
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.lora_variants import Eva
from iwlora.methods.low_rank.starts.lora_ga import LoraGa
from iwlora_study.lora_one import LoraOne

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site

_RIVALS: Mapping[str, type[Eva | LoraGa | LoraOne]] = {
    method.name: method for method in (Eva, LoraGa, LoraOne)
}


class ScaledRandomStart(Lora):
    """LoRA whose A₀ is c_k times LoRA's own random A, so that tr(A₀ Σ A₀ᵀ) is that of a rival.

    Σ = E[x xᵀ] of the inputs of a matrix at the pretrained weights, over the tokens of the first
    ``max_batches`` batches without padding, so tr(A Σ Aᵀ) = E‖A x‖², and c_k is the square root of
    the rival's over LoRA's. A start from data makes A x larger, and with it the first gradients of
    B; this control has that size at every matrix, and none of the rival's directions. B₀ = 0 as in
    LoRA: the B₀ of ``lora-ga`` and ``lora-one`` is not imitated, for which their own ``gradient:
    noise`` is the control. A matrix without inputs keeps LoRA's A.

    Source: this project; that starts gain by magnitude alone is from arXiv:2507.06558.
    """

    name: ClassVar[str] = "lora-scaled-random-start"
    summary: ClassVar[str] = "control: a random start of the size of EVA's, LoRA-GA's or LoRA-One's"
    paper: ClassVar[str] = "this project"
    not_for_parameters: ClassVar[str | None] = "it reads the inputs of layers only"
    not_for_convolutions: ClassVar[str | None] = "the method reads the inputs of linear layers only"
    control_of: ClassVar[str | None] = Eva.name
    not_quantizable: ClassVar[str | None] = "the rival's start is computed on a copy of the model"

    like: Literal["eva", "lora-ga", "lora-one"] = "eva"
    """The rival whose size the start has; its other options are its defaults."""
    max_batches: Count = 16
    """Batches of training rows that the rival's start and the sizes are computed from."""

    def rival(self) -> Method:
        """The rival, of the same rank and scaling."""
        return _RIVALS[self.like](
            rank=self.rank, lora_alpha=self.lora_alpha, max_batches=self.max_batches
        )

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """The rival must support the model."""
        super().check_model(model, sites)
        self.rival().check_model(model, sites)

    def check(self, sites: Sequence[Site]) -> None:
        """The rank must be one of LoRA and of the rival."""
        super().check(sites)
        self.rival().check(sites)

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Attach LoRA; ``initialize_with_loss`` then scales every A."""
        from iwlora.sites import sites as find_sites

        other = copy.deepcopy(model)
        rival = self.rival().attach(other, find_sites(other, [s.name for s in sites]), seed)
        attached, rivals = super().attach(model, sites, seed), [rival]

        def initialize(
            batches: Iterable[Mapping[str, Tensor]],
            loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
        ) -> None:
            self._initialize(attached.model, rivals.pop(), batches, loss)  # its memory is freed

        return replace(attached, initialize_with_loss=initialize)

    def _initialize(
        self,
        peft_model: Any,
        rival: Attached,
        batches: Iterable[Mapping[str, Tensor]],
        loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    ) -> None:
        import torch

        from iwlora.methods.low_rank.starts.layers import lora_layers

        first = list(islice(batches, self.max_batches))
        initialize = rival.initializer(loss)
        assert initialize is not None  # all three rivals start from data
        initialize(first)
        starts = {
            name: layer.lora_A["default"].weight.detach()
            for name, layer in lora_layers(rival.model).items()
        }
        layers = lora_layers(peft_model)
        own = {name: layer.lora_A["default"].weight for name, layer in layers.items()}
        sizes, rivals = (mean_squares(peft_model, A, first, loss) for A in (own, starts))
        with torch.no_grad():
            for name, A in own.items():
                if sizes[name] > 0:
                    A.mul_((rivals[name] / sizes[name]) ** 0.5)


def mean_squares(
    peft_model: Any,
    starts: Mapping[str, Tensor],
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
) -> dict[str, float]:
    """{site name: E‖A x‖² = tr(A Σ Aᵀ)} over all tokens of the batches, without dropout.

    Args:
        peft_model: the model with LoRA that does not change it yet.
        starts: {site name: A, (r, d_in)}.
        batches: of training rows.
        loss: ``loss(model, batch)``, which calls the model.

    Returns:
        0 for a matrix whose layer the model does not call.
    """
    import torch

    from iwlora.methods.low_rank.starts.layers import (
        lora_layers,
        on_device,
        token_vectors,
        without_dropout,
    )

    sums, counts = dict.fromkeys(starts, 0.0), dict.fromkeys(starts, 0)
    mask: Tensor | None = None

    def read(name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = token_vectors(inputs[0], mask)
        sums[name] += float((x @ starts[name].mT.to(x)).double().square().sum())
        counts[name] += len(x)

    hooks = [
        layer.register_forward_pre_hook(partial(read, name))
        for name, layer in lora_layers(peft_model).items()
    ]
    try:
        with torch.no_grad(), without_dropout(peft_model):
            for batch in on_device(peft_model, batches):
                mask = batch.get("attention_mask")
                loss(peft_model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name] / max(counts[name], 1) for name in starts}
