"""BitFit: the bias terms of the backbone, and nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.methods.adapter_files import save_declared
from iwlora.methods.contract import Attached, Method, split_head, train_only

if TYPE_CHECKING:
    from torch import nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class BitFit(Method):
    """Every bias term of the backbone is trained: those of linear layers and of normalisations."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the bias terms of the backbone are trained"
    paper: ClassVar[str] = "Ben Zaken et al. 2022, arXiv:2106.10199"

    def parameters(self, model: Any, sites: Sequence[Site], size: int | None) -> int:
        """The sum of the lengths of all bias terms outside the task head."""
        return sum(model.get_parameter(name).numel() for name in _biases(model))

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """There must be bias terms; T5 and Llama types have none."""
        if not _biases(model):
            raise IwloraError(
                f"bitfit trains bias terms, and the backbone of {type(model).__name__} has none; "
                "take lora with a small rank"
            )

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Freeze all but the biases and the head; nothing is added to the model."""
        self.check_model(model, sites)
        biases, (_, head) = _biases(model), split_head(model)
        train_only(model, biases + head)
        return Attached(
            model=model,
            adapter=biases,
            head=head,
            save=partial(save_declared, self, model, biases + head, sites, None),
            count=lambda: self.parameters(model, sites, None),
        )


def _biases(model: nn.Module) -> tuple[str, ...]:
    """Names of the backbone's bias terms: parameters called ``bias``, or ``q_bias`` and the like
    where a module keeps them beside its layers."""
    backbone, _ = split_head(model)
    ends = (name.rpartition(".")[2] for name in backbone)
    return tuple(
        name
        for name, end in zip(backbone, ends, strict=True)
        if end == "bias" or end.endswith("_bias")
    )
