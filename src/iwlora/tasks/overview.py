"""A first look at a task: splits, balance, lengths, what truncation cuts, duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from iwlora.tasks.task import Task

if TYPE_CHECKING:
    import datasets

# Rows of a split whose lengths are counted.
MEASURED = 20_000
_WIDTH = 100
_CLASSES = 20


def look(task: Task, tokenizer: Any, max_length: int, config: Any) -> str:
    """The report of ``iwlora tasks show``: the rows, and what a model would see of them."""
    lines = [f"{task.name}: {task.kind.name}, metrics {', '.join(task.metrics)}"]
    lines += [f"columns: {', '.join(task.text)}; reported on {', '.join(task.reported)}"]
    lines += [f"note: {note}" for note in task.notes]
    for name, split in task.splits.items():
        lines += ["", f"{name}: {len(split):,} rows", f"  labels   {_balance(task, split)}"]
        lines += [f"  {line}" for line in _lengths(task, split, tokenizer, max_length, config)]
    lines += ["", *duplicates(task)]
    return "\n".join(fill(line, _WIDTH, subsequent_indent=" " * 11) for line in lines)


def duplicates(task: Task) -> list[str]:
    """One line for each split beside train: how many of its rows have the texts of a train row.

    >>> from iwlora.tasks.task import columns
    >>> split = columns(["text"], [("a", 0), ("b", 1)])
    >>> duplicates(Task("t", ("text",), ("x", "y"), {"train": split, "test": split.select([1])},
    ...                 ("accuracy",)))[1]
    'test: 1 of 1 rows have the texts of a row of train, 0 of them with another label'
    """
    seen: set[bytes] = set()
    labelled: set[bytes] = set()
    repeated = 0
    for texts, row in _keys(task, task.splits["train"]):
        repeated += texts in seen
        seen.add(texts)
        labelled.add(row)
    lines = [f"train: {repeated} rows repeat the texts of an earlier one"]
    for name, split in task.splits.items():
        if name != "train":
            twins = [row for texts, row in _keys(task, split) if texts in seen]
            other = sum(row not in labelled for row in twins)
            lines.append(
                f"{name}: {len(twins)} of {len(split):,} rows have the texts of a row of train, "
                f"{other} of them with another label"
            )
    return lines


def _keys(task: Task, split: datasets.Dataset) -> Iterator[tuple[bytes, bytes]]:
    """What stands for the texts of each row, and for its texts and label: hashes are small."""
    for batch in split.iter(4096):
        for *texts, label in zip(*(batch[name] for name in (*task.text, "label")), strict=True):
            yield _hash(texts), _hash([texts, label])


def _hash(value: Any) -> bytes:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).digest()


def _balance(task: Task, split: datasets.Dataset) -> str:
    """Rows of each class; of numbers the range; of texts how long they are."""
    given = split.select_columns("label")["label"][:]  # else the texts would be read too
    labels = [task.kind.gold(task, label) for label in given]
    if labels and isinstance(labels[0], float):
        mean = sum(labels) / len(labels)
        return f"{min(labels):g} to {max(labels):g}, mean {mean:.3g}"
    if not task.labels:
        sizes = [len(label if isinstance(label, list) else label.split()) for label in labels]
        if labels and isinstance(labels[0], list):
            return f"answers {_quantiles(sizes)}; {sizes.count(0):,} rows without one"
        return f"words of the target {_quantiles(sizes)}"
    found = Counter(one for label in labels for one in _several(label))
    total = max(sum(found.values()), 1)
    told = [f"{k} {found[k]:,} ({found[k] / total:.1%})" for k in task.labels[:_CLASSES]]
    more = len(task.labels) - _CLASSES
    return ", ".join(told) + (f" and {more} more classes" if more > 0 else "")


def _several(label: Any) -> Sequence[str]:
    return label if isinstance(label, list) else [label]


def _lengths(
    task: Task, split: datasets.Dataset, tokenizer: Any, max_length: int, config: Any
) -> list[str]:
    """Tokens of the rows as they are, and what is lost at ``max_length``."""
    rows = split.select(range(min(MEASURED, len(split))))
    before, tokenizer.model_max_length = tokenizer.model_max_length, 10**9
    try:
        found = task.kind.encode(task, rows, tokenizer, 10**8, config, training=False)
    finally:
        tokenizer.model_max_length = before
    sizes = np.asarray(found["length"][:])
    over = np.maximum(sizes - max_length, 0)
    of = "" if len(rows) == len(split) else f" (of the first {len(rows):,} rows)"
    longer, beyond = np.count_nonzero(over), over.sum() / sizes.sum()
    lines = [
        f"tokens   {_quantiles(sizes)}{of}",
        f"at {max_length:<6}{longer:,} rows are longer ({longer / len(sizes):.1%}), "
        f"{beyond:.1%} of all tokens {task.kind.beyond}",
    ]
    targets, most = task.kind.targets_cut(rows, tokenizer)
    if targets:
        cut = sum(size > most for size in targets)
        lines.append(f"targets  {_quantiles(targets)} tokens; {cut:,} are longer than {most}")
    return lines


def _quantiles(sizes: Any) -> str:
    least, middle, most, all_ = (
        np.quantile(np.asarray(sizes), [0, 0.5, 0.95, 1]).round().astype(int)
    )
    return f"{least} to {all_}, median {middle}, 95% within {most}"
