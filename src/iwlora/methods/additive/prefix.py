"""Prefix tuning, as PEFT implements it: trained keys and values before each layer's own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.methods.contract import Attached, Method
from iwlora.methods.low_rank.lora import declared, save_adapter, task_type, wrap

if TYPE_CHECKING:
    from torch import nn

    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


class Prefix(Method):
    """Each attention layer sees ``num_virtual_tokens`` trained keys and values before its own.

    softmax(q [P_k; K]ᵀ / √d) [P_v; V], with P_k and P_v learned directly for every layer and
    head. It takes ``num_virtual_tokens`` of the positions that a model with learned positions has.
    """

    name: ClassVar[str] = "prefix"
    summary: ClassVar[str] = "trained keys and values before those of each attention layer"
    paper: ClassVar[str] = "Li and Liang 2021, arXiv:2101.00190"
    size_knob: ClassVar[str | None] = "num_virtual_tokens"
    identity_at_init: ClassVar[bool] = False
    unpackable: ClassVar[str | None] = None
    unmergeable: ClassVar[str | None] = "its keys and values belong to no weight"

    num_virtual_tokens: Annotated[int, Field(ge=1, strict=True)] = 16

    def parameters(self, model: Any, sites: Sequence[Site], size: int | None) -> int:
        """A key and a value for each virtual token, layer and key-value head."""
        config = model.config
        heads: int = config.num_attention_heads
        width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        heads = getattr(config, "num_key_value_heads", None) or heads
        layers: int = config.num_hidden_layers
        return (size or self.num_virtual_tokens) * 2 * layers * heads * width

    def check_model(self, model: Any, sites: Sequence[Site]) -> None:
        """The model must take keys and values from outside, which DeBERTa does not."""
        name, instead = type(model).__name__, "take lora or parallel"
        if task_type(model) == "QUESTION_ANS" and getattr(model.config, "type_vocab_size", 0) > 1:
            raise IwloraError(
                f"prefix loses what tells question from text in {name}: PEFT's model for question "
                f"answering passes no token_type_ids on; {instead}"
            )
        if "past_key_values" in _arguments(model):
            return
        if "past_key_values" not in _arguments(getattr(model, model.base_model_prefix, model)):
            raise IwloraError(
                f"prefix gives keys and values from outside to attention, and {name} takes none "
                f"(its forward has no past_key_values); {instead}"
            )
        if model.config.is_encoder_decoder:
            raise IwloraError(
                f"prefix cannot reach the encoder of {name}, which takes no keys and values from "
                f"outside; {instead}"
            )

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Wrap the model with PEFT's prefix tuning, without a reparametrisation."""
        from peft import PrefixTuningConfig

        self.check_model(model, sites)
        config = PrefixTuningConfig(
            num_virtual_tokens=size or self.num_virtual_tokens, task_type=task_type(model)
        )
        _guard_positions(model, config.num_virtual_tokens)
        peft_model = wrap(model, config, seed)
        own = peft_model.prompt_encoder
        keys = {id(parameter) for parameter in own.parameters()}
        adapter = tuple(n for n, p in peft_model.named_parameters() if id(p) in keys)
        return Attached(
            model=peft_model,
            adapter=adapter,
            head=declared(peft_model)[1],
            save=partial(save_adapter, peft_model),
            count=lambda: sum(parameter.numel() for parameter in own.parameters()),
        )


def _guard_positions(model: Any, tokens: int) -> None:
    """Tell, rather than fail inside, when words and virtual tokens exceed learned positions."""
    for name, table in model.named_modules():
        if name.endswith(("position_embeddings", "wpe")):
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            check = partial(_check_length, tokens, table.num_embeddings - first)
            model.base_model.register_forward_pre_hook(check, with_kwargs=True)


def _check_length(
    tokens: int, positions: int, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    ids = given[0] if given else named.get("input_ids")
    if ids is not None and ids.shape[1] + tokens > positions:
        raise IwloraError(
            f"a text of {ids.shape[1]} words and {tokens} virtual tokens are more than the "
            f"{positions} positions of the model; lower train.max_length or "
            "method.num_virtual_tokens"
        )


def _arguments(module: nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)
