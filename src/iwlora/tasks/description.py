"""The description of a task: splits, balance, lengths, truncation, scripts and duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from textwrap import fill
from typing import Any

import numpy as np

from iwlora.tasks.kinds.contract import Dataset, EncodingInput
from iwlora.tasks.task import Task
from iwlora.tasks.vocabulary_fit import VocabularyFit

# The lengths of at most this many rows of a split are measured.
MEASURED_ROWS = 20_000
LINE_WIDTH = 100
_LISTED_CLASSES = 20
_RARE = 0.001  # scripts with fewer letters are not listed


def describe_task(
    task: Task,
    tokenizer: Any,
    max_length: int,
    config: Any,
    fits: Mapping[str, VocabularyFit],
) -> str:
    """The splits of a task in words.

    Args:
        task: The task to describe.
        tokenizer: The tokenizer whose tokens are counted.
        max_length: ``train.max_length``, in tokens.
        config: The configuration of the model.
        fits: {split: how the vocabulary of the tokenizer fits its texts}.
    """
    task = task.ranked(tokenizer)
    lines = [f"{task.name}: {task.kind.name}, metrics {', '.join(task.metrics)}"]
    lines += [f"columns: {', '.join(task.text)}; reported on {', '.join(task.reported)}"]
    lines += [f"note: {note}" for note in task.notes]
    for name, split in task.splits.items():
        lines += ["", f"{name}: {len(split):,} rows", f"  labels   {balance(task, split)}"]
        lines += [f"  {line}" for line in _lengths(task, split, tokenizer, max_length, config)]
        lines += [f"  {line}" for line in _vocabulary(fits[name], len(split))]
    lines += ["", *duplicates(task)]
    return "\n".join(fill(line, LINE_WIDTH, subsequent_indent=" " * 11) for line in lines)


def duplicates(task: Task) -> list[str]:
    """One line per split: how many of its rows have the texts of a training row.

    Example:
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> split = dataset_from_rows(["text"], [("a", 0), ("b", 1)])
        >>> splits = {"train": split, "test": split.select([1])}
        >>> duplicates(Task("t", ("text",), ("x", "y"), ("accuracy",), splits=splits))[1]
        'test: 1 of 1 rows have the texts of a training row, 0 of them with another label'
    """
    repeated = len(task.splits["train"]) - len({texts for texts, _ in _hashes(task, "train")})
    what = task.kind.content
    lines = [f"train: {repeated} rows repeat the {what} of an earlier row"]
    for name, (copies, relabeled) in count_copies(task).items():
        lines.append(
            f"{name}: {copies} of {len(task.splits[name]):,} rows have the {what} of a training "
            f"row, {relabeled} of them with another label"
        )
    return lines


def count_copies(task: Task) -> dict[str, tuple[int, int]]:
    """{split: (rows with the texts of a training row, those of them with another label)}."""
    scored = {name: list(_hashes(task, name)) for name in task.splits if name != "train"}
    scored_texts = {texts for rows in scored.values() for texts, _ in rows}
    # Of the training rows, which may be many, only those that are needed are kept.
    trained = {row for row in _hashes(task, "train") if row[0] in scored_texts}
    trained_texts = {texts for texts, _ in trained}
    counts = {}
    for name, rows in scored.items():
        copies = [row for row in rows if row[0] in trained_texts]
        counts[name] = (len(copies), sum(row not in trained for row in copies))
    return counts


def _hashes(task: Task, split: str) -> Iterator[tuple[int, int]]:
    """(hash of the texts, hash of texts and label) of each row: hashes take less memory."""
    for batch in task.splits[split].iter(4096):
        for *texts, label in zip(*(batch[name] for name in (*task.text, "label")), strict=True):
            text = repr(texts)
            yield hash(text), hash((text, repr(label)))


def balance(task: Task, split: Dataset) -> str:
    """Rows of each class; the range of numbers; the lengths of texts."""
    if task.kind.learns_texts:
        return "none, the texts are learned"
    stored = split.select_columns("label")["label"][:]  # without it the texts are read too
    labels = [task.kind.readable_label(task, label) for label in stored]
    if labels and isinstance(labels[0], float):
        mean = sum(labels) / len(labels)
        return f"{min(labels):g} to {max(labels):g}, mean {mean:.3g}"
    if not task.labels:
        if labels and isinstance(labels[0], list):
            counts = [len(answers) for answers in labels]
            return f"answers {quantiles(counts)}; {counts.count(0):,} rows without one"
        return f"words of the target {quantiles([len(text.split()) for text in labels])}"
    rows = Counter(name for label in labels for name in task.kind.class_names(label))
    total = max(sum(rows.values()), 1)
    parts = [f"{k} {rows[k]:,} ({rows[k] / total:.1%})" for k in task.labels[:_LISTED_CLASSES]]
    more = len(task.labels) - _LISTED_CLASSES
    return ", ".join(parts) + (f" and {more} more classes" if more > 0 else "")


def _lengths(task: Task, split: Dataset, tokenizer: Any, max_length: int, config: Any) -> list[str]:
    """Tokens of the rows without truncation, and what ``max_length`` cuts off."""
    rows = split.select(range(min(MEASURED_ROWS, len(split))))
    sizes = token_lengths(task, rows, tokenizer, config)
    excess = np.maximum(sizes - max_length, 0)
    longer, fraction = np.count_nonzero(excess), excess.sum() / sizes.sum()
    of = "" if len(rows) == len(split) else f" (of the first {len(rows):,} rows)"
    lines = [
        f"tokens   {quantiles(sizes)}{of}",
        f"at {max_length:<6}{longer:,} rows are longer ({longer / len(sizes):.1%}), "
        f"{fraction:.1%} of all tokens {task.kind.overflow}",
    ]
    targets, max_target = task.kind.target_lengths(rows, tokenizer)
    if targets:
        cut = sum(size > max_target for size in targets)
        lines.append(f"targets  {quantiles(targets)} tokens; {cut:,} are longer than {max_target}")
    return lines


def token_lengths(task: Task, rows: Dataset, tokenizer: Any, config: Any) -> Any:
    """The tokens of each row without truncation."""
    limit, tokenizer.model_max_length = tokenizer.model_max_length, 10**9
    try:
        encoded = task.kind.encode(EncodingInput(task, rows, tokenizer, 10**8, config))
    finally:
        tokenizer.model_max_length = limit
    return np.asarray(encoded["length"][:])


def _vocabulary(fit: VocabularyFit, rows: int) -> list[str]:
    """The scripts of the texts, and how many tokens the vocabulary does not have."""
    of = "" if fit.rows == rows else f" (of the first {fit.rows:,} rows)"
    warning = ": the vocabulary was not made for these texts" if fit.is_foreign else ""
    shares = [f"{name} {share:.1%}" for name, share in fit.scripts.items() if share >= _RARE]
    return [
        f"unknown  {fit.unknown:.1%} of the tokens, {fit.per_character:.2f} tokens per "
        f"character{warning}{of}",
        f"letters  {', '.join(shares) or 'none'}{of}",
    ]


def quantiles(sizes: Any) -> str:
    minimum, median, q95, maximum = np.quantile(sizes, [0, 0.5, 0.95, 1]).round().astype(int)
    return f"{minimum} to {maximum}, median {median}, 95% at most {q95}"
