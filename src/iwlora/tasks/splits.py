"""Splits as ``datasets.Dataset`` objects in memory: creating, limiting and dividing them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_origin

from iwlora.errors import BadRow, count_rows
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.contract import Dataset, Kind

if TYPE_CHECKING:
    import pyarrow


SOURCE = "number of the source"
"""The column that says from which training file a row is, while the task is loaded."""
LINE = "line of the source"
"""The column with the line, or the number, of each row in the user's file."""
FILE = "file of the source"
"""The column with the file of each row, in splits whose rows are from several files."""


def dataset_from_rows(
    text: Sequence[str], rows: Sequence[Sequence[Any]], kind: Kind | None = None
) -> Dataset:
    """A split in memory from rows of texts and a label.

    Args:
        text: The names of the text columns.
        rows: One sequence ``(*texts, label)`` per row.
        kind: Gives the types of the columns; None: classification, with class ids as labels.

    Example:
        >>> dataset_from_rows(["premise", "hypothesis"], [("It rains.", "It is wet.", 0)])[0]
        {'premise': 'It rains.', 'hypothesis': 'It is wet.', 'label': 0}
    """
    import pyarrow

    text_type, _, label_type = map(arrow_type, (kind or Classification()).column_types)
    schema = pyarrow.schema([*((name, text_type) for name in text), ("label", label_type)])
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return in_memory(pyarrow.table([list(column) for column in columns], schema))


def arrow_type(python_type: Any) -> pyarrow.DataType:
    """The Arrow type for ``str``, ``int``, ``float``, ``bytes``, a list, or named fields.

    >>> str(arrow_type({"text": list[str]}))
    'struct<text: list<item: string>>'
    """
    import pyarrow

    if isinstance(python_type, Mapping):
        return pyarrow.struct([(name, arrow_type(item)) for name, item in python_type.items()])
    if get_origin(python_type) is list:
        return pyarrow.list_(arrow_type(*get_args(python_type)))
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    return {**types, bytes: pyarrow.large_binary()}[python_type]


def in_memory(table: pyarrow.Table) -> Dataset:
    """An Arrow table as a split.

    The fingerprint is random: ``datasets`` would copy the whole table to compute one.
    """
    import datasets
    from datasets.fingerprint import generate_random_fingerprint

    fingerprint = generate_random_fingerprint()
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint)


def left_out_notes(bad_rows: Sequence[BadRow], splits: Mapping[str, Dataset]) -> tuple[str, ...]:
    """A note on the bad rows of each split, whose other rows ``splits`` has.

    Example:
        >>> splits = {"test": dataset_from_rows(["text"], [("a", 0), ("b", 1), ("c", 1)])}
        >>> left_out_notes([BadRow("test", "t.csv", "line 4", "column 'text' is empty")], splits)
        ('test: 1 of 4 rows cannot be used and is not scored (task.on_bad=skip)',)
    """
    notes = []
    for split in dict.fromkeys(row.split for row in bad_rows):
        bad = count_rows(row for row in bad_rows if row.split == split)
        rows = bad + len(splits[split])
        effect = "left out" if split == "train" else "not scored"
        most = ", more than half: look at its columns and its format," if 2 * bad > rows else ""
        notes.append(
            f"{split}: {bad:,} of {rows:,} rows{most} cannot be used and "
            f"{'is' if bad == 1 else 'are'} {effect} (task.on_bad=skip)"
        )
    return tuple(notes)


def joined_sources(sources: Sequence[Dataset]) -> Dataset:
    """The rows of several sources, with the number of its source in the column ``SOURCE``."""
    import pyarrow

    tables = [
        split.data.table.append_column(
            SOURCE, pyarrow.array([number] * len(split), pyarrow.int64())
        )
        for number, split in enumerate(sources)
    ]
    return in_memory(pyarrow.concat_tables(tables))


