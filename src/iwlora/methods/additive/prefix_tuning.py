"""Prefix tuning, as PEFT implements it: trained keys and values in each attention layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.inputs.limits import Count
from iwlora.methods.contract import Attached, Method
from iwlora.methods.peft_models import attach_peft, task_type
from iwlora.positions import position_limit
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site

if TYPE_CHECKING:
    from torch import nn


class Prefix(Method):
    """Each attention layer gets ``num_virtual_tokens`` trained keys and values before its own.

    softmax(q [P_k; K]ᵀ / √d) [P_v; V], with P_k and P_v learned directly for every layer and
    head. In a model with learned positions it uses ``num_virtual_tokens`` of these positions,
    unless the model gives its tokens positions itself.
    """

    name: ClassVar[str] = "prefix"
    summary: ClassVar[str] = "trained keys and values before those of each attention layer"
    paper: ClassVar[str] = "Li and Liang 2021, arXiv:2101.00190"
    adapts_sites: ClassVar[bool] = False
    size_knob: ClassVar[str | None] = "num_virtual_tokens"
    identity_at_init: ClassVar[bool] = False
    not_quantizable: ClassVar[str | None] = None
    unmergeable: ClassVar[str | None] = "its keys and values are not part of a weight"

    not_checkpointable: ClassVar[str | None] = (
        "a block that is computed again does not get the trained keys and values"
    )

    num_virtual_tokens: Count = 16
    """Trained keys and values of each attention layer."""

    def adapter_settings(self) -> Mapping[str, Any]:
        """The type and the number of keys, learned directly."""
        tokens = self.num_virtual_tokens
        return {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": tokens,
            "prefix_projection": False,
        }

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """A key and a value for each virtual token, layer and key-value head."""
        config = model.config
        heads: int = config.num_attention_heads
        width: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        heads = getattr(config, "num_key_value_heads", None) or heads
        layers: int = config.num_hidden_layers
        return self.num_virtual_tokens * 2 * layers * heads * width

    def check_model(self, model: Any, sites: Sequence[Site]) -> None:
        """The model must accept ``past_key_values``; DeBERTa does not."""
        name, alternative = type(model).__name__, "take lora or parallel"
        if task_type(model) == "QUESTION_ANS" and getattr(model.config, "type_vocab_size", 0) > 1:
            raise IwloraError(
                f"prefix cannot separate question and text in {name}: PEFT's model for question "
                f"answering does not pass token_type_ids on; {alternative}"
            )
        if getattr(model, "main_input_name", None) == "pixel_values":
            raise IwloraError(
                "prefix adds keys and values to attention, and models of images do not accept any "
                f"(their forward has no past_key_values); {alternative}"
            )
        if getattr(model.config, "kv_lora_rank", None):
            raise IwloraError(
                f"prefix does not support {name}, which compresses its keys and values (multi-head "
                f"latent attention); {alternative}"
            )
        own, inner = _arguments(model), _arguments(getattr(model, model.base_model_prefix, model))
        if "past_key_values" not in own | inner and "cache" in own | inner:
            raise IwloraError(
                f"prefix is PEFT's prefix tuning, and PEFT {version('peft')} does not work with "
                f"transformers {version('transformers')}, where {name} calls its past_key_values "
                "cache; pip install 'transformers<5.24', or take lora or parallel"
            )
        if "past_key_values" in own:
            return
        if "past_key_values" not in inner:
            raise IwloraError(
                f"prefix adds keys and values to attention, and {name} does not accept any (its "
                f"forward has no past_key_values); {alternative}"
            )
        if model.config.is_encoder_decoder:
            raise IwloraError(
                f"prefix does not support the encoder of {name}, which does not accept "
                f"past_key_values; {alternative}"
            )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Wrap the model with PEFT's prefix tuning, without reparametrization."""
        from peft import PrefixTuningConfig

        self.check_model(model, sites)
        config = PrefixTuningConfig(
            num_virtual_tokens=self.num_virtual_tokens,
            task_type=task_type(model),
            modules_to_save=head_modules(model) or None,
        )
        if not getattr(model, "gives_positions", False):
            _check_lengths(model, self.num_virtual_tokens)
        return attach_peft(model, config, seed)


def _check_lengths(model: Any, tokens: int) -> None:
    """Raise ``IwloraError`` in a forward pass with more tokens than the model has positions."""
    positions = position_limit(model)
    if positions is not None:
        check = partial(_check_length, tokens, positions)
        model.base_model.register_forward_pre_hook(check, with_kwargs=True)


def _check_length(
    tokens: int, positions: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    ids = args[0] if args else kwargs.get("input_ids")
    if ids is not None and ids.shape[1] + tokens > positions:
        raise IwloraError(
            f"a text of {ids.shape[1]} tokens and {tokens} virtual tokens exceed the {positions} "
            "positions of the model; lower train.max_length or method.num_virtual_tokens"
        )


def _arguments(module: nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)
