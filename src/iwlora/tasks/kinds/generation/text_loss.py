"""What kinds that learn texts share: the perplexity of what is learned, and packing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.contract import Collator, Dataset, Evaluation, Prediction
from iwlora.tasks.kinds.generation.sequence_packing import check_isolation
from iwlora.tasks.kinds.heads import TokenLoss

TextLosses: TypeAlias = Sequence[tuple[float, int]]
"""(loss in nats, tokens that are learned) of each row."""


class TextLoss(TokenLoss):
    """The loss is the mean cross-entropy of the tokens that are learned."""

    packing: Annotated[bool, Field(strict=True)] = False
    """Decoders: several rows in one of ``train.max_length`` tokens; no row attends to another."""

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """Packing needs ``use_cache=False``: with a cache transformers ignores ``position_ids``."""
        if self.packing:
            config.use_cache = False

    def check_model(self, model: Any, rows: Dataset, collate: Collator) -> None:
        """Raise ``IwloraError`` where a packed row attends to another one."""
        if self.packing:
            check_isolation(model, rows, collate)

    def text_losses(self, evaluation: Evaluation) -> TextLosses:
        """The loss of each row, and its tokens."""
        losses, counts = (evaluation.outputs[name].tolist() for name in ("loss", "count"))
        return [(float(loss), int(count)) for loss, count in zip(losses, counts, strict=True)]

    def loss_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """The perplexity and the mean loss over all tokens; ``IwloraError`` for a loss of NaN."""
        loss = self.mean_loss(evaluation)
        if not math.isfinite(loss):
            raise IwloraError("the loss is not finite: the model diverged; lower train.lr")
        return _scores(loss)


def perplexity_columns(losses: TextLosses) -> list[Prediction]:
    """exp(loss / tokens) of each row, None without tokens, and its number of tokens.

    >>> perplexity_columns([(0.0, 3), (0.0, 0)])
    [{'perplexity': 1.0, 'tokens': 3}, {'perplexity': None, 'tokens': 0}]
    """
    return [
        {"perplexity": _scores(loss / tokens)["perplexity"] if tokens else None, "tokens": tokens}
        for loss, tokens in losses
    ]


def perplexity_of(losses: TextLosses) -> dict[str, float]:
    """The perplexity and the mean loss over the tokens of all rows.

    >>> perplexity_of([(2.0, 1), (0.0, 3)])["loss"]
    0.5
    """
    tokens = sum(count for _, count in losses)
    return _scores(sum(loss for loss, _ in losses) / max(tokens, 1))


def stored_loss(row: Mapping[str, str]) -> tuple[float, int]:
    """(loss, tokens) of a row of a stored file of predictions.

    >>> stored_loss({"perplexity": "1.0", "tokens": "3"})
    (0.0, 3)
    """
    tokens = int(row["tokens"])
    return (math.log(float(row["perplexity"])) * tokens if tokens else 0.0), tokens


def _scores(loss: float) -> dict[str, float]:
    return {"perplexity": math.exp(min(loss, 700.0)), "loss": loss}