def mixture(
    split: Dataset, sources: Sequence[int], weights: Sequence[float], limit: int | None, seed: int
) -> Dataset:
    """As many rows as there are, at most ``limit``, drawn in proportion to the sources' weights.

    Source i gives ⌊N w_i / Σ w⌋ of the N drawn rows or one more. Its rows are taken in turn, in
    an order that the seed decides: each row once before any row is taken again.

    Args:
        split: The rows of all sources.
        sources: The number of the source of each row.
        weights: The weight of each source.
        limit: The most rows to draw; None: as many as ``split`` has.
        seed: Of the draw.

    Example:
        >>> split = dataset_from_rows(["sentence"], [(text, 0) for text in "aaab"])
        >>> sorted(mixture(split, [0, 0, 0, 1], [1.0, 3.0], None, seed=0)["sentence"])
        ['a', 'b', 'b', 'b']
    """
    import numpy as np

    random_state = np.random.default_rng([seed, len(split)])
    numbers = np.asarray(sources)
    present = [number for number in range(len(weights)) if (numbers == number).any()]
    shares = np.array([weights[number] for number in present])
    shares /= shares.max()  # so that the sum of very large weights is finite
    size = min(limit or len(split), len(split))
    exact = size * (shares / shares.sum())
    counts = np.floor(exact).astype(int)
    largest_remainders = np.argsort(counts - exact, kind="stable")[: size - counts.sum()]
    counts[largest_remainders] += 1
    drawn = [
        np.resize(random_state.permutation(np.flatnonzero(numbers == number)), count)
        for number, count in zip(present, counts, strict=True)
    ]
    return split.select(np.sort(np.concatenate(drawn)))


def first_shuffled(split: Dataset, limit: int | None, seed: int) -> Dataset:
    """The first ``limit`` rows of ``split`` after a seeded shuffle; None: all rows, in order.

    A larger limit with the same seed only adds rows.

    Example:
        >>> split = dataset_from_rows(["sentence"], [(str(i), 0) for i in range(9)])
        >>> few, more = (first_shuffled(split, n, seed=1)["sentence"] for n in (2, 4))
        >>> list(more)[:2] == list(few)
        True
    """
    if limit is None or limit >= len(split):
        return split
    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    return split.select(order[:limit])


def first_of_each_class(split: Dataset, limit: int, seed: int) -> Dataset:
    """``limit`` rows, of each class the first ones after the shuffle of :func:`first_shuffled`.

    The classes take turns, so that they have equally many rows, to within one where each has
    enough. A larger limit with the same seed only adds rows.

    Example:
        >>> split = dataset_from_rows(["sentence"], [(str(i), int(i > 6)) for i in range(9)])
        >>> sorted(first_of_each_class(split, 4, seed=1)["label"])
        [0, 0, 1, 1]
    """
    if limit >= len(split):
        return split
    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    labels, turns, seen = split["label"][:], dict[int, int](), Counter[int]()
    for row in order:
        turns[row] = seen[labels[row]]
        seen[labels[row]] += 1
    return split.select(sorted(order, key=turns.__getitem__)[:limit])


def has_class_ids(split: Dataset) -> bool:
    """Whether each row has one class, whose number is its label."""
    import datasets

    return bool(split.features["label"] == datasets.Value("int64"))


def with_flipped_labels(split: Dataset, share: float, classes: int, seed: int) -> Dataset:
    """The split with another class at a share of its rows.

    Of n rows, round(share · n) are drawn. Each gets one of the other classes, all equally likely.

    Args:
        split: Rows with class ids.
        share: Of the rows, from 0 to 1.
        classes: The number of classes, at least 2.
        seed: Of the draw.

    Example:
        >>> split = dataset_from_rows(["sentence"], [(str(i), 0) for i in range(9)])
        >>> sum(with_flipped_labels(split, 1 / 3, classes=2, seed=0)["label"])
        3
    """
    import numpy as np
    import pyarrow

    random_state = np.random.default_rng([seed, len(split)])
    labels = np.array(split["label"][:])
    drawn = random_state.permutation(len(labels))[: round(share * len(labels))]
    labels[drawn] = (labels[drawn] + random_state.integers(1, classes, len(drawn))) % classes
    table = split.with_format("arrow")[:]
    column = table.column_names.index("label")
    return in_memory(table.set_column(column, table.field(column), pyarrow.array(labels)))


def stratified_split(split: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Divide a split into (the remaining rows, ``fraction`` of each class), chosen by ``seed``.

    Of a class with n rows, ⌊fraction · n⌋ are held out. A task without class ids counts as one
    class. Both parts keep the order of the rows.

    Example:
        >>> split = dataset_from_rows(["sentence"], [(str(i), i % 2) for i in range(20)])
        >>> rest, held_out = stratified_split(split, 0.1)
        >>> len(rest), sorted(held_out["label"])
        (18, [0, 1])
    """
    import numpy as np

    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    classes = np.zeros(len(split), dtype=np.int64)
    if has_class_ids(split):
        classes = np.asarray(split["label"][:])
    quota = {k: int(fraction * n + 1e-9) for k, n in enumerate(np.bincount(classes).tolist())}
    held_out = np.zeros(len(split), dtype=bool)
    for index in order:
        if quota[classes[index]] > 0:
            quota[classes[index]] -= 1
            held_out[index] = True
    return split.select(np.flatnonzero(~held_out)), split.select(np.flatnonzero(held_out))
