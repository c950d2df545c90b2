"""The positions of a model: how many tokens its tables of positions are enough for."""

from __future__ import annotations

from typing import Any

# The names of the tables of learned or fixed positions, with one row for each position.
_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


def position_limit(model: Any, of_decoder: bool = False) -> int | None:
    """The largest number of tokens that a model has positions for; None without such a table.

    RoBERTa types count from the row after that of the padding, BART and OPT from ``offset``.

    Args:
        model: the model.
        of_decoder: take the tables of the decoder of an encoder-decoder, instead of the others.

    Example:
        >>> from iwlora.methods.tiny_models import tiny_model
        >>> position_limit(tiny_model("roberta")), position_limit(tiny_model("llama"))
        (63, None)
    """
    from torch import nn

    has_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
    limits = []
    for path, table in model.named_modules():
        *parents, name = path.split(".")
        in_decoder = has_decoder and "decoder" in parents
        if name in _TABLES and isinstance(table, nn.Embedding) and in_decoder == of_decoder:
            padding = -1 if table.padding_idx is None else table.padding_idx
            limits.append(table.num_embeddings - getattr(table, "offset", padding + 1))
    return min(limits, default=None)
