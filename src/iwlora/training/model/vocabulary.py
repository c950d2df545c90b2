"""The tokenizer and the embedding tables of a model: that they fit each other, and the data."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import pyarrow.compute
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from iwlora.errors import IwloraError, short_repr
from iwlora.positions import position_limit

logger = logging.getLogger("iwlora")

# The columns of encoded rows that a model looks up in its token embeddings.
_ID_COLUMNS = ("input_ids", "prompt_ids", "labels")


def fit_tokenizer(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """Set the padding token and the longest text of a tokenizer to what its model can read.

    A tokenizer without a padding token, or with one that has no embedding, pads with the token
    that ends a text, or with another one: models ignore padding.

    Args:
        name: the name of the model, for messages.
        model: the model; its configuration gets the padding token.
        tokenizer: its tokenizer, which is changed.

    Raises:
        IwloraError: no token can pad.
    """
    rows, names = token_rows(model), ("pad_token", "eos_token", "unk_token", "bos_token")
    tokens = {key: getattr(tokenizer, f"{key}_id", None) for key in names}
    tokens["pad_token_id in config.json"] = _padding_in_config(model.config)
    usable = {key: id for key, id in tokens.items() if id is not None and 0 <= id < rows}
    if not usable:
        raise IwloraError(
            f"model={name} has no token to pad texts with: its tokenizer names no pad_token, "
            f"eos_token, unk_token or bos_token among its {rows:,} token embeddings; set pad_token "
            "in tokenizer_config.json"
        )
    source, padding = next(iter(usable.items()))
    if tokenizer.pad_token_id is not None and source != "pad_token":
        logger.warning(
            f"model={name}: the token {short_repr(tokenizer.pad_token)} that pads texts has no "
            f"embedding; {source} pads them instead"
        )
    if source != "pad_token":
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = padding
    positions = position_limit(model)
    if positions is not None:
        tokenizer.model_max_length = min(positions, tokenizer.model_max_length)
    return tokenizer


def token_embeddings(model: Any) -> nn.Module | None:
    """The layer that looks up token embeddings; None for a model without one.

    CANINE hashes characters, and what Perceiver gives as its embeddings are its latent vectors.
    """
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    # What embeds the patches of an image looks up no rows of a table.
    has_rows = isinstance(table, nn.Module) and not isinstance(table, nn.Conv2d)
    return table if has_rows and hasattr(table, "weight") else None


def token_rows(model: Any) -> int:
    """The number of token embeddings of a model, with or without an adapter."""
    table = token_embeddings(model)
    if table is None:
        return int(getattr(model.config.get_text_config(), "vocab_size", sys.maxsize))
    weight: Any = table.weight
    return int(weight.shape[0])


def check_generated_length(model: PreTrainedModel, tokens: int) -> None:
    """Raise ``IwloraError`` if the decoder has no positions for as many generated tokens."""
    positions = position_limit(model, of_decoder=True)
    if positions is not None and tokens > positions:
        raise IwloraError(
            f"task.kind.max_target={tokens}: the decoder writes at most {positions} tokens"
        )


def check_token_ids(
    model: Any, tokenizer: PreTrainedTokenizerBase, encoded: Iterable[datasets.Dataset]
) -> None:
    """Raise ``IwloraError`` for a token in encoded rows that has no embedding."""
    rows = token_rows(model)
    for id in _largest_ids(encoded):
        if id >= rows:
            token = short_repr(tokenizer.convert_ids_to_tokens(id))
            raise IwloraError(
                f"the texts contain the token {token}, which the model has no embedding for: its "
                f"tokenizer has {len(tokenizer):,} tokens, the model {rows:,} embeddings; take "
                "the tokenizer that belongs to the model, or remove the token from the texts"
            )


def _largest_ids(encoded: Iterable[datasets.Dataset]) -> Iterator[int]:
    for split in encoded:
        for name in set(_ID_COLUMNS) & set(split.column_names):
            column = split.data.column(name)
            if pyarrow.types.is_list(column.type) and pyarrow.types.is_integer(
                column.type.value_type
            ):
                largest = pyarrow.compute.max(pyarrow.compute.list_flatten(column)).as_py()
                yield from [] if largest is None else [largest]


def _padding_in_config(config: Any) -> int | None:
    id = getattr(config.get_text_config(), "pad_token_id", None)
    return id if isinstance(id, int) else None
