"""Entity scores against a slow count of entities."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from iwlora.tasks.metrics.token_labels import token_label_scores

pytestmark = pytest.mark.quick


def spans(labels: list[str]) -> set[tuple[str, int, int]]:
    """Entities of B- and I- labels, the slow way: an I- of another type begins one too."""
    entities: set[tuple[str, int, int]] = set()
    for begin in range(len(labels)):
        for end in range(begin + 1, len(labels) + 1):
            part = [label.partition("-") for label in labels[begin:end]]
            type_ = part[0][2]
            inside = all(p[0] == "I" and p[2] == type_ for p in part[1:])
            before = labels[begin - 1] if begin else "O"
            starts = part[0][0] == "B" or (part[0][0] == "I" and before[2:] != type_)
            after = labels[end] if end < len(labels) else "O"
            if type_ and inside and starts and after != f"I-{type_}":
                entities.add((type_, begin, end))
    return entities


def test_entities() -> None:
    draw = random.Random(0)
    names = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    references, predictions = (
        [[draw.choice(names) for _ in range(9)] for _ in range(40)] for _ in range(2)
    )
    scores = token_label_scores(references, predictions, ("f1", "precision", "recall", "accuracy"))
    right = sum(len(spans(a) & spans(b)) for a, b in zip(references, predictions, strict=True))
    predicted, expected = (
        sum(len(spans(row)) for row in rows) for rows in (predictions, references)
    )
    assert scores["precision"] == pytest.approx(right / predicted)
    assert scores["recall"] == pytest.approx(right / expected)
    assert scores["f1"] == pytest.approx(2 * right / (predicted + expected))
    words = zip(chain(*references), chain(*predictions), strict=True)
    assert scores["accuracy"] == pytest.approx(sum(a == b for a, b in words) / (40 * 9))
