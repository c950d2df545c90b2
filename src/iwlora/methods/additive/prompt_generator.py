"""A prompt generator: several trained prompts in place of the class of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count
from iwlora.methods.contract import (
    Attached,
    Method,
    check_unattached,
    mark_attached,
    seeded,
    split_head,
    train_only,
)
from iwlora.methods.saving import save_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import nn

_PLACE = "class_prompts"
"""The module of a model of image codes that says which class an image has."""


class PromptGenerator(Method):
    """``tokens`` prompts for each class of images are in place of its one class token.

    P[c, s] = LayerNorm(E[c] + T[s]), for the class c and the place s of a prompt; everything else
    is frozen. With ``factors`` the generator is factorized; the formula is then ours,
    P[c, s] = LayerNorm(W₃ (f(c) ⊙ g(s)) + b₃), where f and g are two-layer networks of the class
    and of the place whose outputs are the factors.

    Source:
        Sohn et al. 2023, arXiv:2210.00990, section 3, and the code released with it.
    """

    name: ClassVar[str] = "prompt-generator"
    summary: ClassVar[str] = "trained prompts in place of the class of an image to generate"
    paper: ClassVar[str] = "Sohn et al. 2023, arXiv:2210.00990"
    adapts_sites: ClassVar[bool] = False
    size_knob: ClassVar[str | None] = "tokens"
    identity_at_init: ClassVar[bool] = False
    unmergeable: ClassVar[str | None] = "its prompts are read as tokens and are part of no weight"

    tokens: Count = 8
    """Prompts of each class."""
    factors: Count | None = None
    """The number of values that a class, and the place of a prompt, become before these are
    multiplied; null: the vectors of both are added instead."""
    hidden: Count | None = None
    """The width of the vectors of classes and places, from which a linear layer leads to the width
    of the model; null: that of the model, without a layer, or with ``factors`` their number."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_instances(cls, values: Any) -> Any:
        if isinstance(values, dict) and "instances" in values:
            raise ValueError(
                "method.instances: prompts of single images are not built; an image that is scored "
                "or generated later would have none, so nothing held out could be scored; remove "
                "it: prompts are those of classes"
            )
        return values

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """Those of the generator, without the class token that it replaces."""
        from iwlora.image_tokens.prompts import generator_parameters

        classes, width = _sizes(model)
        return generator_parameters(classes, self.tokens, width, self.factors, self.hidden)

    def check_model(self, model: Any, sites: Sequence[Site]) -> None:
        """The model must read the codes of images."""
        if not hasattr(model, _PLACE):
            raise IwloraError(
                "prompt-generator puts prompts in place of the class of an image to generate, and "
                "this model generates no images; take prefix, or a task of the kind image-tokens"
            )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Put the generator in place of the class token, and freeze everything else."""
        from iwlora.image_tokens.prompts import Prompts

        check_unattached(model)
        self.check_model(model, sites)
        (classes, width), before = _sizes(model), getattr(model, _PLACE)
        with seeded(seed):
            generator: nn.Module = Prompts(
                classes, self.tokens, width, before.norm.eps, self.factors, self.hidden
            )
        weight = before.classes.weight
        setattr(model, _PLACE, generator.to(weight.device, weight.dtype))
        adapter = tuple(f"{_PLACE}.{name}" for name, _ in generator.named_parameters())
        head = tuple(name for name in split_head(model)[1] if name not in adapter)
        train_only(model, adapter + head)
        mark_attached(model, self.name)
        return Attached(
            model=model,
            adapter=adapter,
            head=head,
            save=partial(save_parameters, self, model, adapter + head, sites),
            count=lambda: sum(parameter.numel() for parameter in generator.parameters()),
        )


def _sizes(model: Any) -> tuple[int, int]:
    """(classes, width of the model)."""
    table = getattr(model, _PLACE).classes
    return table.num_embeddings, table.embedding_dim
