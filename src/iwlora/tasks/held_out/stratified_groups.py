"""Holding out a representative part of the rows, without dividing a group of rows."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from iwlora.tasks.kinds.contract import Dataset, Kind

Ids = npt.NDArray[np.int64]


def grouped_split(
    rows: Dataset,
    text: Sequence[str],
    kind: Kind,
    fraction: float,
    seed: int = 0,
    group: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Divide rows into (the remaining rows, ``fraction`` of them), both in the order of the rows.

    Rows with equal texts stay together, and so do rows with an equal value of ``group``. Each
    class (of numbers: each range) is on both sides where the groups allow it.

    Args:
        rows: The text columns, ``label`` and the column ``group``.
        text: The text columns.
        kind: Says which classes a row has.
        fraction: Of the rows to hold out.
        seed: Of the choice among groups.
        group: A column; None: only equal texts make a group.

    Example:
        >>> from iwlora.tasks.kinds.classification import Classification
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> rows = dataset_from_rows(["text"], [(str(i % 40), int(i % 40 < 2)) for i in range(80)])
        >>> rest, held_out = grouped_split(rows, ["text"], Classification(), 0.1)
        >>> len(rest), sorted(held_out["label"])
        (72, [0, 0, 0, 0, 0, 0, 1, 1])
    """
    labels = rows.select_columns("label")["label"][:]
    strata = kind.strata(labels, max(1, round(fraction * len(rows))))
    held_out = hold_out(strata, row_groups(rows, text, group), fraction, seed)
    return rows.select(np.flatnonzero(~held_out)), rows.select(np.flatnonzero(held_out))


def hold_out(
    strata: Sequence[Sequence[int]], groups: Sequence[int] | Ids, fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Which rows to hold out: whole groups, about ``fraction`` of the rows and of each class.

    First each class gets a held-out group, the rarest class first. Then groups in a shuffled order
    fill up the quotas of the classes: ⌊fraction · n⌋ rows, then ⌈fraction · n⌉, then any number,
    until ``fraction`` of all rows is held out. A class keeps one group at least that is not held
    out, so a class with one group is never held out.

    Args:
        strata: The classes of each row.
        groups: The group of each row.
        fraction: Of the rows to hold out.
        seed: Of the shuffle.

    Example:
        >>> hold_out([[0], [0], [0], [1], [1], [2]], range(6), 0.3, seed=0).tolist()
        [False, False, True, False, True, False]
    """
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(numbers).tolist()
    contents = _contents(strata, numbers, sizes)
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    rows_of: Counter[int] = Counter()
    groups_with: dict[int, list[int]] = {}
    for group in order:
        for k, count in contents[group]:
            rows_of[k] += count
            groups_with.setdefault(k, []).append(group)
    remaining = {k: len(members) for k, members in groups_with.items()}
    taken = np.zeros(len(sizes), dtype=bool)
    held: Counter[int] = Counter()

    def can_take(group: int) -> bool:
        return not taken[group] and all(remaining[k] > 1 for k, _ in contents[group])

    def take(group: int) -> None:
        taken[group] = True
        for k, count in contents[group]:
            held[k] += count
            remaining[k] -= 1

    for k in sorted(groups_with, key=lambda k: (len(groups_with[k]), k)):
        candidates = [] if held[k] else [group for group in groups_with[k] if can_take(group)]
        if candidates:
            wanted = max(1.0, fraction * rows_of[k])
            take(min(candidates, key=lambda group: max(0.0, sizes[group] - wanted)))
    limit = max(1, round(fraction * len(strata)))
    total = sum(sizes[group] for group in np.flatnonzero(taken))
    quotas: Sequence[Callable[[float], float]] = (_floor, math.ceil, lambda _: math.inf)
    for quota in quotas:
        for group in order:
            if total >= limit:
                break
            fits = total + sizes[group] <= limit and all(
                held[k] + count <= quota(fraction * rows_of[k]) for k, count in contents[group]
            )
            if fits and can_take(group):
                take(group)
                total += sizes[group]
    return np.asarray(taken[numbers], dtype=bool)


def _contents(
    strata: Sequence[Sequence[int]], groups: Ids, sizes: Sequence[int]
) -> list[tuple[tuple[int, int], ...]]:
    """((class, its rows), ...) of each group; equal ones are one object, to save memory."""
    by_group = iter(np.argsort(groups, kind="stable").tolist())
    distinct: dict[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]] = {}
    contents = []
    for size in sizes:
        rows = islice(by_group, size)
        counts = tuple(Counter(chain.from_iterable(strata[row] for row in rows)).items())
        contents.append(distinct.setdefault(counts, counts))
    return contents


def _floor(value: float) -> int:
    return int(value + 1e-9)  # 0.1 · 30 is a little less than 3


def row_groups(rows: Dataset, text: Sequence[str], group: str | None = None) -> Ids:
    """The group of each row, from 0: rows with equal texts or an equal ``group`` share one.

    Example:
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> pairs = [("a", "x", 0), ("b", "y", 0), ("a", "x", 1), ("a", "y", 1)]
        >>> rows = dataset_from_rows(["first", "second"], pairs)
        >>> row_groups(rows, ["first", "second"]).tolist()
        [0, 1, 0, 2]
        >>> row_groups(rows, ["first", "second"], group="second").tolist()
        [0, 1, 0, 1]
    """
    same_texts = _numbers(rows, text)
    if group is None:
        return same_texts
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph between texts and groups, with an edge for each row: its components are the groups.
    same_group = _numbers(rows, [group])
    texts, size = same_texts.max() + 1, same_texts.max() + same_group.max() + 2
    edges = (np.ones(len(rows)), (same_texts, texts + same_group))
    _, component = connected_components(coo_array(edges, (size, size)), directed=False)
    return np.asarray(component[same_texts], dtype=np.int64)


def _numbers(rows: Dataset, columns: Sequence[str]) -> Ids:
    """A number for the values of each row in some columns, equal for equal values."""
    numbers: dict[int, int] = {}  # by hashes, which take less memory than texts
    values = (
        numbers.setdefault(hash(repr(key)), len(numbers))
        for batch in rows.select_columns(list(columns)).iter(4096)
        for key in zip(*(batch[name] for name in columns), strict=True)
    )
    return np.fromiter(values, dtype=np.int64, count=len(rows))
