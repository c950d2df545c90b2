"""The base class of the kinds whose loss is a mean over tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iwlora.tasks.collators import IGNORE_INDEX
from iwlora.tasks.kinds.contract import Evaluation, Kind

if TYPE_CHECKING:
    from torch import Tensor


class TokenLoss(Kind):
    """What token labels and generation share: cross-entropy of the tokens that have a label."""

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over the tokens that have a label."""
        return _token_losses(outputs.logits, labels).sum()

    def count(self, labels: Tensor) -> Tensor:
        """The number of tokens that have a label."""
        return (labels != IGNORE_INDEX).sum()

    def row_losses(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The ``loss`` of each row, summed over its tokens, and their ``count``."""
        losses = _token_losses(logits, labels)
        return {"loss": losses.sum(-1), "count": (labels != IGNORE_INDEX).sum(-1)}

    def mean_loss(self, evaluation: Evaluation) -> float:
        """The mean loss over all tokens of the outputs that ``row_losses`` gave."""
        outputs = evaluation.outputs
        return float(outputs["loss"].astype(float).sum() / max(outputs["count"].sum(), 1))


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token in float32, (rows, tokens); 0 where the label is ignored."""
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view(labels.shape)
