"""BitFit: only the bias terms of the backbone are trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.methods.contract import Attached, Method, split_head, train_only
from iwlora.methods.saving import save_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import nn


class BitFit(Method):
    """Every bias term of the backbone is trained: in linear layers and in normalisations."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the bias terms of the backbone are trained"
    paper: ClassVar[str] = "Ben Zaken et al. 2022, arXiv:2106.10199"

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """The sum of the lengths of all bias terms outside the task head."""
        return sum(model.get_parameter(name).numel() for name in _biases(model))

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """The backbone must have bias terms; those of T5 and Llama have none."""
        if not _biases(model):
            raise IwloraError(
                f"bitfit trains bias terms, and the backbone of {type(model).__name__} has none; "
                "take lora with a small rank"
            )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Freeze everything except the biases and the head; nothing is added to the model."""
        self.check_model(model, sites)
        biases, (_, head) = _biases(model), split_head(model)
        train_only(model, biases + head)
        return Attached(
            model=model,
            adapter=biases,
            head=head,
            save=partial(save_parameters, self, model, biases + head, sites),
            count=lambda: self.parameters(model, sites),
        )


def _biases(model: nn.Module) -> tuple[str, ...]:
    """Names of the backbone's parameters that are called ``bias``, ``q_bias`` or similar."""
    backbone, _ = split_head(model)
    ends = (name.rpartition(".")[2] for name in backbone)
    return tuple(
        name
        for name, end in zip(backbone, ends, strict=True)
        if end == "bias" or end.endswith("_bias")
    )
