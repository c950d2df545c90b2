"""Metrics of token classification: entities by seqeval, words by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.extras import name_missing_extra

Rows = Sequence[Sequence[str]]


@name_missing_extra()
def token_label_scores(
    references: Rows, predictions: Rows, metrics: Sequence[str]
) -> dict[str, float]:
    """Scores of word labels, in [0, 1].

    Args:
        references: The correct class of each word of each row.
        predictions: The predicted class of each word of each row.
        metrics: ``f1``, ``precision``, ``recall`` (of whole entities); ``accuracy`` and
            ``macro_f1`` (of words).

    Example:
        >>> token_label_scores([["B-A", "I-A"]], [["B-A", "O"]], ["f1", "accuracy"])
        {'f1': 0.0, 'accuracy': 0.5}
    """
    from sklearn.metrics import accuracy_score, f1_score

    expected, predicted = (
        [label for row in rows for label in row] for rows in (references, predictions)
    )
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "accuracy":
            scores[name] = float(accuracy_score(expected, predicted))
        elif name == "macro_f1":
            scores[name] = float(f1_score(expected, predicted, average="macro", zero_division=0.0))
        else:
            from seqeval import metrics as entity_metrics

            entity_score = getattr(entity_metrics, f"{name}_score")
            scores[name] = float(entity_score(references, predictions, zero_division=0))
    return scores
