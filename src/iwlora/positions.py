"""The positions of a model: how many tokens its tables of positions are enough for."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
        if name not in _TABLES or not isinstance(table, nn.Embedding) or _of_images(model, parents):
            continue
        if (has_decoder and "decoder" in parents) == of_decoder:
            padding = -1 if table.padding_idx is None else table.padding_idx
            limits.append(table.num_embeddings - getattr(table, "offset", padding + 1))
    return min(limits, default=None)


def _of_images(model: Any, path: Sequence[str]) -> bool:
    """Whether a module is part of the tower of a multimodal model that reads images or sound."""
    ancestors = (model.get_submodule(".".join(path[:end])) for end in range(1, len(path) + 1))
    return any(re.search("Vision|Image|Audio|Speech", type(m).__name__) for m in ancestors)
