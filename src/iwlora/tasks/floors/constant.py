"""The best predictions that are the same for every row: the commonest class, or classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Value = TypeVar("Value", bound=Hashable)


def most_frequent(values: Iterable[Value]) -> Value:
    """The commonest value; of several the one that comes first.

    >>> most_frequent(["no", "yes", "yes"])
    'yes'
    """
    return Counter(values).most_common(1)[0][0]


def most_frequent_classes(rows: Sequence[Sequence[int]]) -> list[int]:
    """The classes that give the largest micro F1 if they are predicted for each of these rows.

    With the k commonest classes it is 2·Σn / (k·rows + all classes of all rows), where n is the
    number of rows that have a class; no other k classes give a larger one.

    >>> most_frequent_classes([[0], [0, 1], [0, 2]])
    [0]
    """
    counts = Counter(class_id for row in rows for class_id in row).most_common()
    every = sum(count for _, count in counts)
    best, best_f1, hits = 0, 0.0, 0
    for k, (_, count) in enumerate(counts, start=1):
        hits += count
        f1 = 2 * hits / (k * len(rows) + every)
        if f1 > best_f1:
            best, best_f1 = k, f1
    return sorted(class_id for class_id, _ in counts[:best])
