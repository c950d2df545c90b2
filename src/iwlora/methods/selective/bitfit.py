"""BitFit: only the bias terms of the backbone are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.methods.contract import split_head
from iwlora.methods.named_parameters import NamedParameters
from iwlora.sites import Site


class BitFit(NamedParameters):
    """Every bias term of the backbone is trained: in linear layers and in normalizations."""

    name: ClassVar[str] = "bitfit"
    summary: ClassVar[str] = "the bias terms of the backbone are trained"
    paper: ClassVar[str] = "Ben Zaken et al. 2022, arXiv:2106.10199"
    adapts_sites: ClassVar[bool] = False
    not_packable: ClassVar[str | None] = None

    def trained_names(self, model: Any) -> tuple[str, ...]:
        """The backbone's parameters that are called ``bias``, ``q_bias`` or similar."""
        backbone, _ = split_head(model)
        return tuple(name for name in backbone if self.is_bias(name))

    @staticmethod
    def is_bias(name: str) -> bool:
        """Whether a parameter is a bias term, by its name.

        >>> BitFit.is_bias("self.q_bias"), BitFit.is_bias("relative_attention_bias.weight")
        (True, False)
        """
        return f"_{name.rpartition('.')[2]}".endswith("_bias")

    def check_model(self, model: Any, sites: Sequence[Site]) -> None:
        """The backbone must have bias terms; those of T5 and Llama have none."""
        if not self.trained_names(model):
            raise IwloraError(
                f"bitfit trains bias terms, and the backbone of {type(model).__name__} has none; "
                "take lora with a small rank"
            )
